"""Flags of the `train` command: Hydra's, and hints for the flags of the command line before Hydra."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from fireseg.console import format_override
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
"""Flags of the command line before Hydra, with the overrides that replace them."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingError(f"{message}; --hydra-help lists the flags")


def read_flags(argv: Sequence[str]) -> argparse.Namespace:
    """Parses a command line as Hydra 1.3 does.

    Args:
        argv: Command-line arguments, without the program name.

    Returns:
        Hydra's flags, with the settings as `overrides`.

    Raises:
        SettingError: If a flag is unknown to Hydra, or two flags exclude each other.
    """
    flags, rest = _create_parser().parse_known_args(list(argv))
    if unknown := [word for word in rest if word.startswith("-")]:
        raise SettingError(*(_describe_unknown_flag(word, argv) for word in unknown))
    if rest:
        raise SettingError(*(f"{word}: settings must follow the flags; write -m first" for word in rest))
    modes = [("--cfg", flags.cfg), ("--info", flags.info), ("-m", flags.multirun), ("--run", flags.run)]
    if len(given := [name for name, value in modes if value]) > 1:
        raise SettingError(f"{given[0]}: cannot be combined with {' and '.join(given[1:])}; use one of them")
    if flags.resolve and not (flags.cfg or flags.help):
        raise SettingError("--resolve: applies only to --cfg; write --cfg job --resolve")
    return flags


def is_run(flags: argparse.Namespace) -> bool:
    """Returns True if the flags start a training or sweep instead of showing something."""
    names = ("help", "hydra_help", "version", "cfg", "info", "shell_completion", "experimental_rerun")
    return not any(getattr(flags, name) for name in names)


def _create_parser() -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, prog="train")
    parser.add_argument("overrides", nargs="*")
    switches = ("--help -h", "--hydra-help", "--version", "--resolve", "--run -r", "--multirun -m")
    for names in (*switches, "--shell-completion -sc"):
        parser.add_argument(*names.split(), action="store_true")
    for names in ("--package -p", "--config-path -cp", "--config-name -cn", "--config-dir -cd", "--experimental-rerun"):
        parser.add_argument(*names.split())
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    info = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=info)
    return parser


def _describe_unknown_flag(word: str, argv: Sequence[str]) -> str:
    flag, equals, value = word.partition("=")
    near = difflib.get_close_matches(flag, EARLIER_FLAGS, n=1, cutoff=0.8)
    if not near:
        return f"{word}: no such flag; settings are written name=value, and --help lists them"
    following = [*argv[argv.index(word) + 1 :], ""][0]
    if not equals and not following.startswith("-") and "=" not in following:
        value = following
    override = re.sub(r"([\w.]+)=(DIR|NAME|RUN|N|X)$", partial(_fill_in, value), EARLIER_FLAGS[near[0]])
    return f"{flag}: no such flag; write {override}"


def _fill_in(value: str, placeholder: re.Match[str]) -> str:
    key, kind = placeholder.groups()
    if not value or kind in ("N", "X"):
        return f"{key}={value or kind}"
    return format_override(key, value if kind == "NAME" else Path(value))
