"""The spectra are physical, and a scene's own stay near their kind."""

from __future__ import annotations

import numpy as np
import pytest

from fireseg.data.bands import CEMS_BANDS
from fireseg.synthetic.scene import WAVELENGTH_NM, read_spectra, vary_spectra

NEAR, SHORT_WAVE = CEMS_BANDS.index("B08"), CEMS_BANDS.index("B12")


def burn_ratio(spectrum: np.ndarray) -> float:
    return (spectrum[NEAR] - spectrum[SHORT_WAVE]) / (spectrum[NEAR] + spectrum[SHORT_WAVE])


def test_every_material_has_a_reflectance_in_every_band() -> None:
    for spectrum in read_spectra().values():
        assert spectrum.shape == (12,)
        assert spectrum.min() >= 0
        assert spectrum.max() < 1


def test_the_table_holds_the_numbers_of_the_library() -> None:
    np.testing.assert_allclose(
        read_spectra()["char"], [0.022, 0.023, 0.024, 0.027, 0.029, 0.032, 0.035, 0.038, 0.040, 0.049, 0.158, 0.207]
    )


@pytest.mark.parametrize("name", ["char", "char_soil", "ash"])
def test_what_fire_leaves_is_brighter_in_the_short_wave_infrared_than_in_the_near(name: str) -> None:
    assert burn_ratio(read_spectra()[name]) < -0.3


@pytest.mark.parametrize("name", ["canopy_dense", "canopy_mid", "canopy_open"])
def test_leaves_have_a_red_edge(name: str) -> None:
    spectrum = read_spectra()[name]
    assert spectrum[CEMS_BANDS.index("B07")] > 3 * spectrum[CEMS_BANDS.index("B04")]
    assert burn_ratio(spectrum) > 0.4


def test_wavelengths_rise_in_the_order_of_the_bands() -> None:
    assert tuple(WAVELENGTH_NM) == CEMS_BANDS
    assert sorted(WAVELENGTH_NM.values()) == list(WAVELENGTH_NM.values())


def test_a_scene_varies_each_material_by_a_seventh_or_so() -> None:
    rng = np.random.default_rng(0)
    factors = [vary_spectra(rng)["soil_mid"] / read_spectra()["soil_mid"] for _ in range(300)]
    assert np.std(np.log(factors), axis=0).max() < 0.25
    assert np.std(np.log(factors), axis=0).min() > 0.10
