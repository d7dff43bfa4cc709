"""The flags of the command line, which are Hydra's, and what to say to those that it does not know."""

from __future__ import annotations

import difflib
import re
from argparse import Namespace
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from fireseg.errors import SettingError

EARLIER_FLAGS = {
    "--patches-dir": "data.root=DIR",
    "--output-dir": "output_dir=DIR",
    "--num-classes": "task=del for 2, task=gra for 5",
    "--encoder": "model.encoder=NAME",
    "--architecture": "model.arch=NAME",
    "--batch-size": "data.batch_size=N",
    "--epochs": "engine.epochs=N",
    "--lr": "optimizer.lr=X",
    "--weight-decay": "optimizer.weight_decay=X",
    "--num-workers": "data.num_workers=N",
    "--no-class-weights": "loss.class_weights=false",
    "--focal-loss": "loss=focal_dice",
    "--focal-gamma": "loss=focal_dice loss.gamma=X",
    "--weighted-sampling": "data.weighted_sampling=true",
    "--fire-weight": "data.fire_weight=X",
    "--no-fire-augment": "data/augment=standard",
    "--resume": "resume=RUN",
    "--save-every": "checkpoint.every=N",
    "--patience": "stopping.patience=N",
    "--wandb": "tracker=wandb",
    "--project": "tracker=wandb tracker.project=NAME",
    "--run-name": "tracker.run_name=NAME",
    "--device": "engine.device=NAME",
}
"""The flags of the command line before this one, each with what says the same today."""


def read_flags(argv: Sequence[str]) -> Namespace:
    """Reads a command line as Hydra does.

    Args:
        argv: The words after the program's name.

    Returns:
        Hydra's flags, with the settings as `overrides`.

    Raises:
        SettingError: If there is a flag that Hydra does not know, or two that exclude one another.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise SettingError(f"{message}; --hydra-help lists the flags")

    parser.error = refuse
    flags, rest = parser.parse_known_args(list(argv))
    if unknown := [word for word in rest if word.startswith("-")]:
        raise SettingError(*(_describe_unknown(word, argv) for word in unknown))
    if rest:
        raise SettingError(*(f"{word}: settings go after the flags; write -m first" for word in rest))
    modes = [("--cfg", flags.cfg), ("--info", flags.info), ("-m", flags.multirun), ("--run", flags.run)]
    if len(asked := [name for name, value in modes if value]) > 1:
        raise SettingError(f"{asked[0]}: not together with {' and '.join(asked[1:])}; take one of them")
    if flags.resolve and not (flags.cfg or flags.help):
        raise SettingError("--resolve: says how --cfg shows the settings; write --cfg job --resolve")
    return flags


def is_run(flags: Namespace) -> bool:
    """Whether anything is to be trained, rather than shown."""
    shown = (flags.help, flags.hydra_help, flags.cfg, flags.info, flags.shell_completion, flags.experimental_rerun)
    return not any(shown)


def _describe_unknown(word: str, argv: Sequence[str]) -> str:
    flag, equals, value = word.partition("=")
    near = difflib.get_close_matches(flag, EARLIER_FLAGS, n=1, cutoff=0.8)
    if not near:
        return f"{word}: no such flag; settings are written name=value, and --help lists them"
    after = [*argv[argv.index(word) + 1 :], ""][0]
    if not equals and not after.startswith("-") and "=" not in after:
        value = after
    today = EARLIER_FLAGS[near[0]]
    return f"{flag}: no such flag; write {re.sub('(DIR|NAME|RUN|N|X)$', lambda found: value or found[0], today)}"
