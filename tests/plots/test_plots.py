"""Pictures: what colour a pixel gets, and files that a person can open."""

from __future__ import annotations

import errno
import stat
import threading
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.image import imread

from fireseg.batch import Batch
from fireseg.errors import FiresegError
from fireseg.plots import (
    ERROR_COLOURS,
    UNLABELLED,
    choose_composite,
    colour_classes,
    colour_errors,
    compare,
    render_batch,
    render_composite,
    render_curves,
    render_samples,
)
from fireseg.task import Task, get_class_names

SEVEN = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")
DEL = Task(name="del", num_classes=2, class_names=get_class_names(2))
GRA = Task(name="gra", num_classes=5, class_names=get_class_names(5))


def make_batch(count: int, size: int = 32, channels: int = 7, num_classes: int = 2) -> Batch:
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(count, channels, size, size, generator=draw) * 0.4
    mask = torch.randint(0, num_classes, (count, size, size), generator=draw).to(torch.uint8)
    mask[:, :4] = 255
    return Batch(image, mask, tuple(f"EMSR382_AOI01_01_r{number * size}_c0" for number in range(count)))


def make_rows(count: int, **more: Any) -> list[dict[str, Any]]:
    scores = {"val/fire_iou": 0.7, "val/fire_recall": 0.8, "val/detection_f1": 0.9}
    rest = {"train/loss": 0.3, "val/loss": 0.4, "lr": 1e-4, "best": True}
    return [{"epoch": epoch, **scores, **rest, **more} for epoch in range(1, count + 1)]


def read_png(path: Path) -> np.ndarray:
    assert path.read_bytes().startswith(b"\x89PNG")
    return imread(path)


def rgb(colour: str) -> list[int]:
    return list(bytes.fromhex(colour[1:]))


@pytest.mark.parametrize(
    ("bands", "shown"),
    [
        (SEVEN, ("B12", "B8A", "B04")),
        (("B02", "B03", "B04", "B08", "B12"), ("B12", "B08", "B04")),
        (("B12", "B04", "B08"), ("B12", "B08", "B04")),
        (("B04", "B08", "B11"), ("B11", "B08", "B04")),
        (("B02", "B03", "B04", "B08"), ("B04", "B03", "B02")),
        (("B05", "B06", "B07", "B08"), ("B05", "B06", "B07")),
        (("B08", "B12"), ("B08",)),
    ],
)
def test_a_composite_shows_the_best_bands_there_are_and_says_which(bands: tuple[str, ...], shown: tuple[str, ...]):
    recipe = choose_composite(bands)
    assert recipe.bands == shown
    assert " ".join(shown) in recipe.caption


def test_a_composite_picks_bands_by_name():
    image = np.zeros((3, 1, 1), np.float32)
    image[1] = 0.45  # B12, shown as red
    assert render_composite(image, ("B04", "B12", "B08")).tolist() == [[[255, 0, 0]]]


def test_dense_forest_is_green_and_char_is_dark_red():
    forest = torch.tensor([0.022, 0.040, 0.018, 0.442, 0.449, 0.144, 0.041]).view(7, 1, 1)
    char = torch.tensor([0.044, 0.052, 0.064, 0.086, 0.090, 0.231, 0.302]).view(7, 1, 1)
    red, green, blue = render_composite(forest, SEVEN)[0, 0].tolist()
    assert green > 200 > 60 > max(red, blue)
    red, green, blue = render_composite(char, SEVEN)[0, 0].tolist()
    assert 200 > red > 2 * max(green, blue)


def test_one_reflectance_has_one_shade_in_every_picture():
    dark, bright = torch.full((7, 4, 4), 0.1), torch.full((7, 4, 4), 0.1)
    bright[:, 2:] = 1.3
    assert (render_composite(dark, SEVEN)[:2] == render_composite(bright, SEVEN)[:2]).all()
    assert (render_composite(bright, SEVEN)[2:] == 255).all()


