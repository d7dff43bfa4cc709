"""FLOGA and CaBuAr: HDF5 files of their published layouts as tiles, and the patches that prepare cuts from them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import rasterio

from fireseg.data.bands import CEMS_BANDS
from fireseg.errors import FiresegError
from fireseg.prepare.options import PrepareOptions, TilingOptions
from fireseg.prepare.pipeline import prepare
from fireseg.tiles.options import LabelOptions
from fireseg.tiles.reader import Tile, find_tiles, read_tile
from scripts.convert_hdf5 import FLOGA_BANDS, convert
from tests.scripts.builders import ROOT

POST = "S2A_MSIL2A_20170916T092031_N0205_R093_T34SEG_20170916T092843"
PRE = "S2A_MSIL2A_20170628T092031_N0205_R093_T34SEG_20170628T092815"
SHAPE = (40, 50)


def make_numbers(seed: int, channels: int) -> np.ndarray:
    """Makes digital numbers `(C, H, W)`: channel k has 1000 + 100 k and a number from 0 to 999 more in each pixel."""
    steps = np.random.default_rng(seed).integers(0, 1000, (1, *SHAPE))
    steps[0, :4] = -950  # shadow and water: dark ground tells that no offset is left in the numbers
    return 1000 + 100 * np.arange(channels)[:, None, None] + steps


def make_mask() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, :20] = 1
    return mask


def write_array(group: h5py.Group, name: str, values: Any) -> None:
    group.create_dataset(name, data=values, **hdf5plugin.BZip2())


def add_floga(file: h5py.File, event: str = "2017/0", *, pixel_m: int = 20, seed: int = 0, tile: str = "T34SEG") -> Any:
    group = file.create_group(event)
    for number, (when, product) in enumerate({"post": POST, "pre": PRE}.items()):
        numbers = make_numbers(seed + 10 * number, len(FLOGA_BANDS[pixel_m])).astype(np.int32)
        write_array(group, f"sen2_{pixel_m}_{when}", numbers)
        write_array(group, f"sen2_{pixel_m}_cloud_{when}", np.full((1, *SHAPE), 4, np.uint8))
        write_array(group, f"mod_500_{when}", np.zeros((7, *SHAPE), np.int16))
        group.attrs[f"{when}_sen2_file"] = product.replace("T34SEG", tile)
        group.attrs[f"{when}_image_date"] = product[11:19]
    mask = make_mask()
    mask[-1] = 2
    write_array(group, "label", mask[None])
    write_array(group, "sea_mask", np.zeros((1, *SHAPE), np.uint8))
    return group


def add_cabuar(file: h5py.File, path: str = "a1b2_0", *, seed: int = 0, fold: Any = 0, pre: bool = True) -> Any:
    group = file.create_group(path)
    if "/" not in path:
        group.attrs["fold"] = fold
    for number, name in enumerate(("post_fire", "pre_fire") if pre else ("post_fire",)):
        write_array(group, name, np.moveaxis(make_numbers(seed + 10 * number, 12), 0, 2).astype(np.uint16))
    write_array(group, "mask", make_mask()[..., None].astype(np.uint16))
    return group


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Writes an HDF5 file with the events that a function adds to it."""

    def make(add: Callable[[h5py.File], Any], name: str = "FLOGA_dataset_2017_sen2_20_mod_500.h5") -> Path:
        with h5py.File(tmp_path / name, "w") as file:
            add(file)
        return tmp_path / name

    return make


def read(out: Path, bands: tuple[str, ...], *, pre: bool = True) -> dict[str, Tile]:
    labels = LabelOptions(pre="**/*_PRE.tif" if pre else None)
    search = find_tiles(out, labels)
    assert search.faults == ()
    return {files.name: read_tile(files, bands, labels=labels) for files in search.tiles}


