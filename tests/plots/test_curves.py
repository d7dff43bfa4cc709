"""Training curves, and pictures that are written completely or not at all."""

from __future__ import annotations

import errno
import itertools
import threading
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.figure import Figure

from fireseg.errors import FiresegError
from fireseg.plots import render_curves
from tests.plots.builders import read_png


def make_rows(count: int, **values: Any) -> list[dict[str, Any]]:
    scores = {"val/fire_iou": 0.7, "val/fire_recall": 0.8, "val/detection_f1": 0.9}
    rest = {"train/loss": 0.3, "val/loss": 0.4, "lr": 1e-4, "best": True}
    return [{"epoch": epoch, **scores, **rest, **values} for epoch in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 2, 200])
def test_curves_of_any_number_of_epochs_are_rendered(tmp_path: Path, count: int):
    render_curves(make_rows(count), tmp_path / "curves.png", baseline=0.688)
    assert read_png(tmp_path / "curves.png").shape[1] > 1000


def test_curves_without_values_are_rendered(tmp_path: Path):
    undefined = dict.fromkeys(("train/loss", "val/loss", "val/fire_iou", "val/fire_recall", "val/detection_f1", "lr"))
    render_curves(make_rows(1, **undefined, best=False), tmp_path / "curves.png")
    render_curves(make_rows(1, **undefined, best=True), tmp_path / "curves.png")
    assert read_png(tmp_path / "curves.png").ndim == 3


def test_a_learning_rate_of_0_is_rendered_on_the_log_axis(tmp_path: Path):
    render_curves([*make_rows(2), *make_rows(1, epoch=3, lr=0.0)], tmp_path / "curves.png")
    render_curves(make_rows(2, lr=0.0), tmp_path / "curves.png")
    assert read_png(tmp_path / "curves.png").ndim == 3


@pytest.mark.parametrize("rates", [(2e-3, 4e-3, 2.7e-4), (3e-3, 2.2e-3), (1e-4,), (1e-3, 1e-8), (2e-3, 0.0)])
def test_labels_of_the_learning_rate_do_not_overlap(
    rates: tuple[float, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[Figure] = []
    monkeypatch.setattr("fireseg.plots.curves.save_figure", lambda figure, path: drawn.append(figure))
    rows = [row for epoch, rate in enumerate(rates, 1) for row in make_rows(1, epoch=epoch, lr=rate)]
    render_curves(rows, tmp_path / "curves.png")
    (figure,) = drawn
    figure.draw_without_rendering()
    (axes,) = (one for one in figure.axes if one.get_title("left") == "Learning rate")
    low, high = axes.get_ylim()
    assert low <= min(rate for rate in rates if rate) <= max(rates) <= high
    labels = [tick.label1 for tick in axes.yaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    assert labels
    assert not any(label.get_text() for label in axes.yaxis.get_minorticklabels())
    boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.y0)
    assert all(lower.y1 < upper.y0 for lower, upper in itertools.pairwise(boxes))


def test_a_picture_replaces_the_old_one(tmp_path: Path):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")
    render_curves(make_rows(3), path)
    assert read_png(path).ndim == 3


def test_a_missing_folder_is_an_error_and_leaves_no_file(tmp_path: Path):
    with pytest.raises(FiresegError, match=r"curves\.png: cannot be written"):
        render_curves(make_rows(1), tmp_path / "gone" / "curves.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "message"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "choose")])
def test_a_failed_write_keeps_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")

    def fail(self: object, part: Path, **_: object) -> None:
        part.write_bytes(b"half a pict")
        raise OSError(number, "message of the system")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(FiresegError, match=message):
        render_curves(make_rows(1), path)
    assert path.read_bytes() == b"old"
    assert [left.name for left in tmp_path.iterdir()] == ["curves.png"]


def test_drawing_in_a_thread_does_not_change_the_backend_of_the_process(tmp_path: Path):
    backend = dict.__getitem__(matplotlib.rcParams, "backend")  # rcParams["backend"] would choose one
    thread = threading.Thread(target=render_curves, args=(make_rows(2), tmp_path / "curves.png"))
    thread.start()
    thread.join()
    assert dict.__getitem__(matplotlib.rcParams, "backend") is backend
    assert read_png(tmp_path / "curves.png").ndim == 3
