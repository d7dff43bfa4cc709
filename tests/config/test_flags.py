"""Flags are those of Hydra; flags of the command line before Hydra are answered with their replacement."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from fireseg.config import compose_settings
from fireseg.config.flags import EARLIER_FLAGS

Faults = Callable[..., list[str]]

VALUES = {"DIR": "there", "NAME": "first", "RUN": "there", "N": "3", "X": "0.5"}
NAMES = {"--encoder": "resnet18", "--architecture": "unet", "--device": "cpu"}


@pytest.mark.parametrize(
    ("argv", "location", "cure"),
    [
        (["--epochs", "3"], "--epochs", "write engine.epochs=3"),
        (["--epochs=3"], "--epochs", "write engine.epochs=3"),
        (["--epoch"], "--epoch", "write engine.epochs=N"),
        (["--patches-dir", "my fires (1)"], "--patches-dir", """write 'data.root="my fires (1)"'"""),
        (["--focal-loss"], "--focal-loss", "write loss=focal_dice"),
        (["--frob"], "--frob", "--help lists them"),
        (["-m", "--cfg", "job"], "--cfg", "-m; use one of them"),
        (["--resolve"], "--resolve", "write --cfg job --resolve"),
        (["task=gra", "-m", "seed=1,2"], "seed=1,2", "write -m first"),
        (["-cd", "/nowhere"], "--config-dir", "/nowhere"),
        (["--cfg", "jobs"], "argument --cfg/-c", "--hydra-help"),
    ],
)
def test_a_wrong_flag_is_reported_with_its_cure(faults: Faults, argv: list[str], location: str, cure: str) -> None:
    (fault,) = faults(*argv)
    assert fault.startswith(f"{location}: ")
    assert cure in fault


@pytest.mark.parametrize("flag", [flag for flag in EARLIER_FLAGS if flag not in ("--num-classes", "--resume")])
def test_the_replacement_of_an_earlier_flag_is_valid(flag: str) -> None:
    name = NAMES.get(flag)
    words = EARLIER_FLAGS[flag].split()
    assert compose_settings([re.sub("(DIR|NAME|N|X)$", lambda match: name or VALUES[match[0]], word) for word in words])