def test_an_event_of_floga_is_a_tile(make: Callable[..., Path], tmp_path: Path) -> None:
    assert convert([make(add_floga)], tmp_path / "out") == {"written": 1, "kept": 0, "single": 0}
    (tile,) = read(tmp_path / "out", ("B02", "B12", "B8A")).values()
    # Bands are in alphabetical order: B02 is channel 0, B12 channel 7 and B8A channel 8.
    np.testing.assert_array_equal(np.moveaxis(tile.image, 2, 0), make_numbers(0, 9)[[0, 7, 8]])
    assert tile.pre is not None
    np.testing.assert_array_equal(np.moveaxis(tile.pre.image, 2, 0), make_numbers(10, 9)[[0, 7, 8]])
    expected = make_mask()
    expected[-1] = 255  # burned by another fire of the year
    np.testing.assert_array_equal(tile.delineation, expected)
    assert tile.cloud is not None
    assert (tile.cloud == 0).all()
    assert tile.date == "2017-09-16T09:20:31Z"
    assert tile.grid.pixel_m == pytest.approx(20, abs=0.001)
    assert tile.flags == ()
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.tif"))
    kinds = ("DEL", "PRE", "PRE_SCL", "S2L2A", "SCL")
    assert files == [f"T34SEG/FLOGA_2017_0_20m_{kind}.tif" for kind in kinds]


@pytest.mark.parametrize("pixel_m", [10, 60])
def test_each_pixel_size_of_floga_has_its_bands(make: Callable[..., Path], pixel_m: int, tmp_path: Path) -> None:
    convert([make(lambda file: add_floga(file, pixel_m=pixel_m))], tmp_path / "out")
    with rasterio.open(tmp_path / f"out/T34SEG/FLOGA_2017_0_{pixel_m}m_S2L2A.tif") as raster:
        assert raster.descriptions == FLOGA_BANDS[pixel_m]
        assert raster.res == (pixel_m, pixel_m)


def test_the_baseline_of_the_product_tells_the_offset(make: Callable[..., Path], tmp_path: Path) -> None:
    def add(file: h5py.File) -> None:
        group = add_floga(file)
        group.attrs["post_sen2_file"] = POST.replace("N0205", "N0500")
        group["sen2_20_post"][...] += 1000

    convert([make(add)], tmp_path / "out")
    (tile,) = read(tmp_path / "out", ("B02",)).values()
    np.testing.assert_array_equal(tile.image[..., 0], make_numbers(0, 9)[0])


@pytest.mark.parametrize("path", ["a1b2_0", "0/a1b2_0"])
def test_a_patch_of_cabuar_is_a_tile(path: str, make: Callable[..., Path], tmp_path: Path) -> None:
    convert([make(lambda file: add_cabuar(file, path), "512x512.hdf5")], tmp_path / "out")
    assert (tmp_path / "out/fold_0/CaBuAr_a1b2_0_S2L2A.tif").is_file()
    (tile,) = read(tmp_path / "out", CEMS_BANDS).values()
    np.testing.assert_array_equal(np.moveaxis(tile.image, 2, 0), make_numbers(0, 12))
    assert tile.pre is not None
    np.testing.assert_array_equal(np.moveaxis(tile.pre.image, 2, 0), make_numbers(10, 12))
    np.testing.assert_array_equal(tile.delineation, make_mask())
    assert (tile.cloud, tile.date) == (None, None)


