"""Tests of reflectance relative to its scene: the scaling by hand, tiles from patches, and batches of the module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fireseg.data import WildfireDataModule
from fireseg.data.bands import BAND_NAMES
from fireseg.data.reader import open_split
from fireseg.data.scene_normalisation import SceneScaling, compute_scaling, compute_split_scalings, get_reference
from fireseg.errors import FiresegError
from fireseg.runtime.inference import ArrayRaster, measure_scene


def draw_tile(seed: int, *, gain: float = 1.0, offset: float = 0.0, size: int = 80) -> np.ndarray:
    """Draws a tile of seven bands in steps of 0.0001, with a corner where nothing was measured."""
    image = np.random.default_rng(seed).uniform(0.05, 0.3, (size, size, 7)) * gain + offset
    image[:20, :20] = 0
    return (np.rint(image * 10_000) / 10_000).astype(np.float32)


def write_patches(folder: Path, name: str, tile: np.ndarray, size: int = 48, step: int = 32) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for row in range(0, tile.shape[0] - size + 1, step):
        for col in range(0, tile.shape[1] - size + 1, step):
            mask = np.zeros((size, size), np.uint8)
            mask[:, :10] = 1
            np.save(folder / f"{name}_r{row}_c{col}_image.npy", tile[row : row + size, col : col + size])
            np.save(folder / f"{name}_r{row}_c{col}_mask.npy", mask)


def test_median_and_interquartile_range_become_those_of_the_reference() -> None:
    # Quartiles 0.2, 0.3 and 0.4; the reference of B08 is a median of 0.25 and a range of 0.09.
    pixels = np.linspace(0.1, 0.5, 101, dtype=np.float32)[:, None]
    scaling = compute_scaling(pixels, ["B08"])
    np.testing.assert_allclose(scaling.gains, [0.45], rtol=1e-6)
    np.testing.assert_allclose(scaling.offsets, [0.25 - 0.45 * 0.3], rtol=1e-6)
    np.testing.assert_allclose(
        scaling.apply(np.array([[0.3], [0.4], [9.0]], np.float32)), [[0.25], [0.295], [1.0]], rtol=1e-6
    )
    # The scene before the fire has the reference of the same band.
    assert compute_scaling(pixels, ["B08_PRE"]) == scaling
    mean, std = get_reference(["B08"])
    assert mean == (0.25,)
    assert std == pytest.approx([0.09 / 1.349])


def test_a_flat_scene_is_stretched_at_most_five_times_and_a_few_pixels_are_left_as_they_are() -> None:
    flat = np.full((1000, 1), 0.02, np.float32)
    np.testing.assert_allclose(compute_scaling(flat, ["B08"]), ([5.0], [0.25 - 5 * 0.02]), rtol=1e-6)
    few = compute_scaling(np.random.default_rng(0).uniform(0, 1, (63, 1)).astype(np.float32), ["B08"])
    np.testing.assert_array_equal(few, ([1.0], [0.0]))


def test_overlapping_patches_give_the_scaling_of_the_tile_that_prediction_measures(tmp_path: Path) -> None:
    tiles = {"T": draw_tile(1), "U": draw_tile(2, gain=0.5)}
    for name, tile in tiles.items():
        write_patches(tmp_path / "train", name, tile)
    reader = open_split(tmp_path / "train")
    scalings = compute_split_scalings(reader, BAND_NAMES)
    for name, scaling in zip(reader.names, scalings, strict=True):
        stored = np.rint(tiles[name[0]] * 10_000).astype(np.uint16)
        raster = ArrayRaster(bands=BAND_NAMES, image=stored, unknown=np.zeros(stored.shape[:2], bool))
        np.testing.assert_array_equal(scaling, measure_scene(raster))
        known = tiles[name[0]][(tiles[name[0]] != 0).any(-1)]
        np.testing.assert_array_equal(scaling, compute_scaling(known, BAND_NAMES))


def test_patches_that_are_numbered_instead_of_placed_count_whole(tmp_path: Path) -> None:
    tile = draw_tile(1, size=96)
    for number in range(3):
        np.save(tmp_path / f"T_r0_c{number}_image.npy", tile[:, 32 * number : 32 * number + 32][:32])
        np.save(tmp_path / f"T_r0_c{number}_mask.npy", np.zeros((32, 32), np.uint8))
    pixels = tile[:32].reshape(-1, 7)
    expected = compute_scaling(pixels[(pixels != 0).any(-1)], BAND_NAMES)
    for scaling in compute_split_scalings(open_split(tmp_path), BAND_NAMES):
        np.testing.assert_array_equal(scaling, expected)


def test_another_illumination_of_the_same_scene_gives_the_same_batches(tmp_path: Path) -> None:
    batches = []
    for number, (gain, offset) in enumerate([(1.0, 0.0), (1.3, 0.02)]):
        root = tmp_path / str(number)
        write_patches(root / "train", "T", draw_tile(1, gain=gain, offset=offset))
        write_patches(root / "val", "V", draw_tile(2))
        data = WildfireDataModule(root, 4, normalisation="scene")
        data.setup()
        assert (data.mean, data.std) == get_reference(BAND_NAMES)
        known = torch.from_numpy(data.train.patches.read(3)[0].any(-1))
        batches.append(next(iter(data.train_dataloader(1))).image)
        assert data.train[3].image[:, known].median() == pytest.approx(0.2, abs=0.1)
    is_known = (batches[0] != batches[0][:, :, :1, :1]).any(1, keepdim=True).expand_as(batches[0])
    torch.testing.assert_close(batches[1][is_known], batches[0][is_known], atol=2e-3, rtol=0)


def test_patches_without_a_tile_are_refused_with_the_cure(tmp_path: Path) -> None:
    np.save(tmp_path / "lake_image.npy", draw_tile(1, size=32))
    np.save(tmp_path / "lake_mask.npy", np.zeros((32, 32), np.uint8))
    with pytest.raises(FiresegError, match=r"the tile of the patch lake .*or use data\.normalisation=dataset"):
        compute_split_scalings(open_split(tmp_path), BAND_NAMES)


def test_a_scaling_leaves_its_input_as_it_is() -> None:
    image = np.full((2, 2, 1), 0.5, np.float32)
    SceneScaling(np.array([2], np.float32), np.array([0], np.float32)).apply(image)
    assert (image == 0.5).all()
