"""Thumbnails of a scene that is passed row by row."""

from __future__ import annotations

import numpy as np
import pytest

from fireseg.predict.quicklook import Thumbnail


@pytest.mark.parametrize("height", [1, 7, 23, 40])
def test_every_nth_pixel_is_kept_in_whatever_pieces_rows_come(height: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 10_000, (height, 45, 3)).astype(np.uint16)
    unknown = rng.random((height, 45)) < 0.2
    classes = rng.integers(0, 3, (height, 45)).astype(np.uint8)
    thumbnail = Thumbnail(height, 45, [2, 0], max_side_px=16)
    assert thumbnail.step == 3
    top = 0
    while top < height:
        rows = slice(top, top + int(rng.integers(1, 9)))
        thumbnail.add_image(top, image[rows], unknown[rows])
        thumbnail.add_classes(top, classes[rows])
        top += len(image[rows])
    expected = np.where(unknown[..., None], np.nan, image / 10_000)[::3, ::3][..., [2, 0]].transpose(2, 0, 1)
    np.testing.assert_allclose(thumbnail.image, expected, rtol=1e-6)
    np.testing.assert_array_equal(thumbnail.classes, classes[::3, ::3])


def test_a_small_scene_is_kept_whole() -> None:
    assert Thumbnail(1000, 20, [0]).step == 1
    assert Thumbnail(1001, 20, [0]).step == 2
