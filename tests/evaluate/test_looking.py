"""Which fires are looked at."""

from __future__ import annotations

import math

import numpy as np

from fireseg.evaluate.fires import Fire, PatchPosition
from fireseg.evaluate.mosaic import assemble_mosaics
from fireseg.evaluate.report import PreviewSelection, make_preview
from tests.evaluate.drawn_fires import draw_fire, see


def test_the_best_and_the_worst_stay():
    gallery = PreviewSelection(2)
    for number in np.random.default_rng(0).permutation(9):
        gallery.add(draw_fire([[1]], [[1.0]], name=f"fire{number}"), np.ones((1, 1), np.uint8), number / 10)

    assert list(gallery.previews) == ["fire8", "fire7", "fire1", "fire0"]


def test_where_nothing_burned_and_nothing_was_found_there_is_nothing_to_see():
    gallery = PreviewSelection()
    gallery.add(draw_fire([[0]], [[-1.0]]), np.zeros((1, 1), np.uint8), math.nan)

    assert gallery.previews == {}


def test_a_look_is_small_and_shows_where_there_is_no_patch():
    fire = Fire(name="T", places=(PatchPosition(0, 0, 0), PatchPosition(1, 0, 400)), height=200, width=600)
    patch = see(np.ones((200, 200)), image=np.full((7, 200, 200), 0.3, np.float32))
    (stitched,) = assemble_mosaics([patch, patch], [fire])

    look = make_preview(stitched, np.ones((200, 600), np.uint8))

    assert look.composite_image.shape == (7, 100, 300)
    assert look.truth.shape == look.predicted.shape == (100, 300)
    assert look.predicted[0, [0, 99, 100, 199, 200]].tolist() == [1, 1, 255, 255, 1]
    assert look.composite_image[0, 0, [99, 100]].tolist() == [np.float32(0.3), 0.0]