def test_an_offset_that_cabuar_does_not_tell_is_noticed_and_taken_from_a_json(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    def add(file: h5py.File) -> None:
        group = add_cabuar(file)
        for name in ("post_fire", "pre_fire", "mask"):  # large enough for the darkest pixels to be a proof
            replace(name, np.tile(group[name][...], (2, 2, 1)) + 1000 * (name != "mask"))(group)

    convert([make(add)], tmp_path / "out")
    with pytest.raises(FiresegError, match=r"_S2L2A.tif: .*offset") as error:
        read(tmp_path / "out", CEMS_BANDS)
    assert len(error.value.faults) == 2  # of both scenes
    for name in ("S2L2A", "PRE"):
        (tmp_path / f"out/fold_0/CaBuAr_a1b2_0_{name}.json").write_text('{"BOA_ADD_OFFSET": 1000}')
    (tile,) = read(tmp_path / "out", CEMS_BANDS).values()
    assert tile.pre is not None
    np.testing.assert_array_equal(np.moveaxis(tile.image[:40, :50], 2, 0), make_numbers(0, 12))
    np.testing.assert_array_equal(np.moveaxis(tile.pre.image[:40, :50], 2, 0), make_numbers(10, 12))


def test_a_scene_before_the_fire_that_is_missing_or_empty_is_not_written(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    def add(file: h5py.File) -> None:
        add_cabuar(file, "a_0", fold="chabud", pre=False)
        add_cabuar(file, "a_1", fold="chabud")["pre_fire"][...] = 0
        add_cabuar(file, "b_0", fold=3)

    assert convert([make(add)], tmp_path / "out") == {"written": 3, "kept": 0, "single": 2}
    names = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*_PRE.tif"))
    assert names == ["fold_3/CaBuAr_b_0_PRE.tif"]
    assert len(read(tmp_path / "out", ("B02",), pre=False)) == 3


def test_the_same_command_goes_on_and_no_two_tiles_overlap(make: Callable[..., Path], tmp_path: Path) -> None:
    def add(file: h5py.File) -> None:
        for event in range(3):
            add_floga(file, f"2017/{event}", seed=event)

    first = make(add)
    second = make(lambda file: add_floga(file, "2018/0"), "FLOGA_dataset_2018_sen2_20_mod_500.h5")
    convert([first], tmp_path / "out")
    (tmp_path / "out/T34SEG/FLOGA_2017_2_20m_S2L2A.tif").unlink()  # its masks were written before it was stopped
    assert convert([first, second], tmp_path / "out") == {"written": 2, "kept": 2, "single": 0}
    wests = sorted(tile.grid.bounds_lonlat[0] for tile in read(tmp_path / "out", ("B02",)).values())
    assert np.diff(wests).round(6).tolist() == [2.0] * 3


def remove(name: str) -> Callable[[h5py.Group], None]:
    def change(group: h5py.Group) -> None:
        del group[name]

    return change


def replace(name: str, values: Any) -> Callable[[h5py.Group], None]:
    def change(group: h5py.Group) -> None:
        del group[name]
        group[name] = values

    return change


FLOGA_FAULTS = [
    (remove("label"), r"no label, only .*sen2_20_post.*download it again"),
    (remove("sen2_20_post"), r"no sen2_20_post, only "),
    (replace("label", np.zeros((1, 40, 51), np.uint8)), r"label: 1 x 40 x 51, but the image has 40 x 50 pixels"),
    (replace("label", np.full((1, *SHAPE), 7)), r"label: values 7, but 0, 1, 2 are expected"),
    (replace("sen2_20_cloud_post", np.full((1, *SHAPE), 12)), r"sen2_20_cloud_post: values 12, but 0, 1, 2"),
    (
        replace("sen2_20_post", np.zeros((4, *SHAPE), np.int32)),
        r"sen2_20_post: shape \(4, 40, 50\), but .* with 9 bands",
    ),
    (replace("sen2_20_pre", np.ones((9, 40, 49), np.int32) * 500), r"scenes of 40 x 49 and 40 x 50 pixels"),
    (
        replace("sen2_20_post", np.ones((9, *SHAPE))),
        r"sen2_20_post: float64, but digital numbers are integers of 16 bits",
    ),
    (
        replace("sen2_20_post", np.full((9, *SHAPE), -1)),
        r"sen2_20_post: values -1 to -1, but digital numbers are 0 to 65535",
    ),
    (replace("sen2_20_post", np.full((9, *SHAPE), 200)), r"sen2_20_post: values 200 to 200, .*not normalised ones"),
    (replace("sen2_20_post", h5py.ExternalLink("other.h5", "/x")), r"sen2_20_post: is no array of this file"),
    (
        lambda group: group.attrs.__delitem__("post_sen2_file"),
        r"attribute post_sen2_file is None, but a level-2A product",
    ),
]


@pytest.mark.parametrize(("change", "fault"), FLOGA_FAULTS)
def test_a_faulty_event_is_named_and_the_others_are_written(
    change: Callable[[h5py.Group], None], fault: str, make: Callable[..., Path], tmp_path: Path
) -> None:
    def add(file: h5py.File) -> None:
        change(add_floga(file, "2017/0"))
        add_floga(file, "2017/1")

    with pytest.raises(FiresegError, match=rf"mod_500.h5: /2017/0: ({fault})") as error:
        convert([make(add)], tmp_path / "out")
    assert len(error.value.faults) == 1
    assert list(read(tmp_path / "out", ("B02",))) == ["FLOGA_2017_1_20m"]


@pytest.mark.parametrize(
    ("add", "fault"),
    [
        (lambda file: add_cabuar(file).attrs.__delitem__("fold"), r"/a1b2_0: no attribute fold"),
        (lambda file: remove("mask")(add_cabuar(file)), r"/a1b2_0: no mask, only post_fire, pre_fire"),
        (lambda file: replace("mask", np.full(SHAPE, 2))(add_cabuar(file)), r"/a1b2_0: mask: values 2, but 0, 1 are"),
        (lambda file: add_floga(file, "0"), r"/0: FLOGA has events as /<year>/<event>"),
        (lambda file: write_array(file.create_group("a"), "x", [1]), r"/a: holds x, but FLOGA has .* and CaBuAr"),
        (lambda file: write_array(file, "x", [1]), r"h5: holds x, which is no group"),
        (lambda file: add_cabuar(file, "a b"), r"/a b: 'CaBuAr_a b' is no name for a tile"),
    ],
)
def test_another_layout_is_an_error(add: Any, fault: str, make: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=fault):
        convert([make(add)], tmp_path / "out")


def test_a_tile_that_cannot_be_written_ends_the_conversion(make: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "out/T34SEG/FLOGA_2017_0_20m_SCL.tif").mkdir(parents=True)
    with pytest.raises(FiresegError, match=r"^\S*/out/T34SEG/FLOGA_2017_0_20m_SCL.tif: .*folder") as error:
        convert([make(lambda file: [add_floga(file, f"2017/{event}") for event in range(2)])], tmp_path / "out")
    assert len(error.value.faults) == 1
    assert not list((tmp_path / "out").rglob("*_S2L2A.tif"))


def test_damaged_and_missing_files_are_named(make: Callable[..., Path], tmp_path: Path) -> None:
    path = make(add_floga)
    content = bytearray(path.read_bytes())
    (cut := tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    (text := tmp_path / "text.h5").write_text("not HDF5")
    middle = content.index(b"BZh") + 40  # within the first compressed block
    content[middle : middle + 200] = bytes(200)
    (flipped := tmp_path / "flipped.h5").write_bytes(content)
    with pytest.raises(FiresegError) as error:
        convert([cut, text, tmp_path / "none.h5", flipped], tmp_path / "out")
    starts = [
        f"{cut}: not a complete HDF5 file",
        f"{text}: not a complete HDF5 file",
        f"{tmp_path / 'none.h5'}: no such",
    ]
    starts.append(f"{flipped}: /2017/0: ")
    assert len(error.value.faults) == len(starts)
    for fault, start in zip(error.value.faults, starts, strict=True):
        assert fault.startswith(start)
    assert "cannot be decompressed" in error.value.faults[-1]


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(FiresegError, match=r"hdf5plugin is not installed; .*pip install 'fireseg\[hdf5\]'"):
        convert([tmp_path / "x.h5"], tmp_path / "out")


def test_patches_are_cut_in_pairs_and_a_group_is_in_one_split(make: Callable[..., Path], tmp_path: Path) -> None:
    def add(file: h5py.File) -> None:
        for event in range(6):  # of three granules, two each
            add_floga(file, f"2017/{event}", seed=event, tile=f"T3{event // 2}SEG")

    command = [sys.executable, str(ROOT / "scripts/convert_hdf5.py"), str(make(add)), "--out", str(tmp_path / "tiles")]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "6 tiles written, 0 were there" in done.stdout

    bands = ("B02", "B03", "B04", "B8A", "B11", "B12")
    labels = LabelOptions(pre="**/*_PRE.tif")
    options = PrepareOptions(
        tiles=tmp_path / "tiles",
        patches=tmp_path / "patches",
        tiling=TilingOptions(size=16, bands=bands, labels=labels),
        split_by="activation",
        groups="folder",
        fractions=(0.34, 0.33, 0.33),
    )
    assert prepare(options).faults == ()

    found = {}
    for split in ("train", "val", "test"):
        images = np.load(tmp_path / f"patches/{split}/images.npy", mmap_mode="r")
        assert images.shape[1:] == (16, 16, 12)
        rows = (tmp_path / f"patches/{split}/metadata.csv").read_text().splitlines()[1:]
        found[split] = {int(row.split("FLOGA_2017_")[1][0]) // 2 for row in rows}
    assert sorted(map(len, found.values())) == [1, 1, 1]
    assert set.union(*found.values()) == {0, 1, 2}
