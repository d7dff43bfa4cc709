"""Pictures of batches and of samples with predictions."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from fireseg.batch import Batch
from fireseg.errors import FiresegError
from fireseg.plots import render_batch, render_samples
from fireseg.task import Task
from tests.plots.builders import DEL, GRA, SEVEN, make_batch, read_png, rgb


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_batch_is_rendered(tmp_path: Path, count: int):
    render_batch(make_batch(count), bands=SEVEN, task=DEL, path=tmp_path / "batch.png")
    picture = read_png(tmp_path / "batch.png")
    height, width = picture.shape[:2]
    assert 1000 < width < 2300
    assert 400 < height < 1500
    assert [path.name for path in tmp_path.iterdir()] == ["batch.png"]


def test_count_limits_the_patches_of_a_batch(tmp_path: Path):
    batch = make_batch(8)
    render_batch(batch, bands=SEVEN, task=DEL, path=tmp_path / "two.png", count=2)
    first = Batch(batch.image[:2], batch.mask[:2], batch.names[:2])
    render_batch(first, bands=SEVEN, task=DEL, path=tmp_path / "first.png")
    assert (read_png(tmp_path / "two.png") == read_png(tmp_path / "first.png")).all()


def test_all_pixels_of_a_patch_have_the_same_size(tmp_path: Path):
    batch = make_batch(1, size=256)
    batch.mask[:] = torch.arange(256).view(1, 256, 1) % 2  # stripes of one pixel
    render_samples(*batch[:2], batch.mask, batch.names, bands=SEVEN, task=DEL, path=tmp_path / "samples.png")
    picture = np.rint(255 * read_png(tmp_path / "samples.png")[..., :3]).astype(int)
    column = picture[:, picture.shape[1] * 3 // 8]  # through the panel of the truth
    is_fire = (column == rgb(DEL.colours[1])).all(axis=1)
    rows = np.flatnonzero(is_fire)[:-1]
    assert is_fire.sum() >= 128
    assert (np.diff(rows[:127]) == 2).all()


@pytest.mark.parametrize("task", [DEL, GRA], ids=lambda task: task.name)
def test_samples_are_rendered(tmp_path: Path, task: Task):
    batch = make_batch(5, num_classes=task.num_classes)
    prediction = torch.randint(0, task.num_classes, batch.mask.shape)
    scores = {"fire_iou": 0.8, "fire_recall": None, "detection_f1": float("nan")}
    given = {"bands": SEVEN, "task": task, "path": tmp_path / "samples.png", "epoch": 3, "scores": scores}
    render_samples(batch.image, batch.mask, prediction, batch.names, **given)
    assert read_png(tmp_path / "samples.png").ndim == 3


def test_samples_without_labels_or_fire_are_rendered(tmp_path: Path):
    batch = make_batch(2)
    batch.mask[0], batch.mask[1] = 255, 0
    none = torch.zeros_like(batch.mask)
    render_samples(*batch[:2], none, batch.names, bands=SEVEN, task=DEL, path=tmp_path / "samples.png")
    assert read_png(tmp_path / "samples.png").ndim == 3


def test_rectangular_patches_with_unusual_names_and_one_band_are_rendered(tmp_path: Path):
    names = ("$a_{b$", "x" * 300)
    batch = Batch(torch.rand(2, 1, 24, 48), torch.zeros(2, 24, 48, dtype=torch.uint8), names)
    render_batch(batch, bands=("B08",), task=DEL, path=tmp_path / "batch.png", title="$1 % of _everything")
    assert read_png(tmp_path / "batch.png").ndim == 3


def test_a_folder_without_write_permission_is_an_error_and_leaves_no_file(tmp_path: Path):
    folder = tmp_path / "read-only"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        (folder / "probe").touch()
    except PermissionError:
        with pytest.raises(FiresegError, match="choose"):
            render_batch(make_batch(1), bands=SEVEN, task=DEL, path=folder / "batch.png")
        assert not list(folder.iterdir())
    else:
        pytest.skip("this user may write everywhere")
    finally:
        folder.chmod(stat.S_IRWXU)
