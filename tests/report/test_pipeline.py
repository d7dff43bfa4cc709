"""The files of a report: page, table and CSV."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
import torch

from fireseg.report.cli import main
from fireseg.runs.patches import open_data_module
from fireseg.task import Task
from tests.runs.builders import SELF_TRAINING, make_checkpoint, make_settings, write_finished_run, write_run

EARLIER = Path(__file__).parents[1] / "runs/run_of_0_1_0"

FIRES = {"a": 0.8, "b": 0.7, "c": 0.9, "d": 0.6, "e": 0.75}


def read_page(path: Path) -> str:
    """Reads the visible text of a page, with single spaces."""
    text = re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]+>", " ", path.read_text(), flags=re.DOTALL)
    return unescape(" ".join(text.split()))


def write_sweep(folder: Path) -> Path:
    """Writes three encoders with two seeds: 0.8, 0.7 and 0.6 on average; the last one is not evaluated."""
    for number, encoder in enumerate(("resnet18", "resnet34", "mobilenet_v2")):
        for seed in (0, 1):
            ious = {name: iou - 0.1 * number for name, iou in FIRES.items()}
            write_finished_run(
                folder / f"{number}_{encoder}_{seed}",
                settings={"model.encoder": encoder, "seed": seed},
                ious=[0.3, 0.8 - 0.1 * number + 0.02 * (seed - 0.5)],
                fires={} if encoder == "mobilenet_v2" else {"test": ious},
            )
    return folder


def test_a_sweep_gets_a_page_a_table_and_a_row_for_each_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = write_sweep(tmp_path / "sweep")
    write_finished_run(sweep / "6_failed", settings={"seed": 7}, status="FAILED")
    assert main([str(sweep)]) == 0
    page = read_page(sweep / "leaderboard.html")
    # Standard deviation of +- 0.01: 0.0141.
    assert "Best: resnet18, fire IoU 0.800 ± 0.014 (n = 2) on val" in page
    assert "On test, the second entry (resnet34) is worse: IoU difference per fire -0.100 [-0.100, -0.100]" in page
    command = f"python -m fireseg.evaluate {sweep / '2_mobilenet_v2_0'} --split test"
    assert command in page
    assert command in capsys.readouterr().out
    assert "failed after epoch 1 of 9" in page
    with (sweep / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["encoder"], row["seed"]) for row in rows[:3]] == [
        ("1", "resnet18", "0"),
        ("1", "resnet18", "1"),
        ("2", "resnet34", "0"),
    ]
    assert float(rows[2]["test_iou_over_fires"]) == pytest.approx(0.65)
    assert (rows[6]["rank"], rows[6]["not_ranked"][:12]) == ("", "failed after")
    table = (sweep / "leaderboard.md").read_text()
    assert "| 1 | resnet18 | 0.800 ± 0.014 (n = 2) | 0.750 \\[" in table


def test_self_trained_runs_are_listed_with_their_teacher(tmp_path: Path) -> None:
    write_finished_run(tmp_path / "outputs/a")
    write_finished_run(tmp_path / "outputs/b").write_provenance({"self_training": SELF_TRAINING})
    assert main([str(tmp_path / "outputs/a"), str(tmp_path / "outputs/b"), "--out", str(tmp_path / "report")]) == 0
    page = read_page(tmp_path / "report/leaderboard.html")
    assert page.count("unlabelled patches (3 left out) labelled by outputs/teacher (sha256 cafecafecafe)") == 1
    assert "teacher cafecafe" in (tmp_path / "report/leaderboard.md").read_text()  # not the same as the other run


def test_runs_on_other_patches_are_in_a_table_of_their_own_and_none_is_called_the_best(tmp_path: Path) -> None:
    write_finished_run(tmp_path / "outputs/a", ious=[0.5])
    write_finished_run(tmp_path / "outputs/b", ious=[0.6], fingerprint="beef" * 16)
    assert main([str(tmp_path / "outputs/a"), str(tmp_path / "outputs/b"), "--out", str(tmp_path / "new/report")]) == 0
    page = read_page(tmp_path / "new/report/leaderboard.html")
    assert "Leaderboard of 2 data sets, which are not comparable" in page
    assert "Best: " not in page
    assert (tmp_path / "new/report/leaderboard.md").read_text().count("## task del") == 2


def test_a_run_of_an_earlier_version_has_a_page(tmp_path: Path) -> None:
    shutil.copytree(EARLIER, tmp_path / "outputs/run")
    assert main([str(tmp_path / "outputs/run")]) == 0
    page = read_page(tmp_path / "outputs/leaderboard.html")
    assert "Best: unet resnet18, fire IoU 0.221 on val" in page
    assert "14.3 M" in page
    assert "Left out: data.root: " in page


def test_help_needs_neither_torch_nor_mlflow() -> None:
    program = "import sys, fireseg.report.cli as c\ntry: c.main(['--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "leaderboard.html" in done.stdout
    assert not {"torch", "mlflow", "sklearn", "matplotlib"} & set(done.stdout.split())


def test_a_folder_without_runs_is_one_line_with_the_cure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"fireseg: {tmp_path}: ")
    assert error.endswith("runs are in outputs/ and multirun/\n")
    assert not list(tmp_path.iterdir())


def test_the_best_models_predict_the_same_patches(tmp_path: Path, make_patches: Callable[..., Path]) -> None:
    root = make_patches(train=2, val=4)
    for seed, encoder in enumerate(("tu-test_efficientnet", "tu-test_resnet")):
        settings = make_settings(f"data.root={root}", f"model.encoder={encoder}")
        task = Task(name="del", num_classes=2, class_names=("background", "fire"))
        fingerprint = open_data_module(settings, root, task=task, required="val").fingerprint
        content = {**make_checkpoint(settings, seed=seed, epoch=1), "fingerprint": fingerprint}
        folder = write_run(tmp_path / "sweep" / encoder, content=content)
        torch.save(content, folder.checkpoints / "last.pt")
        folder.write_provenance(
            {
                "data": {"root": str(root), "fingerprint": fingerprint, "class_counts": [90, 10]},
                "tracked": {"status": "FINISHED"},
            }
        )
        row = {"epoch": 1, "val/fire_iou": 0.5 - 0.1 * seed, "val/loss": 0.5, "seconds": 1.0, "best": True}
        folder.append_metrics(row)
    assert main([str(tmp_path / "sweep")]) == 0
    page = (tmp_path / "sweep/leaderboard.html").read_text()
    alts = re.findall(r'alt="Errors of (\S+) on patch (\S+), IoU', page)
    assert len(alts) == 6
    patches = {encoder: [name for one, name in alts if one == encoder] for encoder, _ in alts}
    assert patches["tu-test_efficientnet"] == patches["tu-test_resnet"]
    assert len(set(patches["tu-test_resnet"])) == 3
