"""A training run from its settings to the finished run folder."""

from __future__ import annotations

import csv
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
from fireseg import config
from fireseg.engine import Interrupts
from fireseg.errors import FiresegError
from fireseg.evaluate.cli import main as evaluate
from fireseg.model import create_segmentation_model
from fireseg.prepare.cli import main as prepare
from fireseg.runs import load_trained_model
from fireseg.runs.folder import ResumePoint, RunFolder, find_resume_point
from fireseg.train.run import train
from tests.conftest import SmallDisk
from tests.predict.builders import get_network
from tests.prepare.builders import write_set

QUICK = (
    "model.encoder=tu-test_efficientnet",
    "model.weights=none",
    "data.num_workers=0",
    "data.batch_size=4",
    "engine.epochs=1",
    "engine.device=cpu",
    "tracker=none",
)

Run = Callable[..., RunFolder]


@pytest.fixture
def run(make_patches: Callable[..., Path], tmp_path: Path) -> Run:
    """Returns a function that trains in this process on simulated patches and returns the run folder."""

    def train_run(
        *overrides: str, point: ResumePoint | None = None, parent: Path | None = None, **patches: Any
    ) -> RunFolder:
        root = tmp_path / "patches"
        if not root.exists():
            make_patches(root, **patches)
        settings = config.compose_settings([f"data.root={root}", *QUICK, *overrides])
        point = point or ResumePoint(None, None, None)
        folder = point.folder or RunFolder.create(parent or tmp_path / "outputs", "run")
        train(settings, folder, point=point, interrupts=Interrupts())
        return folder

    return train_run


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def test_a_run_folder_has_all_files(run: Run):
    folder = run("engine.epochs=2", "checkpoint.every=1", "checkpoint.keep=1")

    names = {str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file()}
    checkpoints = {f"checkpoints/{name}.pt" for name in ("last", "best_model", "final_model", "checkpoint_epoch_2")}
    plots = {"batch.png", "samples.png", "curves.png"}
    assert names == {"config.json", "run.json", "metrics.jsonl", *checkpoints, *plots}


def test_a_last_state_of_another_optimizer_is_refused_in_one_line_and_the_run_is_kept(run: Run):
    folder = run()
    last, metrics = folder.checkpoints / "last.pt", folder.metrics.read_text()
    state = load(last)
    state["optimizer"]["param_groups"][0].pop("betas")
    torch.save(state, last)

    with pytest.raises(FiresegError, match=r"last\.pt: the state of another .*betas.*model\.weights=") as caught:
        run("engine.epochs=2", point=find_resume_point(folder.path))

    assert len(caught.value.faults) == 1
    assert "\n" not in str(caught.value)
    assert folder.metrics.read_text() == metrics


def test_a_damaged_best_model_is_told_when_the_run_is_resumed(run: Run, log: pytest.LogCaptureFixture):
    folder = run()
    (folder.checkpoints / "best_model.pt").write_bytes(b"PK")

    run("engine.epochs=2", point=find_resume_point(folder.path))

    assert "best_model.pt: not a readable checkpoint" in log.text
    assert load(folder.checkpoints / "best_model.pt")["epoch"] == 2


def test_a_run_trains_on_a_fold_and_is_evaluated_on_it(run: Run, tmp_path: Path):
    tiles = write_set(tmp_path / "tiles", train=4, val=0, test=0)
    assert prepare([str(tiles), str(tmp_path / "patches"), "--size", "32", "--folds", "4"]) == 0
    folder = run("data.fold=1")
    assert json.loads(folder.config.read_text())["data"]["fold"] == 1

    assert evaluate([str(folder.path), "--no-track"]) == 0
    with (tmp_path / "patches/fold_1.csv").open(newline="") as file:
        tested = [row["tile"] for row in csv.DictReader(file) if row["split"] == "test"]
    fires = json.loads((folder.path / "evaluation_test.json").read_text())["fires"]
    assert [fire["name"] for fire in fires] == tested
    assert len(tested) == 1


