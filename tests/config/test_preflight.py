"""A command line is refused with all its faults, or comes to what Hydra will run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from fireseg.config import CONF_DIR, preflight, resolve
from fireseg.errors import SettingError

Faults = Callable[..., list[str]]


def test_nothing_typed_is_one_run() -> None:
    plan = preflight([])
    assert (plan.is_run, plan.is_multirun, plan.jobs) == (True, False, ((),))


def test_all_faults_come_at_once(faults: Faults) -> None:
    found = faults("model.encodr=x", "engine.epochs=-3", "task=grad", "optimizer.lr=fast", "+foo=1", "engine.device")
    assert found == [
        "engine.device: is not of the form name=value (a value with blanks needs quotes); --help lists what there is",
        "task: no choice 'grad' (did you mean 'gra'?); there are del, gra",
        "model.encodr: no such setting (did you mean 'encoder'?)",
        "foo: no such setting",
        "optimizer.lr: 'fast', but it must be a number",
        "engine.epochs: -3, but it must be greater than 0",
    ]


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("model.encodr=x", "model.encodr: no such setting (did you mean 'encoder'?)"),
        ("tasks=gra", "tasks: no such setting (did you mean 'task'?)"),
        ("lr=1e-3", "lr: no such setting (did you mean 'optimizer.lr'?)"),
        ("engine.lr=1e-3", "engine.lr: no such setting (did you mean 'optimizer.lr'?)"),
        ("engin.epochs=3", "engin.epochs: no such setting (did you mean 'engine.epochs'?)"),
        ("scheduler.warmup_epochs=3", "scheduler.warmup_epochs: no such setting here; scheduler=cosine has it"),
        ("data.maker.seed=1", "data.maker.seed: no such setting here; data=sample has it"),
        ("model={encodr: x}", "model.encodr: no such setting (did you mean 'encoder'?)"),
        ("+model.encder=x", "model.encder: no such setting (did you mean 'encoder'?)"),
        ("+loss._args_=[1]", "loss._args_: no such setting"),
        ("hydra.sweep.dirr=x", "hydra.sweep.dirr: no such setting (did you mean 'dir'?)"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(faults: Faults, word: str, fault: str) -> None:
    assert faults(word) == [fault]


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("task=null", "task: null is none of its choices; choose one; there are del, gra"),
        ("task=[del,gra]", "task: [del,gra] is a list, but it takes one choice; there are del, gra"),
        ("model/encodr=x", "model/encodr: no such group of choices (did you mean 'model/encoder'?); --help lists what"),
        ("model/arch=unett", "model/arch: no choice 'unett' (did you mean 'unet'?)"),
        ("data.augment=none", "data.augment: is a choice among files; write data/augment=none"),
        ("+tracker=wandb", "+tracker: is there already; leave out the +: tracker=wandb"),
        ("+model.encoder=x", "+model.encoder: is there already; leave out the +: model.encoder=x"),
        ("~tracker", "~tracker: a choice cannot be taken out; write tracker=none"),
        ("~model.encoder", "~model.encoder: a setting cannot be taken out, only changed"),
        ("model/encoder@x=resnet18", "model/encoder@x: nothing here can be moved by @; write model/encoder=resnet18"),
        ("hydra/launcher=basic", "hydra/launcher: counts for the jobs of a sweep alone; add -m"),
        ("=3", "=3: has no name before the ="),
        ("data.bands=[B02,", "data.bands: '[B02,' has a bracket without its partner; quote the whole for the shell"),
        ("data.root=my dir (1)", "data.root: 'my dir (1)' cannot be read"),
        ("seed=1,2", "seed: '1,2' is several values; add -m to run one job for each"),
        ("data.root=", "data.root: is empty"),
        ("data.root=${nope}", "data.root: Interpolation key 'nope' not found; write a value that can be resolved"),
        ("data.root=???", "data.root: has no value yet; give data.root=..."),
    ],
)
def test_a_word_that_cannot_be_is_told_with_its_cure(faults: Faults, word: str, fault: str) -> None:
    assert [line[: len(fault)] for line in faults(word)] == [fault]


def test_an_encoder_beyond_the_files_is_taken_by_value(faults: Faults) -> None:
    assert faults("model.encoder=tu-convnext_tiny") == []
    assert faults("model/encoder=tu-convnext_tiny")[0].endswith("any other by value: model.encoder=tu-convnext_tiny")


def test_several_values_for_a_list_are_told_how_a_list_is_written(faults: Faults) -> None:
    assert faults("data.bands=B02,B03")[0].endswith("or data.bands=[B02,B03] for a list")


@pytest.mark.parametrize(
    "words",
    [
        ("task=gra", "model.encoder=resnet18"),
        ("data=sample", "data.maker.seed=3", "data/augment=none"),
        ("model={encoder: resnet50, stem: smp}", "++seed=5", "optimizer.betas=[0.8,0.9]"),
        ("experiment=sample_quick", "scheduler=none", "tracker.uri=null"),
        ("data.root='a \"quoted\" name'", "output_dir=${oc.env:HOME}/x", "loss.gamma=1", "loss.gamma=2"),
    ],
)
def test_settings_are_what_hydra_itself_composes(words: tuple[str, ...]) -> None:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = resolve(compose("train", list(words)))
    assert preflight(words).settings == composed


def test_a_name_that_conf_does_not_know_is_found_in_a_file_too(faults: Faults, tmp_path: Path) -> None:
    _write(tmp_path / "experiment/mine.yaml", "# @package _global_\nengin:\n  epochs: 3\nmodel:\n  encodr: x\n")
    assert faults("-cd", str(tmp_path), "experiment=mine") == [
        "engin: no such setting (did you mean 'engine'?)",
        "model.encodr: no such setting (did you mean 'encoder'?)",
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("# @package _global_\nengine: [3\nmodel: 4\n", "mine.yaml: expected ',' or ']', but got ':' in line 3; mend"),
        (
            "# @package _global_\ndefaults:\n  - override /model/encoder: foo\n",
            "Could not find 'model/encoder/foo'; there",
        ),
        ("engine:\n  epochs: 3\n", "experiment: its file says nothing to the whole; begin it with the line"),
        ("# @package _global_\nloss:\n  _target_: os.system\n", "loss._target_: os.system, but conf/ offers no such"),
    ],
)
def test_a_broken_file_of_a_user_is_one_line(faults: Faults, tmp_path: Path, content: str, fault: str) -> None:
    _write(tmp_path / "experiment/mine.yaml", content)
    found = faults(f"hydra.searchpath=['{tmp_path}']", "experiment=mine")
    assert fault in found[0]
    assert "\n" not in found[0]


def test_what_is_only_shown_is_not_planned() -> None:
    assert not any(preflight(argv).is_run for argv in (["--help"], ["--info"], ["--hydra-help"], ["--cfg", "job"]))


def test_settings_that_are_only_shown_must_exist_all_the_same(faults: Faults) -> None:
    assert faults("--cfg", "job", "model.encodr=x") == ["model.encodr: no such setting (did you mean 'encoder'?)"]


def test_showing_imports_nothing_slow() -> None:
    program = (
        "import sys; from fireseg.config import preflight; preflight(['--help']); preflight(['--cfg', 'job']);"
        "print(*{'torch', 'pydantic', 'numpy'} & set(sys.modules), end='')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_missing_plugin_for_slurm_is_told_how_to_get_it(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    preflight([])  # Hydra looks for plugins once
    launchers = ConfigStore.instance().repo["hydra"]["launcher"]
    monkeypatch.delitem(launchers, "submitit_slurm.yaml", raising=False)
    assert faults("-m", "hydra/launcher=slurm") == [
        "hydra/launcher: Slurm needs a plugin that is not installed; pip install 'fireseg[slurm]'"
    ]


def test_an_error_of_settings_ends_with_two() -> None:
    with pytest.raises(SettingError) as caught:
        preflight(["model.encodr=x"])
    assert caught.value.exit_code == 2


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
