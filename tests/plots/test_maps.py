"""The picture of a map beside its scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation

from fireseg.plots import maps
from fireseg.plots.maps import choose_scale, render_map
from fireseg.task import Task, get_class_names

BANDS = ("B12", "B8A", "B04")
GRADING = Task(name="gra", num_classes=5, class_names=get_class_names(5))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that were saved."""
    saved: list[Figure] = []
    save = maps.save_figure

    def record(figure: Figure, path: Path) -> None:
        saved.append(figure)
        save(figure, path)

    monkeypatch.setattr(maps, "save_figure", record)
    return saved


def draw(path: Path, *, height: int = 60, width: int = 80, unknown: bool = False, **options: Any) -> np.ndarray:
    image = np.full((3, height, width), 0.2, np.float32)
    classes = np.zeros((height, width), np.uint8)
    classes[: height // 2] = 3
    if unknown:
        image[:, :, : width // 4], classes[:, : width // 4] = np.nan, 255
    given: dict[str, Any] = {
        "title": "scene",
        "notes": ["12 ha burned."],
        "hectares": [100.0, 0.0, 0.0, 12.34, 0.0],
        "unknown_share": 0.25 if unknown else 0.0,
        "pixel_m": (10.0, 10.0),
    }
    render_map(image, classes, bands=BANDS, task=GRADING, path=path, **{**given, **options})
    return imread(path)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def panels(figure: Figure) -> list[tuple[float, float, float, float]]:
    """Left, bottom, width, height of scene and map, in pixels."""
    size = figure.get_size_inches() * figure.dpi
    return [tuple(np.round(axes.get_position().bounds * np.tile(size, 2))) for axes in figure.axes if axes.images]


def test_the_legend_names_every_class_with_its_area(tmp_path: Path, figures: list[Figure]) -> None:
    draw(tmp_path / "map.png")
    labels = texts(figures[0])
    assert {"no damage  100 ha", "negligible  0 ha", "high  12.3 ha", "scene", "12 ha burned.", "N"} <= set(labels)
    assert not any(text.startswith("unknown") for text in labels)


def test_unknown_pixels_are_hatched_and_in_the_legend(tmp_path: Path, figures: list[Figure]) -> None:
    draw(tmp_path / "map.png", unknown=True)
    assert "unknown  25 %" in texts(figures[0])
    hatches = [each.get_hatch() for axes in figures[0].axes for each in axes.patches if isinstance(each, Rectangle)]
    assert hatches.count("/////") == 1
    scene, drawn = (axes.images[0].get_array() for axes in figures[0].axes if axes.images)
    assert (np.asarray(scene)[:, :20] == 128).all()
    assert {tuple(pixel) for pixel in np.asarray(drawn)[:, :20].reshape(-1, 3)} == {(255, 255, 255), (140, 140, 140)}


def test_the_map_is_below_a_wide_scene_and_beside_others(tmp_path: Path, figures: list[Figure]) -> None:
    draw(tmp_path / "wide.png", height=30, width=90)
    draw(tmp_path / "tall.png", height=90, width=30)
    (left, above, *_), (other_left, below, *_) = panels(figures[0])
    assert left == other_left
    assert below < above
    (left, level, *_), (other_left, other_level, *_) = panels(figures[1])
    assert other_left > left
    assert level == other_level


def test_panels_have_the_aspect_ratio_of_the_ground(tmp_path: Path, figures: list[Figure]) -> None:
    draw(tmp_path / "map.png", height=100, width=100, pixel_m=(7.5, 10.0))
    _, _, width, height = panels(figures[0])[0]
    assert width / height == pytest.approx(0.75, rel=0.01)


def test_the_scale_bar_has_the_length_of_its_label(tmp_path: Path, figures: list[Figure]) -> None:
    draw(tmp_path / "map.png", height=500, width=600)
    canvas = figures[0].axes[0]
    bar = np.ptp(canvas.lines[0].get_xdata())
    # 600 columns of 10 m fill the panel, and 2 km of them the bar.
    assert "2 km" in texts(figures[0])
    assert bar == pytest.approx(panels(figures[0])[0][2] * 2000 / 6000, rel=0.01)


@pytest.mark.parametrize(
    ("max_m", "metres", "text"),
    [(9999, 5000, "5 km"), (1000, 1000, "1 km"), (199, 100, "100 m"), (37_000, 20_000, "20 km"), (0.7, 0.5, "0.5 m")],
)
def test_a_scale_is_the_longest_round_number_that_fits(max_m: float, metres: float, text: str) -> None:
    assert choose_scale(max_m) == (pytest.approx(metres), text)


def test_the_north_arrow_points_in_the_given_direction(tmp_path: Path, figures: list[Figure]) -> None:
    draw(tmp_path / "map.png", north_deg=90.0)
    arrow = next(text for text in figures[0].axes[0].texts if isinstance(text, Annotation))
    (tip_x, tip_y), (tail_x, tail_y) = arrow.xy, arrow.xyann
    assert tip_x > tail_x
    assert tip_y == pytest.approx(tail_y)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1)])
def test_a_scene_of_any_shape_is_drawn(tmp_path: Path, height: int, width: int) -> None:
    assert draw(tmp_path / "map.png", height=height, width=width, unknown=True).shape[0] > 100


def test_no_text_exceeds_the_figure(tmp_path: Path, figures: list[Figure]) -> None:
    title = "A name $with_ no end " * 20
    draw(tmp_path / "map.png", height=90, width=10, unknown=True, title=title, notes=["A long note. " * 30])
    figure = figures[0]
    right, top = figure.get_size_inches() * figure.dpi
    for text in (text for axes in figure.axes for text in axes.texts if text.get_text()):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= right
        assert box.y0 >= 0
        assert box.y1 <= top