def test_a_run_trains_on_joined_folders_and_is_evaluated_on_both(run: Run, tmp_path: Path):
    for number, name in enumerate("ab"):
        tiles = write_set(tmp_path / f"tiles_{name}", train=1, val=1, test=1)
        for path in sorted(tiles.rglob("EMSR1*"), reverse=True):  # files before their folders
            path.rename(path.with_name(path.name.replace("EMSR1", f"EMSR{number + 1}")))
        assert prepare([str(tiles), str(tmp_path / name), "--size", "32"]) == 0
    folder = run(f"data.root=[{tmp_path}/a,{tmp_path}/b]")
    assert folder.read_provenance()["data"]["root"] == [str(tmp_path / "a"), str(tmp_path / "b")]

    assert evaluate([str(folder.path), "--no-track"]) == 0
    results = json.loads((folder.path / "evaluation_test.json").read_text())
    assert [fire["name"] for fire in results["fires"]] == ["EMSR102_AOI01_01", "EMSR202_AOI01_01"]
    assert all(fire["true_ha"] > 0 for fire in results["fires"])
    assert results["data"]["is_same"]


def test_a_fraction_of_the_training_patches_is_in_the_settings_and_the_log(run: Run, log: pytest.LogCaptureFixture):
    folder = run("data.fraction=0.25")

    assert json.loads(folder.config.read_text())["data"]["fraction"] == 0.25
    assert any(line.startswith("data.fraction=0.25: 2 of 8 training patches are used") for line in log.messages)


def test_config_json_is_enough_to_rebuild_the_model(run: Run):
    folder = run()
    settings = json.loads(folder.config.read_text())
    best = load(folder.checkpoints / "best_model.pt")

    model = config.make({**settings["model"], "weights": "none"}, torch.nn.Module)
    model.load_state_dict(best["model"])

    assert best["bands"] == settings["data"]["bands"]
    assert best["class_names"] == ["background", "fire"]
    assert "${" not in folder.config.read_text()


def test_a_run_records_its_provenance(run: Run):
    folder = run()
    provenance = folder.read_provenance()

    assert {"versions", "git_commit", "host", "data", "weights"} <= set(provenance)
    assert provenance["precision"] == torch.load(folder.checkpoints / "best_model.pt")["precision"]
    assert provenance["precision"] in ("fp32", "bf16")
    assert len(provenance["data"]["mean"]) == 7
    assert provenance["weights"]["source"].startswith("none")
    weights = torch.load(folder.checkpoints / "best_model.pt", weights_only=True)["model"]
    buffers = ("mean", "std", "running_mean", "running_var", "num_batches_tracked")
    trained = [value.numel() for name, value in weights.items() if name.rpartition(".")[2] not in buffers]
    assert provenance["model"] == {"num_parameters": sum(trained)}
    assert 1e8 < provenance["peak_memory"]["process_bytes"] < 1e11  # torch alone takes 200 MB


def test_the_model_contains_the_normalisation_of_the_training_split(run: Run, tmp_path: Path):
    folder = run()
    images = np.stack([np.load(path) for path in sorted((tmp_path / "patches/train").glob("*_image.npy"))])

    mean = load(folder.checkpoints / "best_model.pt")["model"]["mean"]

    np.testing.assert_allclose(mean.flatten().numpy(), images.mean((0, 1, 2)), rtol=1e-4)


def test_a_run_with_indices_maps_images_of_its_bands(run: Run, tmp_path: Path):
    folder = run("data.indices=[NBR,MIRBI]")
    assert folder.read_provenance()["data"]["indices"] == ["NBR", "MIRBI"]
    state = load(folder.checkpoints / "best_model.pt")["model"]
    assert state["network.encoder.model.conv_stem.weight"].shape[1] == 9
    assert state["mean"].shape == (7,)

    trained = load_trained_model(folder.path, device="cpu")
    path = sorted((tmp_path / "patches/val").glob("*_image.npy"))[0]
    image = torch.from_numpy(np.load(path)).permute(2, 0, 1)[None]
    nbr = (image[:, 3] - image[:, 6]) / (image[:, 3] + image[:, 6]) / 0.3
    mirbi = (10 * image[:, 6] - 9.8 * image[:, 5] + 2 - 1.6) / 0.4
    bands = (image - state["mean"].view(1, 7, 1, 1)) / state["std"].view(1, 7, 1, 1)
    with torch.inference_mode():
        expected = get_network(trained).network(torch.cat([bands, nbr[:, None], mirbi[:, None]], 1))
    torch.testing.assert_close(trained.predict_logits(image), expected)
    prediction = fireseg.load(folder.path, device="cpu", runtime="torch").predict(image[0].numpy(), temperature=1.0)
    # The map is of an image in steps of 0.0001.
    np.testing.assert_allclose(prediction.fire, expected.softmax(1)[0, 1].numpy(), atol=2e-3)


