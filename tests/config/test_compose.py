"""A command line is rejected with all its faults, or gives exactly what Hydra will run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from fireseg.config import CONF_DIR, compose_settings, preflight
from fireseg.config.resolve import resolve
from fireseg.errors import SettingError

Faults = Callable[..., list[str]]


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")


def assert_fault(faults: list[str], location: str, *cures: str) -> None:
    """Checks that there is one fault, that it starts with its location, and that it names the cure."""
    (fault,) = faults
    assert fault.startswith(f"{location}: ")
    assert "\n" not in fault
    for cure in cures:
        assert cure in fault


def test_an_empty_command_line_is_one_run() -> None:
    plan = preflight([])
    assert (plan.is_run, plan.is_multirun, plan.jobs) == (True, False, ((),))


def test_all_faults_are_reported_at_once(faults: Faults) -> None:
    found = faults("model.encodr=x", "engine.epochs=-3", "task=grad", "optimizer.lr=fast", "+foo=1", "engine.device")
    assert [fault.partition(":")[0] for fault in found] == [
        "engine.device",
        "task",
        "model.encodr",
        "foo",
        "optimizer.lr",
        "engine.epochs",
    ]


@pytest.mark.parametrize(
    ("word", "location", "cure"),
    [
        ("model.encodr=x", "model.encodr", "did you mean 'encoder'?"),
        ("tasks=gra", "tasks", "did you mean 'task'?"),
        ("lr=1e-3", "lr", "did you mean 'optimizer.lr'?"),
        ("engine.lr=1e-3", "engine.lr", "did you mean 'optimizer.lr'?"),
        ("engin.epochs=3", "engin.epochs", "did you mean 'engine.epochs'?"),
        ("scheduler.warmup_epochs=3", "scheduler.warmup_epochs", "scheduler=cosine has it"),
        ("data.maker.seed=1", "data.maker.seed", "data=sample has it"),
        ("model={encodr: x}", "model.encodr", "did you mean 'encoder'?"),
        ("+model.encder=x", "model.encder", "did you mean 'encoder'?"),
        ("+loss._args_=[1]", "loss._args_", "no such setting"),
        ("hydra.sweep.dirr=x", "hydra.sweep.dirr", "did you mean 'dir'?"),
    ],
)
def test_an_unknown_name_is_reported_with_the_nearest_one(faults: Faults, word: str, location: str, cure: str) -> None:
    assert_fault(faults(word), location, "no such setting", cure)


@pytest.mark.parametrize(
    ("word", "location", "cure"),
    [
        ("task=null", "task", "available: del, gra"),
        ("task=[del,gra]", "task", "available: del, gra"),
        ("model/encodr=x", "model/encodr", "did you mean 'model/encoder'?"),
        ("model/arch=unett", "model/arch", "did you mean 'unet'?"),
        ("data.augment=none", "data.augment", "write data/augment=none"),
        ("+tracker=wandb", "+tracker", "write tracker=wandb"),
        ("+model.encoder=x", "+model.encoder", "write model.encoder=x"),
        ("~tracker", "~tracker", "write tracker=none"),
        ("~experiment", "~experiment", "leave it out"),
        ("~model.encoder", "~model.encoder", "write model.encoder="),
        ("model/encoder@x=resnet18", "model/encoder@x", "write model/encoder=resnet18"),
        ("hydra/launcher=basic", "hydra/launcher", "add -m"),
        ("=3", "=3", "--help"),
        ("data.bands=[B02,", "data.bands", "quote the whole"),
        ("data.root=my dir (1)", "data.root", "quote it twice: 'data.root=\"my dir (1)\"'"),
        ("seed=1,2", "seed", "add -m"),
        ("data.root=", "data.root", "empty"),
        ("data.root=${nope}", "data.root", "'nope'"),
        ("data.root=???", "data.root", "give data.root="),
    ],
)
def test_an_invalid_override_is_reported_with_its_cure(faults: Faults, word: str, location: str, cure: str) -> None:
    assert_fault(faults(word), location, cure)


def test_encoders_without_a_file_are_given_by_value(faults: Faults) -> None:
    assert faults("model.encoder=tu-convnext_tiny") == []
    assert_fault(faults("model/encoder=tu-convnext_tiny"), "model/encoder", "write model.encoder=tu-convnext_tiny")


def test_several_values_for_a_list_are_reported_with_the_list_syntax(faults: Faults) -> None:
    assert_fault(faults("data.bands=B02,B03"), "data.bands", "'data.bands=[B02,B03]' for a list")


def test_several_values_for_a_folder_are_reported_with_the_quotes_of_one_value(faults: Faults) -> None:
    word = "data.root=/fires/2024, 2025"
    assert_fault(faults(word), "data.root", "add -m", """write 'data.root="/fires/2024, 2025"' for one value""")


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
def test_settings_equal_those_that_hydra_composes(words: tuple[str, ...]) -> None:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = resolve(compose("train", list(words)))
    assert compose_settings(words) == composed


def test_an_unknown_name_in_a_file_is_found(faults: Faults, tmp_path: Path) -> None:
    write(tmp_path / "experiment/mine.yaml", "# @package _global_\nengin:\n  epochs: 3\nmodel:\n  encodr: x\n")
    found = faults("-cd", str(tmp_path), "experiment=mine")
    assert [fault.partition(":")[0] for fault in found] == ["engin", "model.encodr"]
    assert "did you mean 'engine'?" in found[0]


@pytest.mark.parametrize(
    ("content", "location", "cure"),
    [
        ("# @package _global_\nengine: [3\nmodel: 4\n", "mine.yaml", "in line 3; fix the file"),
        ("# @package _global_\ndefaults:\n  - override /model/encoder: foo\n", "conf", "available: "),
        ("engine:\n  epochs: 3\n", "experiment", "# @package _global_"),
        ("# @package _global_\nloss:\n  _target_: os.system\n", "loss._target_: os.system", "conf/"),
    ],
)
def test_a_broken_file_of_a_user_is_one_line(
    faults: Faults, tmp_path: Path, content: str, location: str, cure: str
) -> None:
    write(tmp_path / "experiment/mine.yaml", content)
    fault = faults(f"hydra.searchpath=['{tmp_path}']", "experiment=mine")[0]
    assert location in fault
    assert cure in fault
    assert "\n" not in fault


def test_nothing_runs_if_something_is_only_shown() -> None:
    assert not any(preflight(argv).is_run for argv in (["--help"], ["--info"], ["--hydra-help"], ["--cfg", "job"]))


def test_names_are_checked_for_settings_that_are_only_shown(faults: Faults) -> None:
    assert_fault(faults("--cfg", "job", "model.encodr=x"), "model.encodr", "did you mean 'encoder'?")


def test_showing_settings_imports_nothing_slow() -> None:
    program = (
        "import sys; from fireseg.config import preflight; preflight(['--help']); preflight(['--cfg', 'job']);"
        "print(*{'torch', 'pydantic', 'numpy'} & set(sys.modules), end='')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(("choice", "engine"), [("slurm", "slurm"), ("submitit_slurm", "local"), ("joblib", "local")])
def test_a_launcher_is_refused_with_the_engine_to_write(faults: Faults, choice: str, engine: str) -> None:
    assert_fault(faults("-m", f"hydra/launcher={choice}"), "hydra/launcher", f"write -m --engine {engine}")


def test_a_launcher_that_a_file_chooses_is_refused(faults: Faults, tmp_path: Path) -> None:
    write(tmp_path / "hydra/launcher/mine.yaml", "_target_: mine.Launcher\n")
    write(tmp_path / "sweep/mine.yaml", "# @package _global_\ndefaults:\n  - override /hydra/launcher: mine\n")
    assert_fault(faults("-cd", str(tmp_path), "-m", "sweep=mine"), "hydra/launcher", "leave it out")


def test_invalid_settings_have_exit_code_two() -> None:
    with pytest.raises(SettingError) as caught:
        preflight(["model.encodr=x"])
    assert caught.value.exit_code == 2


def test_jobs_of_a_sweep_are_in_the_order_of_hydra() -> None:
    plan = preflight(["-m", "seed=1,2", "task=del,gra"])
    assert plan.jobs == (
        ("seed=1", "task=del"),
        ("seed=1", "task=gra"),
        ("seed=2", "task=del"),
        ("seed=2", "task=gra"),
    )
    assert (plan.is_multirun, plan.swept, plan.settings) == (True, ("seed", "task"), None)


@pytest.mark.parametrize("argv", [["sweep=encoders"], ["-m", "sweep=encoders"]])
def test_a_sweep_file_needs_no_flag(argv: list[str]) -> None:
    plan = preflight(argv)
    assert plan.is_multirun
    assert [job[0].partition("=")[2] for job in plan.jobs] == ["resnet18", "resnet34", "mobilenet_v2"]


def test_the_command_line_overrides_a_sweep_file() -> None:
    assert len(preflight(["sweep=encoders", "model/encoder=resnet50,resnet18", "seed=range(0,3)"]).jobs) == 6


def test_jobs_are_named_by_what_differs_and_their_folders_follow_hydra() -> None:
    jobs = preflight(["-m", "task=gra", "seed=1,2", "model/encoder=resnet18"]).sweep_jobs
    assert [(job.name, job.subdir) for job in jobs] == [("seed=1", "0_seed-1"), ("seed=2", "1_seed-2")]
    assert [(job.settings["seed"], job.settings["task"]["name"]) for job in jobs] == [(1, "gra"), (2, "gra")]

    (job,) = preflight(["-m", "task=gra"]).sweep_jobs
    assert (job.name, job.subdir) == ("task=gra", "0_task-gra")

    words = ["hydra.sweep.subdir=${task.name}/s${seed}-${hydra.job.num}", "seed=1,2"]
    assert [job.subdir for job in preflight(["-m", *words]).sweep_jobs] == ["del/s1-0", "del/s2-1"]

    words = ["hydra.job.config.override_dirname.exclude_keys=[seed]", "seed=1,2", "task=del,gra"]
    assert [job.name for job in preflight(["-m", *words]).sweep_jobs] == ["task=del", "task=gra"] * 2


def test_jobs_that_would_share_a_folder_are_refused(faults: Faults) -> None:
    found = faults("-m", "seed=1,2", "hydra.sweep.subdir=${task.name}")
    assert_fault(found, "hydra.sweep.subdir", "jobs 0 and 1 would share the folder del", "${hydra.job.num}")


def test_the_experiment_of_the_environment_is_part_of_the_settings_of_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "fires")
    jobs = preflight(["-m", "seed=1,2"]).sweep_jobs
    assert [job.settings["tracker"]["experiment"] for job in jobs] == ["fires", "fires"]

    (job,) = preflight(["-m", "tracker.experiment=mine"]).sweep_jobs
    assert job.settings["tracker"]["experiment"] == "mine"


def test_a_sweep_may_have_one_job() -> None:
    assert preflight(["-m"]).jobs == ((),)


@pytest.mark.parametrize(
    ("words", "location", "jobs"),
    [
        (["data.batch_size=16,0,8"], "data.batch_size", "(job 1: data.batch_size=0)"),
        (["seed=1,2", "data.fire_weight=0,1,2"], "data.fire_weight", "(jobs 0, 3 of 6)"),
        (["task=del,grad"], "task", "(job 1: task=grad)"),
    ],
)
def test_a_fault_of_some_jobs_names_them(faults: Faults, words: list[str], location: str, jobs: str) -> None:
    assert_fault(faults("-m", *words), location, jobs)


def test_a_fault_of_all_jobs_is_reported_once_and_names_none(faults: Faults) -> None:
    (fault,) = faults("-m", "seed=1,2", "engine.epochs=0")
    assert fault.startswith("engine.epochs: ")
    assert "job" not in fault


def test_a_glob_matches_files() -> None:
    assert len(preflight(["-m", "model/encoder=glob(resnet*)"]).jobs) == 3


@pytest.mark.parametrize(
    ("word", "location", "cure"),
    [
        ("model.encoder=glob(*)", "model.encoder", "write model/encoder=glob(*)"),
        ("model/encoder=glob(x*)", "model/encoder", "list at least one"),
        ("seed=range(3,0)", "seed", "list at least one"),
        ("optimizer.lr=interval(0,1)", "optimizer.lr", "list the values"),
        ("hydra.job.name=a,b", "hydra.job.name", "choose one"),
        ("resume=outputs/a,outputs/b", "resume", "without -m"),
        ("hydra/sweeper=optuna", "hydra/sweeper", "leave it out"),
        ("hydra.job.chdir=true", "hydra.job.chdir", "leave it out"),
        ("+hydra.job.env_set.CUDA_VISIBLE_DEVICES=1", "hydra.job.env_set", "set CUDA_VISIBLE_DEVICES before"),
        ("hydra.sweep.subdir=../elsewhere", "hydra.sweep.subdir", "within that of the sweep"),
    ],
)
def test_a_sweep_of_no_job_or_of_wrong_jobs_is_rejected(faults: Faults, word: str, location: str, cure: str) -> None:
    assert_fault(faults("-m", word), location, cure)


def test_a_fault_in_a_sweep_file_is_found(faults: Faults, tmp_path: Path) -> None:
    content = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      sed: 1,2\n"
    write(tmp_path / "sweep/mine.yaml", content)
    assert_fault(faults("-cd", str(tmp_path), "sweep=mine"), "sed", "did you mean 'seed'?")


def test_the_environment_names_the_mlflow_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compose_settings(["tracker=mlflow"])["tracker"]["experiment"] == "fireseg"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "fires of 2026")
    assert compose_settings(["tracker=mlflow"])["tracker"]["experiment"] == "fires of 2026"
    assert compose_settings(["tracker.experiment=mine"])["tracker"]["experiment"] == "mine"


@pytest.mark.parametrize(
    ("words", "location", "cure"),
    [
        (["hydra.run.dir=a/b", "output_dir=c"], "hydra.run.dir", "leave one of them out"),
        (["hydra.sweep.dir=a"], "hydra.sweep.dir", "add -m"),
        (["-m", "hydra.run.dir=a"], "hydra.run.dir", "write hydra.sweep.dir"),
    ],
)
def test_a_folder_of_hydra_that_would_be_ignored_is_refused(
    faults: Faults, words: list[str], location: str, cure: str
) -> None:
    assert_fault(faults(*words), location, cure)


def test_a_resumed_run_stays_in_its_folder(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(compose_settings()), encoding="utf-8")
    assert_fault(faults(f"resume={tmp_path}", "hydra.run.dir=a"), "hydra.run.dir", "leave it out")


def test_a_sweep_folder_of_a_file_is_known_and_must_not_hold_runs(faults: Faults, tmp_path: Path) -> None:
    write(tmp_path / "sweep/mine.yaml", f"# @package _global_\nhydra:\n  sweep:\n    dir: {tmp_path}/fires\n")
    words = ("-cd", str(tmp_path), "-m", "sweep=mine", "seed=1,2")
    assert preflight(words).sweep_dir == tmp_path / "fires"
    assert preflight(["-m", "seed=1,2"]).sweep_dir is None
    write(tmp_path / "fires/first/0_a/config.json", "{}")
    assert_fault(faults(*words), "hydra.sweep.dir", "holds 1 run already (first/0_a)", "choose another folder")


@pytest.mark.parametrize("word", ["data.root=~/fires", "data.root='~/fires'", 'data.root="~/fires"'])
def test_the_home_folder_is_expanded_in_paths(word: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "Zoë's home"))
    assert compose_settings([word])["data"]["root"] == str(tmp_path / "Zoë's home" / "fires")


def test_the_home_folder_is_expanded_in_lists_and_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/zoe")
    jobs = preflight(["-m", "data.root=~/a,~/b"]).jobs
    assert [compose_settings(job)["data"]["root"] for job in jobs] == ["/home/zoe/a", "/home/zoe/b"]
    assert compose_settings(["tracker.uri=sqlite:///~/m.db"])["tracker"]["uri"] == "sqlite:////home/zoe/m.db"


def test_the_home_folder_is_expanded_only_where_a_path_begins() -> None:
    assert compose_settings(['data.root="./~/fires"'])["data"]["root"] == "./~/fires"
    assert compose_settings(["output_dir='a=~/b'"])["output_dir"] == "a=~/b"
