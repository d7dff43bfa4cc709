"""Synthetic landscapes: material fractions."""

from __future__ import annotations

import numpy as np

from fireseg.synthetic.landscape import draw_sun, make_landscape
from fireseg.synthetic.noise import NoiseGenerator


def test_material_fractions_add_up_to_1() -> None:
    for number in range(6):
        landscape = make_landscape(NoiseGenerator((0, number), 64, 64), draw_sun(NoiseGenerator((1, number), 64, 64)))
        np.testing.assert_allclose(sum(landscape.fractions.values()), 1.0)
        assert all(fraction.min() > -1e-9 for fraction in landscape.fractions.values())
