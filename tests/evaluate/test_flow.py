"""A run judged from end to end."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from fireseg.errors import FiresegError, SettingError
from fireseg.evaluate import report as page
from fireseg.evaluate.pipeline import EvaluateOptions, evaluate
from fireseg.evaluate.summary import list_metrics
from fireseg.runs import load_trained_model
from fireseg.runs.folder import RunFolder
from tests.evaluate.trained_run import cut_tiles, make_run, read_json, train_run
from tests.prepare.builders import write_set


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("fireseg"), "propagate", True)
    caplog.set_level(logging.INFO, "fireseg")
    return caplog


@pytest.fixture(autouse=True)
def quick_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that nobody draws: its own tests do."""
    monkeypatch.setattr(page, "write_page", lambda evaluated, path: path.write_text(sorted(evaluated.looks)[0]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles, their patches packed and as files, and a run trained on the packed ones."""
    place = tmp_path_factory.mktemp("flow")
    tiles = write_set(place / "tiles", train=2, val=2, test=2)
    cut_tiles(tiles, place / "packed")
    cut_tiles(tiles, place / "files", layout="files", task="del")
    ours = train_run(place / "outputs", place / "packed", name="ours")
    for name in ("last.pt", "final_model.pt"):  # nobody asks for them, and they are copied for every test
        (ours.checkpoints / name).unlink()
    make_run(place / "outputs", place / "packed", "seed=1", name="theirs")
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed at will."""
    return shutil.copytree(made, tmp_path / "place", dirs_exist_ok=True)


def judge(place: Path, run: str = "ours", **wish: Any) -> dict[str, Any]:
    """Evaluates, and reads what was written: the newest, since other patches have a file of their own."""
    wish = {"split": "test", "data": place / "packed", **wish}
    evaluate(EvaluateOptions(run=place / "outputs" / run, **wish))
    written = (place / "outputs" / run).glob(f"evaluation_{wish['split']}*.json")
    return read_json(max(written, key=lambda path: path.stat().st_mtime_ns))


def test_the_stitched_scores_are_those_of_the_whole_tile(place: Path):
    content = judge(place)

    rows = {row["name"]: row for row in content["fires"]}
    images = sorted((place / "tiles/test").rglob("*_S2L2A.tif"))
    assert set(rows) == {path.name.removesuffix("_S2L2A.tif") for path in images}
    for path in images:
        row = rows[path.name.removesuffix("_S2L2A.tif")]
        with rasterio.open(path) as raster:
            green, broad, near, short = raster.read([3, 8, 9, 12])
        with rasterio.open(str(path).replace("S2L2A", "DEL")) as raster:
            truth = raster.read(1) == 1
        burned = ((near - short) / (near + short) < -0.1) & ((green - broad) / (green + broad) <= 0)
        assert row["index_fixed_iou"] == pytest.approx((burned & truth).sum() / (burned | truth).sum(), abs=2e-3)
        assert (row["labelled_pixels"], row["burned_share"]) == (truth.size, truth.mean())


def test_every_pixel_of_val_counts_once_and_the_argmax_is_what_training_reported(place: Path):
    content = judge(place, split="val")

    masks = np.load(place / "packed/val/masks_del.npy")
    assert content["data"]["labelled_pixels"] == (masks != 255).sum() == np.sum(content["confusion"])
    argmax = content["methods"][1]
    reported = RunFolder(place / "outputs/ours").read_metrics()[0]
    for measure in ("fire_iou", "fire_precision", "mean_iou", "iou_background"):
        assert argmax["pixels"][measure] == pytest.approx(reported[f"val/{measure}"], abs=1e-12)
    assert argmax["detection"]["tp"] == reported["val/tp"]
    assert content["decision"]["is_optimistic"]


def test_pixels_of_train_that_windows_share_count_once(place: Path):
    masks = sorted((place / "tiles/train").rglob("*_DEL.tif"))
    sizes = []
    for path in masks:
        with rasterio.open(path) as raster:
            sizes.append(raster.height * raster.width)

    assert judge(place, split="train")["data"]["labelled_pixels"] == sum(sizes)


def test_two_layouts_give_the_same_evaluation(place: Path):
    packed = judge(place)
    files = judge(place, data=place / "files")

    assert files["data"]["fingerprint"] == packed["data"]["fingerprint"]
    packed["data"]["root"] = files["data"]["root"] = ""
    assert files == packed


def test_two_calls_give_the_same_bytes(place: Path):
    folder = place / "outputs/ours"
    files = [folder / "evaluation_test.json", folder / "calibration.json"]
    judge(place)
    before = [path.read_bytes() for path in files]
    judge(place, workers=0)

    assert [path.read_bytes() for path in files] == before


def test_the_threshold_is_that_of_val_whatever_test_holds(place: Path):
    decision = judge(place)["decision"]
    assert decision["chosen_on"] == "val"
    (place / "outputs/ours/calibration.json").unlink()
    masks = np.load(place / "packed/test/masks_del.npy")
    np.save(place / "packed/test/masks_del.npy", np.where(masks == 255, masks, 1 - np.minimum(masks, 1)))

    flipped = judge(place)

    assert flipped["decision"] == decision
    assert flipped["methods"][2]["note"].startswith("burned where NBR is below")
    assert not flipped["data"]["is_same"]


def test_what_was_chosen_is_stored_and_used_again(place: Path, monkeypatch: pytest.MonkeyPatch):
    judge(place)
    stored = read_json(place / "outputs/ours/calibration.json")
    assert stored["checkpoint_sha256"] == read_json(place / "outputs/ours/evaluation_test.json")["run"]["sha256"]

    (place / "outputs/ours/calibration.json").write_text(
        (place / "outputs/ours/calibration.json").read_text().replace(str(stored["threshold"]), "0.125")
    )

    assert judge(place)["decision"]["threshold"] == 0.125


def test_other_patches_than_in_training_are_said_and_leave_the_calibration(place: Path, told: pytest.LogCaptureFixture):
    judge(place)
    stored = (place / "outputs/ours/calibration.json").read_text()
    masks = np.load(place / "packed/val/masks_del.npy")
    masks[0][masks[0] == 1] = 0
    np.save(place / "packed/val/masks_del.npy", masks)

    content = judge(place)

    assert not content["data"]["is_same"]
    assert content["data"]["fingerprint"] != content["data"]["trained_on"]
    assert "holds other patches than ours was trained on" in told.text
    assert (place / "outputs/ours/calibration.json").read_text() == stored
    assert "not kept for maps" in told.text


def test_an_evaluation_on_other_patches_does_not_take_the_place_of_the_runs_own(place: Path):
    judge(place)
    run = place / "outputs/ours"
    own = (run / "evaluation_test.json").read_bytes()
    masks = np.load(place / "packed/val/masks_del.npy")
    masks[0][masks[0] == 1] = 0
    np.save(place / "packed/val/masks_del.npy", masks)

    content = judge(place)

    assert (run / "evaluation_test.json").read_bytes() == own
    other = run / f"evaluation_test_{content['data']['fingerprint'][:8]}.json"
    assert read_json(other)["data"]["is_same"] is False
    assert next(iter(list_metrics(content))).startswith(f"evaluation_test_{content['data']['fingerprint'][:8]}/")


def test_what_is_chosen_on_other_patches_first_is_not_stored(place: Path):
    masks = np.load(place / "packed/val/masks_del.npy")
    masks[0][masks[0] == 1] = 0
    np.save(place / "packed/val/masks_del.npy", masks)

    judge(place)

    assert not (place / "outputs/ours/calibration.json").exists()


def test_hectares_are_those_of_the_tile(place: Path):
    content = judge(place)

    assert content["data"]["hectares_known"]
    for row in content["fires"]:
        # Pixels of 0.0001 degrees at 40 degrees north: 8.54 m by 11.10 m.
        pixels = row["burned_share"] * row["labelled_pixels"]
        assert row["true_ha"] == pytest.approx(pixels * 8.54 * 11.10 / 1e4, rel=2e-3)


def test_without_fire_in_val_nothing_is_chosen_and_nothing_stored(place: Path):
    masks = np.load(place / "packed/val/masks_del.npy")
    np.save(place / "packed/val/masks_del.npy", np.where(masks == 255, masks, 0))

    content = judge(place)

    assert content["decision"] == {
        "temperature": 1.0,
        "threshold": 0.5,
        "rule": {"min_pixels": 1, "min_probability": 0.5},
        "chosen_on": None,
        "is_optimistic": False,
    }
    assert content["methods"][0]["pixels"] == content["methods"][1]["pixels"]
    assert not (place / "outputs/ours/calibration.json").exists()


def test_another_run_is_evaluated_first_and_paired_over_fires(place: Path):
    content = judge(place, against=place / "outputs/theirs")

    theirs = read_json(place / "outputs/theirs/evaluation_test.json")
    against = content["against"]
    assert (against["name"], against["sha256"]) == ("theirs", theirs["run"]["sha256"])
    assert [fire["theirs"] for fire in against["fires"]] == [row["iou"] for row in theirs["fires"]]
    assert against["wins"] + against["losses"] + against["ties"] == 2
    assert theirs["against"] is None


def test_an_evaluation_of_the_other_run_that_is_there_is_used(place: Path):
    path = place / "outputs/theirs/evaluation_test.json"
    judge(place, "theirs")
    iou = next(row["iou"] for row in read_json(path)["fires"])
    path.write_text(path.read_text().replace(f'"iou": {iou}', '"iou": 0.125'))

    against = judge(place, against=place / "outputs/theirs")["against"]

    assert against["fires"][0]["theirs"] == 0.125


def test_one_of_another_checkpoint_is_not(place: Path):
    judge(place, "theirs")
    path = place / "outputs/theirs/checkpoints/best_model.pt"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "val/fire_iou": 0.0}, path)

    against = judge(place, against=place / "outputs/theirs")["against"]

    assert against["sha256"] == load_trained_model(path, device="cpu").sha256


