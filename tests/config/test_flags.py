"""Flags are Hydra's; to those of the earlier command line it is said what they are today."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from fireseg.config import preflight
from fireseg.config.overrides import EARLIER_FLAGS

Faults = Callable[..., list[str]]

STAND_INS = {"DIR": "there", "NAME": "first", "RUN": "there", "N": "3", "X": "0.5"}
OTHERS = {"--encoder": "resnet18", "--architecture": "unet", "--device": "cpu"}


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        (["--epochs", "3"], "--epochs: no such flag; write engine.epochs=3"),
        (["--epochs=3"], "--epochs: no such flag; write engine.epochs=3"),
        (["--epoch"], "--epoch: no such flag; write engine.epochs=N"),
        (["--focal-loss"], "--focal-loss: no such flag; write loss=focal_dice"),
        (["--frob"], "--frob: no such flag; settings are written name=value, and --help lists them"),
        (["-m", "--cfg", "job"], "--cfg: not together with -m; take one of them"),
        (["--resolve"], "--resolve: says how --cfg shows the settings; write --cfg job --resolve"),
        (["task=gra", "-m", "seed=1,2"], "seed=1,2: settings go after the flags; write -m first"),
        (["-cd", "/nowhere"], "--config-dir: /nowhere: no such folder"),
    ],
)
def test_a_wrong_flag_is_told_with_its_cure(faults: Faults, argv: list[str], fault: str) -> None:
    assert faults(*argv) == [fault]


@pytest.mark.parametrize("flag", [flag for flag in EARLIER_FLAGS if flag not in ("--num-classes", "--resume")])
def test_what_an_earlier_flag_is_today_can_be_typed(flag: str) -> None:
    stand_in = OTHERS.get(flag)
    words = EARLIER_FLAGS[flag].split()
    typed = [re.sub("(DIR|NAME|N|X)$", lambda found: stand_in or STAND_INS[found[0]], word) for word in words]
    assert preflight(typed).settings
