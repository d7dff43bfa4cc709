"""Tests of evaluating several runs as one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fireseg.errors import FiresegError
from fireseg.evaluate.options import EvaluateOptions
from fireseg.evaluate.pipeline import evaluate
from fireseg.runs import load_trained_model
from tests.evaluate.builders import cut_tiles, make_run, read_json
from tests.prepare.builders import write_set

pytestmark = pytest.mark.usefixtures("no_figures")


def evaluate_runs(runs: str, **options: Any) -> None:
    evaluate(EvaluateOptions(run=Path(runs), split="test", off_centre="never", **options))


def list_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_several_runs_are_evaluated_as_one_into_a_folder_of_their_own(
    workspace: Path, log_text: pytest.LogCaptureFixture
) -> None:
    ours, theirs = workspace / "outputs/ours", workspace / "outputs/theirs"
    before = list_files(ours), list_files(theirs)

    evaluate_runs(f"{ours},{theirs}", data=workspace / "packed", against=ours)

    trained = load_trained_model(f"{ours},{theirs}", device="cpu", build=False)
    assert trained.folder is not None
    folder = trained.folder.path
    assert list_files(folder) == {"calibration.json", "evaluation_test.html", "evaluation_test.json"}
    results = read_json(folder / "evaluation_test.json")
    assert (results["run"]["name"], results["run"]["sha256"]) == (folder.name, trained.sha256)
    assert [member["name"] for member in results["run"]["members"]] == ["ours", "theirs"]
    assert (results["decision"]["chosen_on"], results["decision"]["origin"]) == ("val", "run")
    assert results["data"]["is_same"]
    assert results["against"]["name"] == "ours"
    assert trained.calibration is not None
    assert results["decision"]["temperature"] == trained.calibration.temperature
    page = (folder / "evaluation_test.html").read_text()
    assert "theirs, best_model.pt, epoch 0, SHA-256" in page
    assert f"{folder.name}, mean of ours, theirs, on test" in log_text.text
    # The other run was evaluated for the comparison.
    assert list_files(ours) - before[0] == {"calibration.json", "evaluation_test.html", "evaluation_test.json"}
    assert list_files(theirs) == before[1]


def test_runs_that_learnt_from_the_fires_of_one_another_are_refused(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=4, val=0, test=0)
    patches = cut_tiles(tiles, tmp_path / "patches", "--folds", "3")
    runs = [make_run(tmp_path, patches, f"data.fold={fold}", name=f"fold_{fold}").path for fold in (0, 1)]
    same = [make_run(tmp_path, patches, "data.fold=0", f"seed={seed}", name=f"seed_{seed}").path for seed in (1, 2)]

    with pytest.raises(
        FiresegError, match=r"trained on different patches or folds, fold_0 \(.*fold 1\).*--data PATCHES"
    ):
        evaluate_runs(f"{runs[0]},{runs[1]}", data=patches)

    evaluate_runs(f"{same[0]},{same[1]}", data=patches)