def test_a_pixel_without_a_value_is_grey_and_its_neighbours_are_untouched():
    image = np.full((7, 1, 3), 0.1, np.float32)
    image[6, 0, 0], image[4, 0, 1] = np.nan, np.inf
    picture = render_composite(image, SEVEN)
    assert picture[0, :2].tolist() == [[128, 128, 128]] * 2
    assert picture[0, 2].tolist() == render_composite(np.full((7, 1, 1), 0.1), SEVEN)[0, 0].tolist()


@given(arrays.arrays(np.float32, (2, 3, 4), elements=st.floats(width=32)))
def test_any_number_at_all_makes_a_picture(image: np.ndarray):
    picture = render_composite(image, ("B08", "B04"))
    assert picture.shape == (3, 4, 3)
    assert picture.dtype == np.uint8


def test_classes_get_the_colours_of_the_task():
    mask = torch.tensor([[0, 1], [3, 4]], dtype=torch.uint8)
    expected = [[rgb(GRA.colours[value]) for value in row] for row in mask.tolist()]
    assert colour_classes(mask, GRA).tolist() == expected


def test_unlabelled_pixels_are_striped_in_colours_that_no_class_has():
    picture = colour_classes(np.full((2, 2), 255, np.uint8), GRA)
    light, dark = map(rgb, UNLABELLED)
    assert picture.tolist() == [[light, dark], [dark, light]]
    assert not set(UNLABELLED) & {*GRA.colours, *DEL.colours, *ERROR_COLOURS.values()}


def test_agreement_is_told_pixel_by_pixel():
    truth, prediction = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 0, 1]])
    picture = colour_errors(truth, prediction, DEL)
    unburned, false_alarm, miss, burned = map(rgb, ERROR_COLOURS.values())
    assert list(ERROR_COLOURS) == ["unburned in both", "false alarm", "miss", "burned in both"]
    assert picture.tolist() == [[unburned, false_alarm, miss, burned]]


def test_agreement_is_on_burned_or_not_whatever_the_grade():
    assert compare(np.array([[4, 1, 0]]), np.array([[1, 0, 3]]), GRA).tolist() == [[3, 2, 1]]


def test_agreement_says_nothing_where_nobody_labelled():
    truth = np.array([[255, 255]], np.uint8)
    assert compare(truth, np.array([[0, 1]]), DEL).tolist() == [[255, 255]]
    assert colour_errors(truth, np.array([[0, 1]]), DEL).tolist() == [[rgb(colour) for colour in UNLABELLED]]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_batch_becomes_a_picture_with_one_panel_for_each_image_and_mask(tmp_path: Path, count: int):
    render_batch(make_batch(count), bands=SEVEN, task=DEL, path=tmp_path / "batch.png")
    picture = read_png(tmp_path / "batch.png")
    height, width = picture.shape[:2]
    assert 1000 < width < 2300
    assert 400 < height < 1500
    assert [path.name for path in tmp_path.iterdir()] == ["batch.png"]


def test_a_batch_shows_no_more_patches_than_asked_for(tmp_path: Path):
    batch = make_batch(8)
    render_batch(batch, bands=SEVEN, task=DEL, path=tmp_path / "two.png", count=2)
    first = Batch(batch.image[:2], batch.mask[:2], batch.names[:2])
    render_batch(first, bands=SEVEN, task=DEL, path=tmp_path / "first.png")
    assert (read_png(tmp_path / "two.png") == read_png(tmp_path / "first.png")).all()


def test_every_pixel_of_a_patch_is_drawn_at_one_size(tmp_path: Path):
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
def test_samples_become_a_picture(tmp_path: Path, task: Task):
    batch = make_batch(5, num_classes=task.num_classes)
    prediction = torch.randint(0, task.num_classes, batch.mask.shape)
    scores = {"fire_iou": 0.8, "fire_recall": None, "detection_f1": float("nan")}
    given = {"bands": SEVEN, "task": task, "path": tmp_path / "samples.png", "epoch": 3, "scores": scores}
    render_samples(batch.image, batch.mask, prediction, batch.names, **given)
    assert read_png(tmp_path / "samples.png").ndim == 3


