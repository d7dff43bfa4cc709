"""Runs are ranked by their score on val, over seeds, and never across different data."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from fireseg.errors import FiresegError
from fireseg.runs import load_trained_model
from fireseg.runs.leaderboard import Leaderboard, format_epochs, format_leaderboard, format_settings, read_leaderboard
from tests.runs.builders import write_evaluation, write_finished_run

EARLIER = Path(__file__).parent / "run_of_0_1_0"


def read_labels(leaderboard: Leaderboard) -> list[str]:
    return [entry.label for entry in leaderboard.tables[0].entries]


def test_runs_that_differ_only_in_the_seed_are_one_entry_with_mean_and_deviation(tmp_path: Path) -> None:
    for seed, iou in enumerate((0.6, 0.7, 0.8)):
        write_finished_run(tmp_path / f"{seed}_a", settings={"seed": seed}, ious=[0.1, iou, 0.2])
    (entry,) = read_leaderboard([tmp_path]).tables[0].entries
    assert entry.val_fire_iou == pytest.approx(0.7)
    assert entry.val_fire_iou_sd == pytest.approx(0.1)
    assert [run.best_epoch for run in entry.runs] == [2, 2, 2]
    assert (entry.label, entry.best_run.path.name) == ("unet resnet18", "2_a")
    assert "0.700 ± 0.100 (n = 3)" in format_leaderboard(read_leaderboard([tmp_path]))[1]


def test_the_best_mean_is_first_and_the_best_single_seed_does_not_win(tmp_path: Path) -> None:
    scores = {"resnet18": (0.9, 0.3), "resnet34": (0.7, 0.7), "mobilenet_v2": (0.5, 0.6)}
    for encoder, ious in scores.items():
        for seed, iou in enumerate(ious):
            settings = {"model.encoder": encoder, "seed": seed}
            write_finished_run(tmp_path / f"{encoder}_{seed}", settings=settings, ious=[iou])
    leaderboard = read_leaderboard([tmp_path])
    assert read_labels(leaderboard) == ["resnet34", "resnet18", "mobilenet_v2"]
    assert leaderboard.tables[0].swept == ("model.encoder",)


def test_the_terminal_table_shows_what_was_swept_and_the_cost(tmp_path: Path) -> None:
    write_finished_run(tmp_path / "0", settings={"optimizer.lr": 0.01}, ious=[0.25, 0.5], num_parameters=14_330_000)
    write_finished_run(tmp_path / "1", settings={"optimizer.lr": 0.1}, ious=[0.75], seconds=240)
    assert format_leaderboard(read_leaderboard([tmp_path])) == [
        "   lr    val fire IoU  best epoch  parameters   time  peak memory",
        "1  0.1          0.750           1       1.5 M  4 min       1.0 GB",
        "2  0.01         0.500           2      14.3 M   60 s       1.0 GB",
        f"best run: {tmp_path / '1'}",
    ]


def test_a_pruned_run_is_ranked_by_what_it_reached_and_says_so(tmp_path: Path) -> None:
    write_finished_run(tmp_path / "0", settings={"optimizer.lr": 0.01}, ious=[0.5, 0.6, 0.7])
    pruned = write_finished_run(tmp_path / "1", settings={"optimizer.lr": 0.1}, ious=[0.3, 0.2])
    pruned.write_provenance({"pruned": {"epoch": 2}})
    leaderboard = read_leaderboard([tmp_path])
    assert [format_epochs(entry) for entry in leaderboard.tables[0].entries] == ["3", "1, pruned at 2"]


def test_runs_on_other_patches_or_another_fold_have_tables_of_their_own(tmp_path: Path) -> None:
    write_finished_run(tmp_path / "0", ious=[0.5])
    write_finished_run(tmp_path / "1", ious=[0.6], fingerprint="beef" * 16)
    write_finished_run(tmp_path / "2", ious=[0.7], settings={"data.fold": 1})
    leaderboard = read_leaderboard([tmp_path])
    assert [table.num_runs for table in leaderboard.tables] == [1, 1, 1]
    assert {table.title for table in leaderboard.tables} == {
        "task del, patches patches (fingerprint f00df00df00d)",
        "task del, patches patches (fingerprint beefbeefbeef)",
        "task del, patches patches (fingerprint f00df00df00d), fold 1",
    }
    assert "not comparable" in format_leaderboard(leaderboard)[0]


@pytest.mark.parametrize(
    ("status", "ious", "reason"),
    [
        ("FAILED", [0.9, 0.9], "failed after epoch 2 of 9"),
        ("KILLED", [0.9, 0.9], "stopped after epoch 2 of 9; continue with: python -m fireseg.train resume="),
    ],
)
def test_runs_that_have_not_finished_are_listed_and_not_ranked(
    status: str, ious: list[float], reason: str, tmp_path: Path
) -> None:
    write_finished_run(tmp_path / "0", ious=[0.5])
    write_finished_run(tmp_path / "1", ious=ious, status=status)
    leaderboard = read_leaderboard([tmp_path])
    assert [run.path.name for run in leaderboard.tables[0].entries[0].runs] == ["0"]
    assert format_leaderboard(leaderboard)[-1].startswith(f"  {tmp_path / '1'}: {reason}")


def test_a_damaged_run_is_listed_and_hides_no_other(tmp_path: Path) -> None:
    write_finished_run(tmp_path / "0", ious=[0.5])
    write_finished_run(tmp_path / "1").metrics.write_text("{\n{}\n")
    write_finished_run(tmp_path / "2").config.write_text("{}")
    leaderboard = read_leaderboard([tmp_path])
    assert leaderboard.tables[0].num_runs == 1
    assert [path.name for path, _ in leaderboard.unranked] == ["1", "2"]
    assert "metrics.jsonl: line 1, 2 damaged" in leaderboard.unranked[0][1]


def test_a_run_repeated_with_the_same_seed_is_counted_once(tmp_path: Path) -> None:
    for name in ("0", "1"):
        write_finished_run(tmp_path / name, ious=[0.5])
    leaderboard = read_leaderboard([tmp_path, tmp_path / "1"])
    assert len(leaderboard.tables[0].entries[0].runs) == 1
    assert [reason for _, reason in leaderboard.unranked] == [
        f"the same settings and seed as {tmp_path / '0'}, which is ranked"
    ]


def test_settings_without_effect_on_the_result_and_those_of_one_optimizer_are_no_columns(tmp_path: Path) -> None:
    write_finished_run(tmp_path / "0", settings={"data.num_workers": 0, "optimizer.betas": [0.9, 0.99]})
    sgd = {"_target_": "fireseg.engine.optimizer.sgd", "lr": 0.001, "momentum": 0.9}
    write_finished_run(tmp_path / "1", settings={"data.num_workers": 4, "optimizer": sgd})
    leaderboard = read_leaderboard([tmp_path])
    assert leaderboard.tables[0].swept == ("optimizer",)
    assert set(read_labels(leaderboard)) == {"adamw", "sgd"}


def test_half_the_batch_accumulated_twice_is_the_same_setting(tmp_path: Path) -> None:
    write_finished_run(tmp_path / "0", settings={"seed": 0, "data.batch_size": 8})
    settings = {"seed": 1, "data.batch_size": 4, "engine.accumulate": 2}
    write_finished_run(tmp_path / "1", settings=settings)
    assert len(read_leaderboard([tmp_path]).tables[0].entries) == 1


def test_an_evaluation_gives_the_mean_over_fires_with_its_interval(tmp_path: Path) -> None:
    ious = {"a": 0.5, "b": 0.6, "c": 0.7, "d": 0.8, "e": 0.9, "unburned": None}
    for seed in (0, 1):
        shifted = {name: None if iou is None else iou + (0.1 if seed else -0.1) for name, iou in ious.items()}
        write_finished_run(tmp_path / str(seed), settings={"seed": seed}, fires={"test": shifted})
    (entry,) = read_leaderboard([tmp_path]).tables[0].entries
    interval = entry.fire_interval("test")
    assert interval is not None
    # Mean over seeds per fire 0.5 to 0.9; standard error 0.0707, t(4) = 2.776, logit(0.7) = 0.847:
    # 0.847 +- 2.776 * 0.0707 / 0.21 = -0.087 and 1.782.
    assert (interval.mean, interval.num) == (pytest.approx(0.7), 5)
    assert (interval.low, interval.high) == (pytest.approx(0.478, abs=1e-3), pytest.approx(0.856, abs=1e-3))
    assert entry.fire_interval("val") is None


def test_an_evaluation_of_another_epoch_is_not_used(tmp_path: Path) -> None:
    folder = write_finished_run(tmp_path / "0", ious=[0.4, 0.6])
    write_evaluation(folder, "test", {"a": 0.5}, epoch=1)
    (run,) = read_leaderboard([tmp_path]).tables[0].entries[0].runs
    assert not run.evaluations
    assert run.stale["test"].endswith("not of the best model of the run; evaluate again")


def test_without_burned_pixels_in_val_the_lowest_loss_is_first(tmp_path: Path) -> None:
    write_finished_run(tmp_path / "0", settings={"optimizer.lr": 0.1}, ious=[None])
    write_finished_run(tmp_path / "1", settings={"optimizer.lr": 0.2}, ious=[None, None])
    for name, loss in (("0", 0.5), ("1", 0.25)):
        row = {"epoch": 1, "val/fire_iou": None, "val/loss": loss, "seconds": 1, "best": True}
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    leaderboard = read_leaderboard([tmp_path])
    assert read_labels(leaderboard) == ["lr 0.2", "lr 0.1"]
    assert math.isnan(leaderboard.tables[0].entries[0].val_fire_iou)


def test_an_earlier_run_is_ranked_with_the_parameters_of_its_checkpoint(tmp_path: Path) -> None:
    shutil.copytree(EARLIER, tmp_path / "run")
    ((entry,),) = (table.entries for table in read_leaderboard([tmp_path / "run"]).tables)
    assert entry.val_fire_iou == pytest.approx(0.2207, abs=1e-4)
    model = load_trained_model(EARLIER, device="cpu").model
    assert entry.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert entry.peak_memory_bytes is None


def test_folders_without_runs_are_refused_together(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FiresegError) as error:
        read_leaderboard([tmp_path / "empty", tmp_path / "emtpy"])
    assert len(error.value.faults) == 2
    assert "nor a folder of runs; runs are in outputs/ and multirun/" in error.value.faults[0]
    assert "did you mean" in error.value.faults[1]


def test_names_have_the_key_only_where_the_value_needs_it() -> None:
    values = {"model.encoder": "resnet18", "loss.gamma": "2.0", "seed": "1"}
    assert format_settings(values) == "resnet18, gamma 2.0, seed 1"
