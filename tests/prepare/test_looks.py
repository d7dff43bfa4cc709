"""Copies of a picture are known again; other pictures are not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fireseg.prepare.duplicates import (
    CELLS,
    LEAST_CORRELATION,
    Fingerprint,
    find_copies,
    find_near_duplicates,
    fingerprint_image,
    have_similar_masks,
)

SIZE = 96


def picture(seed: int, size: int = SIZE) -> np.ndarray:
    """Reflectance of smooth random ground, `(size, size, 3)`."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0.05, 0.35, (12, 12, 3))
    ground = np.kron(coarse, np.ones((size // 12, size // 12, 1)))
    return ground + rng.normal(0, 0.01, ground.shape)


def store(reflectance: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(reflectance, 0, 1) * 10000).astype(np.uint16)


def alike(*looks: Fingerprint | None) -> list[tuple[int, int]]:
    return [(one, other) for one, other, _ in find_near_duplicates(looks, np.arange(len(looks)))]


def copies(*looks: Fingerprint | None) -> list[tuple[int, int]]:
    return list(find_copies(looks, np.arange(len(looks))))


def test_a_cell_is_the_mean_brightness_of_its_pixels() -> None:
    image = np.zeros((20, 33, 2), np.uint16)
    image[..., 0], image[..., 1] = 100, 300
    image[0, :2] = 1100  # the first cell has 1 row (20 * 1 // 16) and 2 columns (33 * 1 // 16)
    cells = np.frombuffer(fingerprint_image(image).cells, np.int16).reshape(CELLS, CELLS)
    assert cells[0, 0] == 1100
    assert (cells.ravel()[1:] == 200).all()


def test_unknown_pixels_count_for_nothing_whatever_they_hold() -> None:
    image, unknown = store(picture(0)), np.zeros((SIZE, SIZE), bool)
    unknown[:, :15] = True
    other = image.copy()
    other[unknown] = 9999
    assert fingerprint_image(image, unknown) == fingerprint_image(other, unknown)
    cells = np.frombuffer(fingerprint_image(image, unknown).cells, np.int16).reshape(CELLS, CELLS)
    assert (cells[:, :2] == -1).all()
    assert cells[0, 2] == pytest.approx(image[:6, 15:18].mean(), abs=0.51)
    assert other[0, 0, 0] == 9999, "what came in must stay as it was"


def test_a_cell_of_the_mask_is_the_burned_share_of_its_labelled_pixels() -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[:2, :2] = [[1, 0], [255, 255]]
    mask[-2:, -2:] = 4
    burned = np.frombuffer(fingerprint_image(store(picture(0))[:32, :32], None, mask).burned, np.uint8)
    assert (burned[0], burned[1], burned[-1]) == (100, 0, 200)


def test_the_same_pixels_are_copies_and_one_other_pixel_is_none() -> None:
    image = store(picture(0))
    other = image.copy()
    other[5, 5, 0] += 1
    assert copies(fingerprint_image(image), fingerprint_image(other), None, fingerprint_image(image.copy())) == [(0, 3)]


def test_the_same_numbers_in_another_shape_are_no_copy() -> None:
    image = store(picture(0))
    assert copies(fingerprint_image(image), fingerprint_image(image.reshape(SIZE // 2, SIZE * 2, 3))) == []


def test_copies_within_a_group_are_not_told() -> None:
    look = fingerprint_image(store(picture(0)))
    groups = np.array([1, 1, 2])
    assert list(find_copies([look] * 3, groups)) == [(0, 2), (1, 2)]
    assert [pair[:2] for pair in find_near_duplicates([look] * 3, groups)] == [(0, 2), (1, 2)]


@pytest.mark.parametrize(
    ("how", "copy"),
    [
        ("8 bits", lambda a: np.rint(a * 255) / 255),
        ("a forgotten offset", lambda a: a + 0.1),
        ("a gain", lambda a: a * 0.5),
        ("noise", lambda a: a + np.random.default_rng(9).normal(0, 0.02, a.shape)),
        ("half the size", lambda a: a.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean((1, 3))),
    ],
)
def test_a_copy_saved_in_another_way_is_near_identical(how: str, copy) -> None:
    image = picture(1)
    assert alike(
        fingerprint_image(store(image)), fingerprint_image(store(picture(2))), fingerprint_image(store(copy(image)))
    ) == [(0, 2)], how


def test_a_copy_with_more_unknown_pixels_is_near_identical() -> None:
    image, unknown = store(picture(1)), np.zeros((SIZE, SIZE), bool)
    unknown[:30, :10] = True
    assert alike(fingerprint_image(image), fingerprint_image(image, unknown)) == [(0, 1)]


def test_two_hundred_pictures_are_all_different() -> None:
    assert alike(*(fingerprint_image(store(picture(seed))) for seed in range(200))) == []


def test_land_to_the_left_and_sea_to_the_right_is_not_enough_to_be_alike() -> None:
    def coast(seed: int) -> Fingerprint:
        image = picture(seed)
        image[:, SIZE // 2 :] = 0.02
        return fingerprint_image(store(image))

    assert alike(*(coast(seed) for seed in range(50))) == []


def test_a_common_wedge_of_nothing_does_not_make_pictures_alike() -> None:
    wedge = np.tri(SIZE, dtype=bool)
    assert alike(*(fingerprint_image(store(picture(seed)), wedge) for seed in range(50))) == []


def test_pictures_without_content_are_like_nothing() -> None:
    flat, black = np.full((SIZE, SIZE, 3), 800, np.uint16), np.ones((SIZE, SIZE), bool)
    small = np.full((8, 8, 3), 5, np.uint16)
    mostly = black.copy()
    mostly[:20, :20] = False
    image = store(picture(0))
    noise = store(0.02 + np.random.default_rng(0).normal(0, 0.001, image.shape))
    looks = [
        fingerprint_image(flat),
        fingerprint_image(image, black),
        fingerprint_image(small),
        fingerprint_image(image, mostly),
        fingerprint_image(noise),
        None,
    ]
    assert alike(*looks, *looks) == []
    assert copies(fingerprint_image(image, black), fingerprint_image(flat, black)) == []
    assert alike() == []


def test_masks_are_alike_when_their_burned_shares_are() -> None:
    image, mask = store(picture(0)), np.zeros((SIZE, SIZE), np.uint8)
    mask[20:60, 20:60] = 1
    moved = np.roll(mask, 30, axis=0)
    one, same, other = (fingerprint_image(image, None, each) for each in (mask, mask * 3, moved))
    assert have_similar_masks(one, same) is True
    assert have_similar_masks(one, other) is False
    assert have_similar_masks(one, fingerprint_image(image)) is None


@pytest.mark.real
def test_real_fires_are_alike_to_their_shifted_copies_and_to_no_other_fire() -> None:
    root = os.environ.get("FIRESEG_REAL_DATA")
    if not root:
        pytest.skip("FIRESEG_REAL_DATA is not set")
    import rasterio

    images = []
    for path in sorted((Path(root) / "california").glob("*/*/*_S2L2A.tif")):
        with rasterio.open(path) as raster:
            images.append(raster.read().transpose(1, 2, 0))
    assert len(images) == 12
    looks = [fingerprint_image(store(image)) for image in images]
    shifted = [fingerprint_image(store(image[1:, 1:] + 0.1)) for image in images]
    found = find_near_duplicates(looks + shifted, np.arange(24))
    assert [(one, other) for one, other, _ in found] == [(place, place + 12) for place in range(12)]
    assert min(likeness for _, _, likeness in found) > LEAST_CORRELATION + 0.04