def test_samples_with_nothing_labelled_and_with_nothing_burned_become_a_picture(tmp_path: Path):
    batch = make_batch(2)
    batch.mask[0], batch.mask[1] = 255, 0
    none = torch.zeros_like(batch.mask)
    render_samples(*batch[:2], none, batch.names, bands=SEVEN, task=DEL, path=tmp_path / "samples.png")
    assert read_png(tmp_path / "samples.png").ndim == 3


def test_patches_that_are_not_square_with_odd_names_and_one_band_become_a_picture(tmp_path: Path):
    names = ("$a_{b$", "x" * 300)
    batch = Batch(torch.rand(2, 1, 24, 48), torch.zeros(2, 24, 48, dtype=torch.uint8), names)
    render_batch(batch, bands=("B08",), task=DEL, path=tmp_path / "batch.png", title="$1 % of _everything")
    assert read_png(tmp_path / "batch.png").ndim == 3


@pytest.mark.parametrize("count", [1, 2, 200])
def test_curves_become_a_picture_whatever_the_number_of_epochs(tmp_path: Path, count: int):
    render_curves(make_rows(count), tmp_path / "curves.png", baseline=0.688)
    assert read_png(tmp_path / "curves.png").shape[1] > 1000


def test_curves_of_one_epoch_with_nothing_to_read_become_a_picture(tmp_path: Path):
    nothing = dict.fromkeys(("train/loss", "val/loss", "val/fire_iou", "val/fire_recall", "val/detection_f1", "lr"))
    render_curves(make_rows(1, **nothing, best=False), tmp_path / "curves.png")
    render_curves(make_rows(1, **nothing, best=True), tmp_path / "curves.png")
    assert read_png(tmp_path / "curves.png").ndim == 3


def test_a_learning_rate_of_zero_does_not_break_the_log_axis(tmp_path: Path):
    render_curves([*make_rows(2), *make_rows(1, epoch=3, lr=0.0)], tmp_path / "curves.png")
    render_curves(make_rows(2, lr=0.0), tmp_path / "curves.png")
    assert read_png(tmp_path / "curves.png").ndim == 3


def test_a_picture_takes_the_place_of_the_old_one(tmp_path: Path):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")
    render_curves(make_rows(3), path)
    assert read_png(path).ndim == 3


def test_a_folder_that_is_not_there_is_one_clear_line_and_nothing_is_left(tmp_path: Path):
    with pytest.raises(FiresegError, match=r"curves\.png: cannot be written"):
        render_curves(make_rows(1), tmp_path / "gone" / "curves.png")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_clear_line_and_nothing_is_left(tmp_path: Path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        (folder / "probe").touch()
    except PermissionError:
        with pytest.raises(FiresegError, match="choose a folder that is yours"):
            render_batch(make_batch(1), bands=SEVEN, task=DEL, path=folder / "batch.png")
        assert not list(folder.iterdir())
    else:
        pytest.skip("this user may write everywhere")
    finally:
        folder.chmod(stat.S_IRWXU)


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "choose a folder that is yours")]
)
def test_a_drawing_that_breaks_off_leaves_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")

    def break_off(self: object, part: Path, **_: object) -> None:
        part.write_bytes(b"half a pict")
        raise OSError(number, "the system's own words")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", break_off)
    with pytest.raises(FiresegError, match=message):
        render_curves(make_rows(1), path)
    assert path.read_bytes() == b"old"
    assert [left.name for left in tmp_path.iterdir()] == ["curves.png"]


def test_drawing_in_a_thread_leaves_the_backend_of_the_process_alone(tmp_path: Path):
    backend = dict.__getitem__(matplotlib.rcParams, "backend")  # asking the usual way would choose one
    thread = threading.Thread(target=render_curves, args=(make_rows(2), tmp_path / "curves.png"))
    thread.start()
    thread.join()
    assert dict.__getitem__(matplotlib.rcParams, "backend") is backend
    assert read_png(tmp_path / "curves.png").ndim == 3
