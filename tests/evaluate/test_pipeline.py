"""Tests of evaluating a run from end to end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

import fireseg
from fireseg.errors import FiresegError, SettingError
from fireseg.evaluate.inference import predict_tile
from fireseg.evaluate.options import EvaluateOptions
from fireseg.evaluate.patches import open_patches
from fireseg.evaluate.pipeline import calibrate, evaluate
from fireseg.evaluate.scores import MODEL, decide_fire
from fireseg.evaluate.summary import list_metrics
from fireseg.runs import load_trained_model
from fireseg.runs.folder import RunFolder
from tests.evaluate.builders import cut_tiles, make_run, read_json
from tests.prepare.builders import write_set
from tests.runs.builders import SELF_TRAINING

pytestmark = pytest.mark.usefixtures("no_figures")


FORMER_KEYS = (
    *("temperature", "threshold", "rule_min_pixels", "rule_min_odds"),
    *("checkpoint_sha256", "fingerprint"),
)


def evaluate_run(workspace: Path, run: str = "ours", **options: Any) -> dict[str, Any]:
    """Evaluates a run and reads the newest results; other patches have a file of their own."""
    options = {"split": "test", "data": workspace / "packed", "no_track": True, **options}
    evaluate(EvaluateOptions(run=workspace / "outputs" / run, **options))
    written = (workspace / "outputs" / run).glob(f"evaluation_{options['split']}*.json")
    return read_json(max(written, key=lambda path: path.stat().st_mtime_ns))


def change_val(workspace: Path) -> None:
    """Changes labels of val, and thereby the fingerprint."""
    masks = np.load(workspace / "packed/val/masks_del.npy")
    masks[0][masks[0] == 1] = 0
    np.save(workspace / "packed/val/masks_del.npy", masks)


def test_scores_of_the_mosaic_are_those_of_the_tile(trained: Path, workspace: Path):
    results = evaluate_run(workspace)

    rows = {row["name"]: row for row in results["fires"]}
    images = sorted((trained / "tiles/test").rglob("*_S2L2A.tif"))
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


def test_leaks_of_unlabelled_tiles_are_those_of_the_patches_of_the_run_alone(workspace: Path):
    best = workspace / "outputs/ours/checkpoints/best_model.pt"
    content = torch.load(best, weights_only=True)
    best.unlink()  # a link to that of other tests
    torch.save({**content, "self_training": SELF_TRAINING}, best)

    results = evaluate_run(workspace)
    assert results["run"]["self_training"] == SELF_TRAINING
    assert results["data"]["leaks"] == SELF_TRAINING["leaks"]

    change_val(workspace)
    results = evaluate_run(workspace)
    assert (results["data"]["is_same"], results["data"]["leaks"]) == (False, [])


def test_each_pixel_of_val_counts_once(workspace: Path):
    results = evaluate_run(workspace, split="val")

    masks = np.load(workspace / "packed/val/masks_del.npy")
    assert results["data"]["labelled_pixels"] == (masks != 255).sum() == np.sum(results["confusion"])
    assert results["decision"]["is_optimistic"]
    assert results["inference"] == {"windows": 544, "overlap": 64, "input": "patches"}


@pytest.mark.parametrize("size", [{}, {"height": 760, "width": 70}], ids=["one window", "two windows"])
def test_evaluate_scores_the_map_that_predict_draws(workspace: Path, tmp_path: Path, size: dict[str, int]):
    tiles = write_set(tmp_path / "tiles", train=1, val=1, test=1, **size)
    patches = cut_tiles(tiles, tmp_path / "patches")
    (image,) = (tiles / "test").rglob("*_S2L2A.tif")
    run = workspace / "outputs/ours"
    evaluate_run(workspace)  # chooses temperature and threshold
    scene = fireseg.load(run, runtime="torch").predict_scene(image, tmp_path / "maps", fire_dtype="float32")
    trained = load_trained_model(run, device="cpu")
    opened = open_patches(trained.settings, patches, task=trained.task, required="test", num_workers=0)

    with opened.tiles("test", "test") as stitched:
        (mosaic,) = (predict_tile(trained, tile) for tile in stitched)
    point = calibrate(trained, RunFolder(run), opened).point
    classes = decide_fire(mosaic, point, None)[MODEL]

    with rasterio.open(scene.files.classes) as raster:
        np.testing.assert_array_equal(raster.read(1), classes)
    with rasterio.open(scene.files.fire) as raster:
        fire = 1 / (1 + np.exp(-mosaic.layers["log_odds"] / np.float32(point.temperature)))
        np.testing.assert_allclose(raster.read(1), fire, rtol=1e-6)
    assert len(np.unique(mosaic.layers["log_odds"])) > 1000
    assert point.temperature != 1


def test_the_off_centre_check_is_made_unless_there_are_many_tiles_or_it_is_left_out(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
):
    checked = evaluate_run(workspace)["off_centre"]
    assert [fire["name"] for fire in checked["fires"]] == [fire["name"] for fire in evaluate_run(workspace)["fires"]]

    monkeypatch.setattr("fireseg.evaluate.pipeline.MAX_FIRES", 1)
    assert evaluate_run(workspace)["off_centre"] is None
    assert evaluate_run(workspace, off_centre="always")["off_centre"] == checked
    monkeypatch.undo()
    assert evaluate_run(workspace, off_centre="never")["off_centre"] is None


def test_the_tile_itself_is_scored_where_windows_were_left_out(workspace: Path, tmp_path: Path):
    cloud = np.zeros((96, 96), np.uint8)
    cloud[:32, :64] = 1  # two of nine windows are left out, one of them at the corner
    tiles = write_set(tmp_path / "tiles", train=1, val=1, test=1, height=96, width=96, cloud=cloud)
    patches = cut_tiles(tiles, tmp_path / "patches")
    run = workspace / "outputs/ours"
    (image,) = (tiles / "test").rglob("*_S2L2A.tif")
    evaluate_run(workspace)
    scene = fireseg.load(run, runtime="torch").predict_scene(image, tmp_path / "maps", clouds="keep")
    trained = load_trained_model(run, device="cpu")
    with rasterio.open(scene.files.classes) as raster:
        classes = raster.read(1)

    settings: dict[str, Any] = {"task": trained.task, "required": "test", "num_workers": 0}
    maps = {}
    for folder in (None, tiles):
        opened = open_patches(trained.settings, patches, tiles_folder=folder, **settings)
        with opened.tiles("test", "test") as found:
            ((tile, mosaic),) = ((tile, predict_tile(trained, tile)) for tile in found)
        maps[opened.input] = decide_fire(mosaic, calibrate(trained, RunFolder(run), opened).point, None)[MODEL]
        assert (tile.truth != 255).sum() == 96 * 96 - 32 * 64
        assert tile.raster.unknown.any() == (folder is None)
    np.testing.assert_array_equal(maps["tile"], classes)
    assert (maps["patches"] != classes)[tile.truth != 255].any()

    assert evaluate_run(workspace, data=patches, tiles=tiles)["inference"]["input"] == "tile"


def test_tiles_with_other_pixels_or_without_the_image_are_refused(trained: Path, workspace: Path, tmp_path: Path):
    shutil.copytree(trained / "tiles", tmp_path / "tiles")
    image, _ = sorted((tmp_path / "tiles/test").rglob("*_S2L2A.tif"))
    with rasterio.open(image, "r+") as raster:
        raster.write(raster.read(8) * np.float32(1.5), 8)
    with pytest.raises(FiresegError, match=r"_S2L2A\.tif: other pixels than those of the patches; give the folder"):
        evaluate_run(workspace, tiles=tmp_path / "tiles")
    image.unlink()
    with pytest.raises(FiresegError, match=r"_S2L2A\.tif: no such file.*give the folder that was given to prepare"):
        evaluate_run(workspace, tiles=tmp_path / "tiles")
    with pytest.raises(SettingError, match=r"--tiles .*: no such folder"):
        evaluate_run(workspace, tiles=tmp_path / "nowhere")


def test_scores_of_tiles_and_of_stitched_patches_are_not_compared(trained: Path, workspace: Path):
    evaluate_run(workspace, "theirs")
    path = workspace / "outputs/theirs/evaluation_test.json"

    results = evaluate_run(workspace, against=workspace / "outputs/theirs", tiles=trained / "tiles")

    assert results["against"] is not None
    assert read_json(path)["inference"]["input"] == "tile"  # evaluated again


def test_pixels_shared_by_train_patches_count_once(trained: Path, workspace: Path):
    masks = sorted((trained / "tiles/train").rglob("*_DEL.tif"))
    sizes = []
    for path in masks:
        with rasterio.open(path) as raster:
            sizes.append(raster.height * raster.width)

    assert evaluate_run(workspace, split="train")["data"]["labelled_pixels"] == sum(sizes)


def test_two_layouts_give_the_same_evaluation(trained: Path, workspace: Path):
    packed = evaluate_run(workspace)
    files = evaluate_run(workspace, data=trained / "files")

    assert files["data"]["fingerprint"] == packed["data"]["fingerprint"]
    packed["data"]["root"] = files["data"]["root"] = ""
    assert files == packed


def test_two_calls_give_the_same_bytes(workspace: Path):
    folder = workspace / "outputs/ours"
    files = [folder / "evaluation_test.json", folder / "calibration.json"]
    evaluate_run(workspace)
    before = [path.read_bytes() for path in files]
    evaluate_run(workspace, workers=0)

    assert [path.read_bytes() for path in files] == before


def test_the_threshold_does_not_depend_on_test(workspace: Path):
    decision = evaluate_run(workspace)["decision"]
    assert decision["chosen_on"] == "val"
    (workspace / "outputs/ours/calibration.json").unlink()
    masks = np.load(workspace / "packed/test/masks_del.npy")
    np.save(workspace / "packed/test/masks_del.npy", np.where(masks == 255, masks, 1 - np.minimum(masks, 1)))

    flipped = evaluate_run(workspace)

    assert flipped["decision"] == decision
    assert flipped["methods"][2]["note"].startswith("burned where NBR is below")
    assert not flipped["data"]["is_same"]


def test_the_calibration_is_stored_and_reused(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    evaluate_run(workspace)
    stored = read_json(workspace / "outputs/ours/calibration.json")
    assert stored["checkpoint_sha256"] == read_json(workspace / "outputs/ours/evaluation_test.json")["run"]["sha256"]

    (workspace / "outputs/ours/calibration.json").write_text(
        (workspace / "outputs/ours/calibration.json").read_text().replace(str(stored["threshold"]), "0.125")
    )

    assert evaluate_run(workspace)["decision"]["threshold"] == 0.125


def test_other_patches_give_a_warning_and_keep_the_calibration(workspace: Path, log_text: pytest.LogCaptureFixture):
    own = evaluate_run(workspace)
    stored = (workspace / "outputs/ours/calibration.json").read_text()
    change_val(workspace)

    results = evaluate_run(workspace)

    assert not results["data"]["is_same"]
    assert results["data"]["fingerprint"] != results["data"]["trained_on"]
    assert "other patches than ours was trained on" in log_text.text
    assert (workspace / "outputs/ours/calibration.json").read_text() == stored
    assert results["decision"] == own["decision"]


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "chosen on the run's own patches"])
def test_only_the_split_asked_for_is_needed_and_the_rest_is_from_the_run(workspace: Path, is_stored: bool):
    own = evaluate_run(workspace)
    calibration = workspace / "outputs/ours/calibration.json"
    stored = calibration.read_bytes()
    if not is_stored:
        calibration.unlink()
    for split in ("train", "val"):
        shutil.rmtree(workspace / "packed" / split)

    results = evaluate_run(workspace)

    assert calibration.read_bytes() == stored
    assert results["decision"] == own["decision"]
    assert results["decision"]["origin"] == "run"
    assert results["methods"] == own["methods"]
    assert (results["data"]["is_same"], results["fires"]) == (False, own["fires"])


def test_a_missing_split_is_told_with_those_that_are_there(workspace: Path):
    shutil.rmtree(workspace / "packed/test")

    with pytest.raises(SettingError, match=r"--split test: .* available: train val; try --split val"):
        evaluate_run(workspace)


def test_without_val_and_calibration_the_threshold_is_a_half_and_the_index_is_not_tuned(workspace: Path):
    make_run(workspace / "outputs", workspace / "packed", name="own")
    for split in ("train", "val"):
        shutil.rmtree(workspace / "packed" / split)

    results = evaluate_run(workspace, "own")

    assert (results["decision"]["threshold"], results["decision"]["chosen_on"]) == (0.5, None)
    assert results["methods"][2]["note"] == "there is no train split to tune a threshold on"


def test_a_calibration_of_an_earlier_version_is_renewed_on_the_patches_of_the_run(workspace: Path):
    path = workspace / "outputs/ours/calibration.json"
    evaluate_run(workspace)
    new = path.read_bytes()
    former = {key: value for key, value in read_json(path).items() if key in FORMER_KEYS}
    path.write_text(json.dumps({**former, "threshold": 0.125}))

    assert evaluate_run(workspace)["decision"]["threshold"] == 0.5
    assert path.read_bytes() == new


def test_a_calibration_of_an_earlier_version_is_used_where_the_patches_are_gone(workspace: Path):
    make_run(workspace / "outputs", workspace / "packed", name="own")
    path = workspace / "outputs/own/calibration.json"
    evaluate_run(workspace, "own")
    former = {key: value for key, value in read_json(path).items() if key in FORMER_KEYS}
    path.write_text(json.dumps({**former, "threshold": 0.125}))
    shutil.rmtree(workspace / "packed/val")

    decision = evaluate_run(workspace, "own")["decision"]

    assert (decision["threshold"], decision["origin"], decision["gain"]) == (0.125, "run", None)
    assert "earlier version" in decision["threshold_reason"]


def test_an_evaluation_on_other_patches_has_a_file_name_with_their_fingerprint(workspace: Path):
    evaluate_run(workspace)
    run = workspace / "outputs/ours"
    own = (run / "evaluation_test.json").read_bytes()
    change_val(workspace)

    results = evaluate_run(workspace)

    assert (run / "evaluation_test.json").read_bytes() == own
    other = run / f"evaluation_test_{results['data']['fingerprint'][:8]}.json"
    assert read_json(other)["data"]["is_same"] is False
    assert next(iter(list_metrics(results))).startswith(
        f"z_details/evaluation_test_{results['data']['fingerprint'][:8]}/"
    )


def test_a_threshold_chosen_on_other_patches_is_not_stored(workspace: Path, log_text: pytest.LogCaptureFixture):
    make_run(workspace / "outputs", workspace / "packed", name="own")
    change_val(workspace)

    assert evaluate_run(workspace, "own")["decision"]["origin"] == "given"

    assert not (workspace / "outputs/own/calibration.json").exists()
    assert "chosen on other patches" in log_text.text


def test_areas_are_those_of_the_tile(workspace: Path):
    results = evaluate_run(workspace)

    assert results["data"]["hectares_known"]
    for row in results["fires"]:
        # Pixels of 0.0001 degrees at 40 degrees north: 8.54 m by 11.10 m.
        pixels = row["burned_share"] * row["labelled_pixels"]
        assert row["true_ha"] == pytest.approx(pixels * 8.54 * 11.10 / 1e4, rel=2e-3)


def test_without_burned_pixels_in_val_defaults_are_used_and_not_stored(workspace: Path):
    masks = np.load(workspace / "packed/val/masks_del.npy")
    np.save(workspace / "packed/val/masks_del.npy", np.where(masks == 255, masks, 0))
    make_run(workspace / "outputs", workspace / "packed", name="own")

    results = evaluate_run(workspace, "own")

    assert results["decision"] == {
        "temperature": 1.0,
        "threshold": 0.5,
        "rule": {"min_pixels": 1, "min_probability": 0.5},
        "chosen_on": None,
        "origin": "run",
        "is_optimistic": False,
        "best_threshold": None,
        "gain": None,
        "threshold_reason": "default, because there is no burned pixel of val to choose on",
    }
    assert results["methods"][0]["pixels"] == results["methods"][1]["pixels"]
    assert not (workspace / "outputs/own/calibration.json").exists()


def test_the_other_run_is_evaluated_first_and_paired_by_fire(workspace: Path):
    results = evaluate_run(workspace, against=workspace / "outputs/theirs")

    theirs = read_json(workspace / "outputs/theirs/evaluation_test.json")
    against = results["against"]
    assert (against["name"], against["sha256"]) == ("theirs", theirs["run"]["sha256"])
    assert [fire["theirs"] for fire in against["fires"]] == [row["iou"] for row in theirs["fires"]]
    assert against["wins"] + against["losses"] + against["ties"] == 2
    assert theirs["against"] is None


def test_an_existing_evaluation_of_the_other_run_is_reused(workspace: Path):
    path = workspace / "outputs/theirs/evaluation_test.json"
    evaluate_run(workspace, "theirs")
    iou = next(row["iou"] for row in read_json(path)["fires"])
    path.write_text(path.read_text().replace(f'"iou": {iou}', '"iou": 0.125'))

    against = evaluate_run(workspace, against=workspace / "outputs/theirs")["against"]

    assert against["fires"][0]["theirs"] == 0.125


def test_an_evaluation_of_patch_by_patch_inference_is_not_compared_but_made_again(workspace: Path):
    path = workspace / "outputs/theirs/evaluation_test.json"
    evaluate_run(workspace, "theirs")
    earlier = {**read_json(path), "format": 3}
    earlier["fires"][0]["iou"] = 0.125
    path.write_text(json.dumps(earlier))

    against = evaluate_run(workspace, against=workspace / "outputs/theirs")["against"]

    assert against["fires"][0]["theirs"] != 0.125
    assert read_json(path)["format"] == 4


def test_a_calibration_of_patch_by_patch_inference_is_renewed(workspace: Path):
    path = workspace / "outputs/ours/calibration.json"
    evaluate_run(workspace)
    new = read_json(path)
    earlier = {key: value for key, value in new.items() if key != "is_blended"}
    path.write_text(json.dumps({**earlier, "temperature": 7.5}))

    assert evaluate_run(workspace)["decision"]["temperature"] == new["temperature"]
    assert read_json(path) == new


def test_an_evaluation_of_another_checkpoint_is_not_reused(workspace: Path):
    evaluate_run(workspace, "theirs")
    path = workspace / "outputs/theirs/checkpoints/best_model.pt"
    checkpoint = torch.load(path, weights_only=True)
    path.unlink()  # a link to the checkpoint that other tests use
    torch.save({**checkpoint, "val/fire_iou": 0.0}, path)

    against = evaluate_run(workspace, against=workspace / "outputs/theirs")["against"]

    assert against["sha256"] == load_trained_model(path, device="cpu").sha256


def test_a_run_trained_on_other_patches_is_rejected(workspace: Path):
    shutil.copytree(workspace / "packed", workspace / "other")
    change_val(workspace)
    make_run(workspace / "outputs", workspace / "packed", name="other")

    with pytest.raises(FiresegError, match=r"--against other: not comparable with ours(?s:.*)fingerprint"):
        evaluate_run(workspace, data=workspace / "other", against=workspace / "outputs/other")
    assert not (workspace / "outputs/ours/evaluation_test.json").exists()


def test_comparing_a_run_with_itself_is_rejected(workspace: Path):
    with pytest.raises(SettingError, match="the same checkpoint"):
        evaluate_run(workspace, against=workspace / "outputs/ours")


def test_a_checkpoint_outside_a_run_folder_is_rejected(workspace: Path):
    lone = workspace / "lone.pt"
    shutil.copyfile(workspace / "outputs/ours/checkpoints/best_model.pt", lone)

    with pytest.raises(SettingError, match=r"lone\.pt: a checkpoint outside a run folder"):
        evaluate(EvaluateOptions(run=lone))


def test_patches_without_metadata_are_evaluated(make_patches: Callable[..., Path], tmp_path: Path):
    root = make_patches(train=4, val=2, test=3)
    folder = make_run(tmp_path / "outputs", root, name="run")

    evaluated = evaluate(EvaluateOptions(run=folder.path))

    results = read_json(folder.path / "evaluation_test.json")
    assert [row["name"] for row in results["fires"]] == ["EMSR700_AOI01_01", "EMSR701_AOI01_01", "EMSR702_AOI01_01"]
    assert not results["data"]["hectares_known"]
    assert all(row["true_ha"] is None for row in results["fires"])
    assert set(evaluated.previews) <= {row["name"] for row in results["fires"]}
    assert results["methods"][0]["area"]["true_ha"] is None


def test_severity_classes_are_evaluated(workspace: Path):
    make_run(workspace / "outputs", workspace / "packed", "task=gra", name="gra")

    results = evaluate_run(workspace, "gra")

    assert np.array(results["confusion"]).shape == (5, 5)
    assert {"severity_iou", "grade_mae", "iou_destroyed"} <= set(results["methods"][0]["pixels"])
    assert "severity_iou" not in results["methods"][2]["pixels"]
    with pytest.raises(FiresegError, match=r"task: gra .*, theirs del"):
        evaluate_run(workspace, "gra", against=workspace / "outputs/ours")


def test_bands_missing_for_the_baseline_are_named(workspace: Path):
    make_run(workspace / "outputs", workspace / "packed", "data.bands=[B02,B03,B04]", name="rgb")

    results = evaluate_run(workspace, "rgb")

    tuned, fixed = results["methods"][2:]
    assert (tuned["is_there"], fixed["is_there"]) == (False, False)
    assert "B12" in tuned["note"]
    assert tuned["pixels"] is None
    assert results["gain"] == {"pooled": None, "per_fire": None}
    assert results["fires"][0]["index_tuned_iou"] is None
