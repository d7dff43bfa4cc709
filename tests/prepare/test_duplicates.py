"""Duplicates: copies are found, different images are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fireseg.prepare.duplicates import (
    CELLS,
    MAX_DISTANCE,
    Fingerprint,
    find_copies,
    find_near_duplicates,
    fingerprint_image,
    have_similar_masks,
)
from tests.prepare.builders import get_real_data

SIZE = 96


def make_image(seed: int, size: int = SIZE) -> np.ndarray:
    """Reflectance of a random mosaic, `(size, size, 3)`."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0.05, 0.35, (12, 12, 3))
    ground = np.kron(coarse, np.ones((size // 12, size // 12, 1)))
    return ground + rng.normal(0, 0.01, ground.shape)


def store(reflectance: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(reflectance, 0, 1) * 10000).astype(np.uint16)


def near_duplicates(*fingerprints: Fingerprint | None) -> list[tuple[int, int]]:
    return [(one, other) for one, other, _ in find_near_duplicates(fingerprints, np.arange(len(fingerprints)))]


def copies(*fingerprints: Fingerprint | None) -> list[tuple[int, int]]:
    return list(find_copies(fingerprints, np.arange(len(fingerprints))))


def test_a_cell_is_the_mean_brightness_of_its_pixels() -> None:
    image = np.zeros((20, 33, 2), np.uint16)
    image[..., 0], image[..., 1] = 100, 300
    image[0, :2] = 1100  # the first cell has 1 row (20 * 1 // 16) and 2 columns (33 * 1 // 16)
    cells = np.frombuffer(fingerprint_image(image).cells, np.int16).reshape(CELLS, CELLS)
    assert cells[0, 0] == 1100
    assert (cells.ravel()[1:] == 200).all()


def test_values_of_unknown_pixels_do_not_matter() -> None:
    image, unknown = store(make_image(0)), np.zeros((SIZE, SIZE), bool)
    unknown[:, :15] = True
    other = image.copy()
    other[unknown] = 9999
    assert fingerprint_image(image, unknown) == fingerprint_image(other, unknown)
    cells = np.frombuffer(fingerprint_image(image, unknown).cells, np.int16).reshape(CELLS, CELLS)
    assert (cells[:, :2] == -1).all()
    assert cells[0, 2] == pytest.approx(image[:6, 15:18].mean(), abs=0.51)
    assert other[0, 0, 0] == 9999, "the input must not change"


def test_a_cell_of_the_mask_is_the_burned_share_of_its_labelled_pixels() -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[:2, :2] = [[1, 0], [255, 255]]
    mask[-2:, -2:] = 4
    burned = np.frombuffer(fingerprint_image(store(make_image(0))[:32, :32], None, mask).burned, np.uint8)
    assert (burned[0], burned[1], burned[-1]) == (100, 0, 200)


def test_only_exactly_the_same_pixels_are_copies() -> None:
    image = store(make_image(0))
    other = image.copy()
    other[5, 5, 0] += 1
    assert copies(fingerprint_image(image), fingerprint_image(other), None, fingerprint_image(image.copy())) == [(0, 3)]


def test_the_same_values_in_another_shape_are_no_copy() -> None:
    image = store(make_image(0))
    assert copies(fingerprint_image(image), fingerprint_image(image.reshape(SIZE // 2, SIZE * 2, 3))) == []


def test_copies_within_a_group_are_not_reported() -> None:
    fingerprint = fingerprint_image(store(make_image(0)))
    groups = np.array([1, 1, 2])
    assert list(find_copies([fingerprint] * 3, groups)) == [(0, 2), (1, 2)]
    assert [pair[:2] for pair in find_near_duplicates([fingerprint] * 3, groups)] == [(0, 2), (1, 2)]


@pytest.mark.parametrize(
    ("change", "copy"),
    [
        ("8 bits", lambda a: np.rint(a * 255) / 255),
        ("an offset", lambda a: a + 0.1),
        ("a gain", lambda a: a * 0.5),
        ("noise", lambda a: a + np.random.default_rng(9).normal(0, 0.02, a.shape)),
        ("half the size", lambda a: a.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean((1, 3))),
    ],
)
def test_a_changed_copy_is_a_near_duplicate(change: str, copy) -> None:
    image = make_image(1)
    assert near_duplicates(
        fingerprint_image(store(image)), fingerprint_image(store(make_image(2))), fingerprint_image(store(copy(image)))
    ) == [(0, 2)], change


def test_a_copy_with_more_unknown_pixels_is_a_near_duplicate() -> None:
    image, unknown = store(make_image(1)), np.zeros((SIZE, SIZE), bool)
    unknown[:30, :10] = True
    assert near_duplicates(fingerprint_image(image), fingerprint_image(image, unknown)) == [(0, 1)]


def test_two_hundred_images_are_all_different() -> None:
    assert near_duplicates(*(fingerprint_image(store(make_image(seed))) for seed in range(200))) == []


def test_land_on_the_left_and_sea_on_the_right_is_no_duplicate() -> None:
    def coast(seed: int) -> Fingerprint:
        image = make_image(seed)
        image[:, SIZE // 2 :] = 0.02
        return fingerprint_image(store(image))

    assert near_duplicates(*(coast(seed) for seed in range(50))) == []


def test_the_same_wedge_without_data_is_no_duplicate() -> None:
    wedge = np.tri(SIZE, dtype=bool)
    assert near_duplicates(*(fingerprint_image(store(make_image(seed)), wedge) for seed in range(50))) == []


@pytest.mark.parametrize("gradient", [0.0, 0.01, 0.1, 0.3])
@pytest.mark.parametrize(
    ("surface", "reflectance", "texture", "noise"), [("water", 0.03, 0.0005, 0.003), ("closed cloud", 0.6, 0.03, 0.02)]
)
def test_open_water_and_closed_cloud_with_a_common_brightness_gradient_are_no_duplicates(
    surface: str, reflectance: float, texture: float, noise: float, gradient: float
) -> None:
    def scene(seed: int) -> Fingerprint:
        rng = np.random.default_rng(seed)
        clouds = gaussian_filter(rng.normal(0, 1, (192, 192)), 12)
        image = reflectance + texture * clouds / clouds.std() + np.linspace(0, gradient, 192)
        return fingerprint_image(store(image[..., None] + rng.normal(0, noise, (192, 192, 3))))

    assert near_duplicates(*(scene(seed) for seed in range(20))) == [], surface


def test_images_without_detail_or_data_are_no_duplicates() -> None:
    flat, unknown = np.full((SIZE, SIZE, 3), 800, np.uint16), np.ones((SIZE, SIZE), bool)
    small = np.full((8, 8, 3), 5, np.uint16)
    mostly_unknown = unknown.copy()
    mostly_unknown[:20, :20] = False
    image = store(make_image(0))
    noise = store(0.02 + np.random.default_rng(0).normal(0, 0.001, image.shape))
    fingerprints = [
        fingerprint_image(flat),
        fingerprint_image(image, unknown),
        fingerprint_image(small),
        fingerprint_image(image, mostly_unknown),
        fingerprint_image(noise),
        None,
    ]
    assert near_duplicates(*fingerprints, *fingerprints) == []
    assert copies(fingerprint_image(image, unknown), fingerprint_image(flat, unknown)) == []
    assert near_duplicates() == []


def test_masks_are_similar_if_their_burned_shares_are() -> None:
    image, mask = store(make_image(0)), np.zeros((SIZE, SIZE), np.uint8)
    mask[20:60, 20:60] = 1
    moved = np.roll(mask, 30, axis=0)
    one, same, other = (fingerprint_image(image, None, each) for each in (mask, mask * 3, moved))
    assert have_similar_masks(one, same) is True
    assert have_similar_masks(one, other) is False
    assert have_similar_masks(one, fingerprint_image(image)) is None


def hide_fifth(image: np.ndarray, form: str) -> np.ndarray:
    """Marks 20 % of the pixels as unknown: a corner, as at the edge of a swath, or scattered squares."""
    height, width = image.shape[:2]
    if form == "corner":
        distance = np.arange(height)[:, None] / height + np.arange(width) / width
        return distance <= np.quantile(distance, 0.2)
    squares = np.random.default_rng(1).random((height // 16 + 1, width // 16 + 1)) < 0.2
    return np.kron(squares, np.ones((16, 16), bool))[:height, :width]


@pytest.mark.real
def test_copies_of_real_fires_are_found_and_different_fires_are_not() -> None:
    import rasterio

    rng = np.random.default_rng(0)
    images = []
    for path in sorted((get_real_data() / "california").glob("*/*/*_S2L2A.tif")):
        with rasterio.open(path) as raster:
            images.append(np.nan_to_num(raster.read().transpose(1, 2, 0)))
    assert len(images) == 12
    for image in images:
        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        halved = image[:height, :width].reshape(height // 2, 2, width // 2, 2, -1).mean((1, 3))
        changed = [image + 0.1, image * 0.5, image * 2, image + rng.normal(0, 0.02, image.shape), halved, image[2:, 2:]]
        copies = [fingerprint_image(store(copy)) for copy in [np.rint(image * 255) / 255, *changed]]
        copies += [fingerprint_image(store(image), hide_fifth(image, form)) for form in ("corner", "squares")]
        original = fingerprint_image(store(image))
        distances = [find_near_duplicates([original, copy], np.arange(2)) for copy in copies]
        assert all(distances)
        assert max(pair[0][2] for pair in distances) < MAX_DISTANCE - 0.1
    assert near_duplicates(*(fingerprint_image(store(image)) for image in images)) == []
