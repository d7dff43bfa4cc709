"""Composites and the colours of pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fireseg.plots.style import (
    ERROR_COLOURS,
    UNLABELLED,
    choose_composite,
    colour_classes,
    colour_errors,
    encode_errors,
    render_composite,
)
from tests.plots.builders import DEL, GRA, SEVEN, rgb


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
def test_the_best_available_composite_is_chosen_and_named(bands: tuple[str, ...], shown: tuple[str, ...]):
    composite = choose_composite(bands)
    assert composite.bands == shown
    assert " ".join(shown) in composite.caption


def test_a_composite_selects_bands_by_name():
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


def test_a_reflectance_has_the_same_shade_in_every_picture():
    dark, bright = torch.full((7, 4, 4), 0.1), torch.full((7, 4, 4), 0.1)
    bright[:, 2:] = 1.3
    assert (render_composite(dark, SEVEN)[:2] == render_composite(bright, SEVEN)[:2]).all()
    assert (render_composite(bright, SEVEN)[2:] == 255).all()


def test_a_pixel_that_is_not_finite_is_grey():
    image = np.full((7, 1, 3), 0.1, np.float32)
    image[6, 0, 0], image[4, 0, 1] = np.nan, np.inf
    picture = render_composite(image, SEVEN)
    assert picture[0, :2].tolist() == [[128, 128, 128]] * 2
    assert picture[0, 2].tolist() == render_composite(np.full((7, 1, 1), 0.1), SEVEN)[0, 0].tolist()


@given(arrays.arrays(np.float32, (2, 3, 4), elements=st.floats(width=32)))
def test_any_float_is_rendered(image: np.ndarray):
    picture = render_composite(image, ("B08", "B04"))
    assert picture.shape == (3, 4, 3)
    assert picture.dtype == np.uint8


def test_classes_have_the_colours_of_the_task():
    mask = torch.tensor([[0, 1], [3, 4]], dtype=torch.uint8)
    expected = [[rgb(GRA.colours[value]) for value in row] for row in mask.tolist()]
    assert colour_classes(mask, GRA).tolist() == expected


def test_unlabelled_pixels_are_striped_in_colours_of_no_class():
    picture = colour_classes(np.full((2, 2), 255, np.uint8), GRA)
    light, dark = map(rgb, UNLABELLED)
    assert picture.tolist() == [[light, dark], [dark, light]]
    assert not set(UNLABELLED) & {*GRA.colours, *DEL.colours, *ERROR_COLOURS.values()}


def test_errors_are_coloured_pixel_by_pixel():
    truth, prediction = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 0, 1]])
    picture = colour_errors(truth, prediction, DEL)
    unburned, false_alarm, miss, burned = map(rgb, ERROR_COLOURS.values())
    assert list(ERROR_COLOURS) == ["unburned in both", "false alarm", "miss", "burned in both"]
    assert picture.tolist() == [[unburned, false_alarm, miss, burned]]


def test_errors_ignore_the_grade():
    assert encode_errors(np.array([[4, 1, 0]]), np.array([[1, 0, 3]]), GRA).tolist() == [[3, 2, 1]]


def test_unlabelled_pixels_are_no_errors():
    truth = np.array([[255, 255]], np.uint8)
    assert encode_errors(truth, np.array([[0, 1]]), DEL).tolist() == [[255, 255]]
    assert colour_errors(truth, np.array([[0, 1]]), DEL).tolist() == [[rgb(colour) for colour in UNLABELLED]]
