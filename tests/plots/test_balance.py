"""What a data set is made of, drawn."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from fireseg.console import format_share
from fireseg.plots.balance import (
    NO_CLOUD_MASK,
    SHARE_LABELS,
    Balance,
    ClassCounts,
    count_shares,
    draw_panel,
    list_panels,
    render_balance,
)
from fireseg.plots.balance_panels import draw_class_shares, draw_map
from fireseg.task import Task

TASK = Task(name="del", num_classes=2, class_names=("background", "fire"))


def make_balance(**changes: object) -> Balance:
    counts = ClassCounts(
        task=TASK,
        pixels={"train": [900, 100], "val": [400, 0]},
        patches={"train": [10, 4], "val": [4, 0]},
        totals={"train": 10, "val": 4},
        weights=(0.2, 1.8),
    )
    values = {
        "classes": [counts],
        "burned": {"train": [0.0, 0.005, 0.4], "val": [0.0]},
        "cloud": {"train": [0.0, 0.2], "val": [0.0]},
        "fires_ha": {"train": [3.0, 500.0, 20_000.0], "val": [0.0]},
        "boxes": {"train": [(8.0, 40.0, 8.1, 40.1)], "val": [(20.0, 38.0, 20.1, 38.1)]},
    }
    return Balance(**{**values, **changes})  # pyright: ignore[reportArgumentType]


def test_the_words_of_a_panel_say_the_numbers_it_shows() -> None:
    alts = [panel.alt for panel in list_panels(make_balance())]
    assert "train: unburned 90 %, burned 10 %; val: unburned 100 %, burned 0 %." in alts[0]
    assert "train: unburned 10, burned 4; val: unburned 4, burned 0." in alts[1]
    assert "unburned 0.2, burned 1.8" in alts[2]
    assert "train: 3 fires, 3 to 20,000 ha, median 500 ha; val: 1 fire." in alts[4]
    assert "longitude 8.0 to 20.1 and latitude 38.0 to 40.1" in alts[6]


def test_cloud_has_a_bin_for_patches_whose_cloud_nobody_knows_only_where_there_are_such() -> None:
    known = list_panels(make_balance())[5].alt
    unknown = list_panels(make_balance(cloud={"train": [0.0, math.nan], "val": [0.0]}))[5].alt
    assert NO_CLOUD_MASK not in known
    assert f"{NO_CLOUD_MASK} 1; val" in unknown


def test_every_bin_takes_its_upper_edge_and_none_is_zero_alone() -> None:
    assert count_shares([0.0, 1e-6, 0.01, 0.011, 0.1, 0.3, 0.5, 0.51, 1.0]) == [1, 2, 2, 1, 1, 2]
    assert len(SHARE_LABELS) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"boxes": {"train": [], "val": []}},
        {"boxes": {"train": [(179.9, -17.0, -179.9, -16.8)], "val": []}},
        {"fires_ha": {"train": [0.0], "val": []}},
        {"fires_ha": {"train": [12.0], "val": []}},
        {"cloud": {"train": [math.nan], "val": [math.nan]}},
        {"classes": [ClassCounts(task=TASK, pixels={"val": [0, 0]}, patches={"val": [0, 0]}, totals={"val": 0})]},
    ],
    ids=["usual", "no footprint", "antimeridian", "no fire", "one fire", "no cloud mask", "nothing labelled"],
)
def test_any_data_set_can_be_drawn(tmp_path: Path, changes: dict[str, object]) -> None:
    balance = make_balance(**changes)
    render_balance(balance, tmp_path / "balance.png", title="a $title with _signs")
    assert imread(tmp_path / "balance.png").shape[1] > 1000


def test_a_panel_by_itself_is_narrow_enough_for_a_phone() -> None:
    picture = draw_panel(list_panels(make_balance())[0])
    height, width, _ = imread(BytesIO(picture)).shape
    assert height < width < 1000


def test_bars_have_the_colours_of_the_task() -> None:
    axes = Figure().add_subplot()
    draw_class_shares(axes, {"train": [3, 1]}, TASK.class_names, TASK.colours)
    ground, fire = axes.patches
    assert fire.get_facecolor()[:3] == pytest.approx([0xC1 / 255, 0x27 / 255, 0x2D / 255])
    assert ground.get_width() == pytest.approx(0.75)  # pyright: ignore[reportAttributeAccessIssue]
    assert fire.get_x() == pytest.approx(0.75)  # pyright: ignore[reportAttributeAccessIssue]


def test_a_tile_across_the_antimeridian_is_not_drawn_around_the_earth() -> None:
    axes = Figure().add_subplot()
    draw_map(axes, {"train": [(179.9, -17.0, -179.9, -16.8)]})
    low, high = axes.get_xlim()
    assert high - low < 1


def test_a_few_are_not_none() -> None:
    assert format_share(1e-9) == "<0.1 %"
    assert format_share(1 - 1e-9) == ">99.9 %"
