"""Spectral indices: formulas, ranges, and values that are always finite."""

from __future__ import annotations

import numpy as np
import pytest
import spyndex
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fireseg.data.bands import SENTINEL2_BANDS
from fireseg.indices import INDICES, append_indices, check_indices, compute_index, find_missing_bands
from fireseg.pairs import add_pre_bands

BANDS = ("B02", "B03", "B04", "B06", "B07", "B08", "B8A", "B11", "B12")
ALL_BANDS = add_pre_bands(BANDS)
PAIR = ("B08", "B12", "B08_PRE", "B12_PRE")
OF_CHANGE = ("dNBR", "RdNBR", "RBR")
SPYNDEX = dict(zip(BANDS, ("B", "G", "R", "RE2", "RE3", "N", "N2", "S1", "S2"), strict=True))
CHAR_SOIL = (0.044, 0.052, 0.064, 0.078, 0.082, 0.086, 0.090, 0.231, 0.302)


def fill(*spectra: tuple[float, ...]) -> torch.Tensor:
    """Returns an image of one row with a pixel for each spectrum, `(1, C, 1, n)`."""
    return torch.tensor(spectra).T[None, :, None]


@pytest.mark.parametrize("name", [name for name in INDICES if name not in OF_CHANGE])
def test_the_values_are_those_of_spyndex_within_the_range(name: str) -> None:
    image = np.random.default_rng(0).uniform(0.01, 0.6, (1, len(BANDS), 50, 50)).astype(np.float32)
    image[..., 0] = np.array(CHAR_SOIL, np.float32)[:, None]
    parameters = {SPYNDEX[band]: image[:, number].astype(np.float64) for number, band in enumerate(BANDS)}
    needed = {parameter: parameters[parameter] for parameter in spyndex.indices[name].bands}
    expected = np.clip(spyndex.computeIndex(name, needed), INDICES[name].low, INDICES[name].high)
    found = compute_index(name, torch.from_numpy(image), BANDS).numpy()
    assert found.shape == (1, 50, 50)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-6)
    assert len(np.unique(found[..., 1:])) > 1000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NBR", (0.086 - 0.302) / (0.086 + 0.302)),
        ("NDVI", (0.086 - 0.064) / (0.086 + 0.064)),
        ("BAI", 1 / (0.036**2 + 0.026**2)),
        ("MIRBI", 3.02 - 2.2638 + 2),
        ("BAIS2", (1 - (0.078 * 0.082 * 0.090 / 0.064) ** 0.5) * (0.212 / 0.392**0.5 + 1)),
    ],
)
def test_values_worked_out_by_hand(name: str, value: float) -> None:
    assert compute_index(name, fill(CHAR_SOIL), BANDS).item() == pytest.approx(value, rel=1e-5)


# NBR is 0.6 before the fire, and -0.2 after it: dNBR 0.8.
@pytest.mark.parametrize(("name", "value"), [("dNBR", 0.8), ("RdNBR", 0.8 / 0.6**0.5), ("RBR", 0.8 / (0.6 + 1.001))])
def test_indices_of_change_worked_out_by_hand(name: str, value: float) -> None:
    image = fill((0.2, 0.3, 0.4, 0.1))
    assert compute_index(name, image, PAIR).item() == pytest.approx(value, rel=1e-5)
    assert compute_index(name, image[:, [0, 1, 0, 1]], PAIR).item() == 0


def test_relative_change_is_finite_where_nbr_was_0() -> None:
    image = fill((0.2, 0.20004, 0.1, 0.1))  # NBR falls from 0 to -0.0001
    assert compute_index("RdNBR", image, PAIR).item() == pytest.approx(0.0001 / 0.001**0.5, rel=1e-2)
    assert compute_index("RdNBR", fill((0.1, 0.3, 0.1, 0.1)), PAIR).item() == 2.0


def test_near_infrared_is_band_8_and_8a_only_without_it() -> None:
    image = fill((0.3, 0.2, 0.1))
    assert compute_index("NBR", image, ("B08", "B8A", "B12")).item() == pytest.approx(0.5)
    assert compute_index("NBR", image[:, 1:], ("B8A", "B12")).item() == pytest.approx(1 / 3)


@given(
    arrays.arrays(
        np.float32,
        (1, len(ALL_BANDS), 2, 3),
        elements=st.one_of(st.sampled_from([0.0, 1e-7, 1e-4, 0.06, 0.1, 1.0]), st.floats(-0.25, 2, width=32)),
    )
)
def test_every_index_is_finite_and_within_its_range_for_any_reflectance(image: np.ndarray) -> None:
    for name, index in INDICES.items():
        values = compute_index(name, torch.from_numpy(image), ALL_BANDS)
        assert torch.isfinite(values).all()
        assert index.low <= values.min()
        assert values.max() <= index.high


def test_indices_follow_the_bands_and_are_normalised_by_their_constants() -> None:
    image = fill((0.2, 0.1))
    channels = append_indices(image * 2, image, bands=("B08", "B12"), names=("NBR",))
    assert channels.flatten().tolist() == pytest.approx([0.4, 0.2, (1 / 3 - 0.0) / 0.3])
    assert append_indices(image, image, bands=("B08", "B12"), names=()) is image


def test_an_unknown_pixel_has_the_mean_of_every_index() -> None:
    image = fill((0.0,) * len(ALL_BANDS), CHAR_SOIL * 2)
    channels = append_indices(image, image, bands=ALL_BANDS, names=tuple(INDICES))
    assert not channels[0, len(ALL_BANDS) :, 0, 0].any()
    assert channels[0, len(ALL_BANDS) :, 0, 1].all()


def test_autocast_does_not_change_the_values() -> None:
    image = torch.rand(1, len(ALL_BANDS), 8, 8)
    expected = append_indices(image, image, bands=ALL_BANDS, names=tuple(INDICES))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(append_indices(image, image, bands=ALL_BANDS, names=tuple(INDICES)), expected)


def test_unknown_and_repeated_names_are_one_error_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"'NBRR' \(did you mean 'NBR'\?\); NDVI is repeated; use NBR, NBR2"):
        check_indices(("NBRR", "NDVI", "NDVI"))
    assert check_indices(("NDVI", "NBR")) == ("NDVI", "NBR")


def test_missing_bands_are_named_for_each_index() -> None:
    bands = ("B02", "B04", "B12")
    assert find_missing_bands(["NBR", "BAIS2", "MIRBI"], bands) == [
        "NBR needs B08 or B8A",
        "BAIS2 needs B06 and B07 and B8A",
        "MIRBI needs B11",
    ]
    assert find_missing_bands(INDICES, add_pre_bands(SENTINEL2_BANDS)) == []