def test_a_run_trained_on_other_patches_is_no_opponent(place: Path):
    tiles = write_set(place / "other_tiles", train=2, val=1, test=1, height=64)
    make_run(place / "outputs", cut_tiles(tiles, place / "other"), name="other")

    with pytest.raises(FiresegError, match=r"--against other: not comparable with ours(?s:.*)fingerprint"):
        judge(place, against=place / "outputs/other")
    assert not (place / "outputs/ours/evaluation_test.json").exists()


def test_a_run_is_no_opponent_of_itself(place: Path):
    with pytest.raises(SettingError, match="the same checkpoint"):
        judge(place, against=place / "outputs/ours")


def test_a_checkpoint_outside_of_any_run_has_nowhere_to_write(place: Path):
    lone = place / "lone.pt"
    shutil.copyfile(place / "outputs/ours/checkpoints/best_model.pt", lone)

    with pytest.raises(SettingError, match=r"lone\.pt: a checkpoint on its own"):
        evaluate(EvaluateOptions(run=lone))


def test_others_patches_without_a_table_are_judged_by_their_names(make_patches: Callable[..., Path], tmp_path: Path):
    root = make_patches(train=4, val=2, test=3)
    folder = make_run(tmp_path / "outputs", root)

    evaluated = evaluate(EvaluateOptions(run=folder.path))

    content = read_json(folder.path / "evaluation_test.json")
    assert [row["name"] for row in content["fires"]] == ["EMSR100_AOI01_01", "EMSR101_AOI01_01", "EMSR102_AOI01_01"]
    assert not content["data"]["hectares_known"]
    assert all(row["true_ha"] is None for row in content["fires"])
    assert set(evaluated.looks) <= {row["name"] for row in content["fires"]}
    assert content["methods"][0]["area"]["true_ha"] is None


def test_grades_are_judged_too(place: Path):
    make_run(place / "outputs", place / "packed", "task=gra", name="gra")

    content = judge(place, "gra")

    assert np.array(content["confusion"]).shape == (5, 5)
    assert {"severity_iou", "grade_mae", "iou_destroyed"} <= set(content["methods"][0]["pixels"])
    assert "severity_iou" not in content["methods"][2]["pixels"]
    with pytest.raises(FiresegError, match=r"task: gra .*, theirs del"):
        judge(place, "gra", against=place / "outputs/ours")


def test_bands_that_the_index_lacks_are_named(place: Path):
    make_run(place / "outputs", place / "packed", "data.bands=[B02,B03,B04]", name="rgb")

    content = judge(place, "rgb")

    tuned, fixed = content["methods"][2:]
    assert (tuned["is_there"], fixed["is_there"]) == (False, False)
    assert "B12" in tuned["note"]
    assert tuned["pixels"] is None
    assert content["gain"] == {"pooled": None, "per_fire": None}
    assert content["fires"][0]["index_tuned_iou"] is None