def test_a_resumed_run_with_indices_augmentation_and_crops_equals_an_uninterrupted_one(run: Run, tmp_path: Path):
    words = ("data.indices=[NBR,BAI]", "data/augment=radiometric", "data.augment.drop=0.5", "data.crop=32")
    whole = run("engine.epochs=2", *words, parent=tmp_path / "whole", size=48)
    part = run(*words, parent=tmp_path / "part")
    resumed = run("engine.epochs=2", *words, point=find_resume_point(part.path))

    weights = [load(folder.checkpoints / "final_model.pt")["model"] for folder in (whole, resumed)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert [row["train/loss"] for row in whole.read_metrics()] == [row["train/loss"] for row in resumed.read_metrics()]


def test_a_resumed_run_keeps_the_class_weights_that_it_began_with(run: Run, log: pytest.LogCaptureFixture):
    folder = run()
    provenance = json.loads(folder.provenance.read_text())
    # As of an earlier version, which counted the pixels of overlapping patches more than once.
    provenance["data"]["class_counts"] = [3000, 1000]
    folder.provenance.write_text(json.dumps(provenance))

    run("engine.epochs=2", point=find_resume_point(folder.path))

    assert folder.read_provenance()["data"]["class_counts"] == [3000, 1000]
    assert "class weights: background 0.5, fire 1.5" in log.text


def test_without_fire_in_validation_the_lowest_loss_is_the_best_and_both_logs_mention_it(
    run: Run, log: pytest.LogCaptureFixture, make_patches: Callable[..., Path], tmp_path: Path
):
    make_patches(tmp_path / "patches")
    for path in (tmp_path / "patches/val").glob("*_mask.npy"):
        np.save(path, np.zeros((32, 32), np.uint8))

    folder = run("engine.epochs=4", "stopping.patience=1")

    assert "no burned pixel" in log.text[: log.text.index("epoch 1/4")]
    rows = folder.read_metrics()
    assert [row["val/fire_iou"] for row in rows] == [None] * 4
    lowest = min(rows, key=lambda row: row["val/loss"])
    assert load(folder.checkpoints / "best_model.pt")["epoch"] == lowest["epoch"]
    assert f"best: epoch {lowest['epoch']}, by val/loss {lowest['val/loss']:.4f}" in log.text


def test_a_warm_start_loads_the_weights_and_logs_that_the_head_is_new(
    run: Run, log: pytest.LogCaptureFixture, make_patches: Callable[..., Path], tmp_path: Path
):
    before = run()
    run(f"model.weights={before.path}", "engine.limit_batches=1")
    assert "was trained on other patches" not in log.text
    shutil.rmtree(tmp_path / "patches")
    make_patches(tmp_path / "patches", num_classes=5)

    after = run("task=gra", f"model.weights={before.path}", "optimizer.lr=1e-12", "engine.limit_batches=1")

    old, new = (load(folder.checkpoints / "best_model.pt")["model"] for folder in (before, after))
    encoder = next(name for name in old if "encoder" in name and old[name].dim() == 4)
    torch.testing.assert_close(old[encoder], new[encoder])
    assert "head" in log.text
    weights = after.read_provenance()["weights"]
    assert len(weights["sha256"]) == 64
    fingerprints = [folder.read_provenance()["data"]["fingerprint"] for folder in (before, after)]
    assert weights["fingerprint"] == fingerprints[0] != fingerprints[1]
    assert "was trained on other patches" in log.text


def test_weights_over_sentinel_bands_are_trained_on_plain_reflectance_and_resumed(run: Run, tmp_path: Path):
    bands = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12", "B05", "B01")
    model: Any = create_segmentation_model(
        encoder="tu-test_efficientnet", weights="none", in_channels=len(bands), bands=bands
    )
    torch.save(
        {"backbone." + key: value for key, value in model.network.encoder.state_dict().items()}, tmp_path / "w.pt"
    )
    names = ",".join(bands)
    folder = run(f"model.weights={tmp_path / 'w.pt'}", f"model.weights_bands=[{names}]", "data.indices=[NBR]")
    (tmp_path / "w.pt").unlink()
    assert "without the filters of B05 B01; filters of NBR start at 0" in folder.read_provenance()["weights"]["note"]

    settings = (f"model.weights_bands=[{names}]", "data.indices=[NBR]", "engine.epochs=2")
    run(*settings, point=find_resume_point(folder.path))

    assert [row["epoch"] for row in folder.read_metrics()] == [1, 2]
    trained = get_network(load_trained_model(folder.path))
    assert (trained.mean.tolist(), trained.std.tolist()) == ([0.0] * 7, [1.0] * 7)


def test_an_auxiliary_task_is_learnt_resumed_and_dropped(run: Run, tmp_path: Path):
    tiles = write_set(tmp_path / "tiles", train=2, val=1, test=0, height=64, width=64)
    for image in tiles.rglob("*_S2L2A.tif"):
        with rasterio.open(image) as raster:
            profile = raster.profile | {"count": 1, "dtype": "uint8", "nodata": None}
        with rasterio.open(image.with_name(image.name.replace("S2L2A", "ESA_LC")), "w", **profile) as raster:
            raster.write(np.full((64, 64), 40, np.uint8), 1)
    assert prepare([str(tiles), str(tmp_path / "patches"), "--size", "32", "--landcover", "esa"]) == 0
    settings = ("task.auxiliary=landcover", "engine.shards=2", "optimizer.lr=1e-2")

    folder = run(*settings)
    run(*settings, "engine.epochs=2", point=find_resume_point(folder.path))

    rows = folder.read_metrics()
    assert rows[1]["train/auxiliary_loss"] < rows[0]["train/auxiliary_loss"]
    assert "val/auxiliary_loss" not in rows[0]
    head = "network.segmentation_head.0.weight"
    names = ("last.pt", "best_model.pt", "final_model.pt")
    assert [len(load(folder.checkpoints / name)["model"][head]) for name in names] == [13, 2, 2]
    best, last = (get_network(load_trained_model(folder.checkpoints / name)) for name in ("best_model.pt", "last.pt"))
    assert last.predict_probabilities(torch.rand(1, 7, 32, 32)).shape == (1, 2, 32, 32)
    warm = create_segmentation_model(
        encoder="tu-test_efficientnet", weights=folder.path, auxiliary="landcover", bands=best.bands
    )
    assert torch.equal(warm.state_dict()[head][:2], best.state_dict()[head])


def test_resuming_with_other_data_is_rejected(run: Run, make_patches: Callable[..., Path], tmp_path: Path):
    folder = run()
    shutil.rmtree(tmp_path / "patches")
    make_patches(tmp_path / "patches", seed=1)

    with pytest.raises(FiresegError, match=r"data\.root: .*last\.pt.*model\.weights="):
        run("engine.epochs=2", point=find_resume_point(folder.path))


def test_resuming_from_weights_without_a_training_state_is_rejected(run: Run):
    folder = run()
    best = folder.checkpoints / "best_model.pt"

    with pytest.raises(FiresegError, match=r"resume: .*model\.weights=.*best_model\.pt"):
        run(point=find_resume_point(best))


def test_resuming_a_finished_run_changes_nothing(run: Run, log: pytest.LogCaptureFixture):
    folder = run()
    rows = folder.read_metrics()

    run(point=find_resume_point(folder.path))

    assert "finished after epoch 1" in log.text
    assert folder.read_metrics() == rows


def test_training_stops_early_when_patience_is_used_up(run: Run, log: pytest.LogCaptureFixture):
    folder = run("engine.epochs=50", "stopping.patience=1", "optimizer.lr=1e-9")

    assert "stopped early" in log.text
    assert len(folder.read_metrics()) < 50
    assert (folder.checkpoints / "final_model.pt").exists()


def test_a_class_without_pixels_is_reported(run: Run, log: pytest.LogCaptureFixture):
    run("task=gra", num_classes=3)

    assert "no pixel of high, destroyed" in log.text


def test_a_full_disk_is_one_error_and_leaves_no_partial_file(run: Run, make_small_disk: Callable[..., SmallDisk]):
    disk = make_small_disk("size=2m")

    with pytest.raises(FiresegError, match=r"best_model\.pt: the disk is full"):
        run(parent=disk.folder)

    (folder,) = disk.folder.iterdir()
    assert list((folder / "checkpoints").iterdir()) == []
    json.loads((folder / "config.json").read_text())
