"""Command line: arguments, output and exit codes."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rasterio
from rasterio.features import shapes

from fireseg.prepare.cli import main
from tests.prepare.builders import write_set, write_tile

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Runs `python -m fireseg.prepare` with arguments, in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield lambda *words: main([str(word) for word in words])
    signal.signal(signal.SIGTERM, before)
    logger = logging.getLogger("fireseg")
    logger.handlers.clear()
    logger.propagate = True


def test_two_folders_are_enough(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=1, test=0)
    assert run(tiles, "patches", "--size", 16) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "next: python -m fireseg.train data.root=patches"


def test_options_reach_the_patches(run: Run, tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=1, test=0)
    assert (
        run(
            *(tiles, "patches", "--bands", "B04", "B12", "--size", 16, "--stride", 8, "--max-cloud", 0.3),
            *("--layout", "files", "--task", "gra", "--clouds", "keep", "--disagreement", "ignore", "--offset", 1000),
        )
        == 0
    )
    manifest = json.loads(Path("patches/manifest.json").read_text())
    expected = {"bands": ["B04", "B12"], "stride": 8, "max_cloud": 0.3, "layout": "files", "task": "gra"}
    expected |= {"clouds": "keep", "disagreement": "ignore", "offset": 1000.0}
    assert expected.items() <= manifest["options"].items()


def test_the_next_command_trains_on_the_patches(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=1, test=0)
    run(tiles, "patches", "--size", 16, "--bands", "B04", "B12", "--layout", "files", "--task", "gra")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "next: python -m fireseg.train data.root=patches task=gra 'data.bands=[B04,B12]'"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tiles"], "two folders are required"),
        (["tiles", "patches", "--siz", "3"], "--size"),
        (["tiles", "patches", "--size", "x"], "--size"),
        (["tiles", "patches", "--size", "64", "--stride", "65"], "--stride: 65"),
        (["tiles", "patches", "--max-cloud", "50"], "--max-cloud: 50"),
        (["tiles", "patches", "--bands", "B4"], "did you mean 'B04'"),
        (["tiles", "patches", "--layout", "files"], "--task del or --task gra"),
        (["tiles", "patches", "--task", "del"], "--task del"),
        (["tiles", "patches", "--workers", "0"], "--workers: 0"),
        (["tiles", "--audit", "tiles"], "--audit tiles"),
        (["tiles", "patches", "--classes", "burned=1"], "--classes burned=1"),
        (["tiles", "patches", "--images", "images/*.tif"], "--masks or --gradings"),
        (["tiles", "patches", "--images", "../*.tif", "--masks", "masks/*.tif"], "--images ../*.tif"),
    ],
)
def test_an_invalid_argument_exits_with_2_and_is_named(
    run: Run, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = run(*words)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_faults_of_tiles_exit_with_1_unless_allowed(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiles = write_set(tmp_path / "tiles", train=2, val=1, test=0)
    next(tiles.rglob("EMSR101*_DEL.tif")).write_bytes(b"")
    assert run(tiles, "patches", "--size", 16) == 1
    errors = capsys.readouterr().err
    assert "1 fault:" in errors
    assert "EMSR101_AOI01_01_DEL.tif: empty" in errors
    assert "--allow-bad" in errors
    assert run(tiles, "patches", "--size", 16, "--allow-bad") == 0


@pytest.mark.parametrize("words", [["--classes", "7=1", "255=1"], ["--classes", "7=1,255=1"]])
def test_masks_of_0_and_255_end_with_the_cure_and_give_the_same_patches_with_it(
    run: Run, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=1, test=0, kinds=("DEL",))
    assert run(tiles, "expected", "--size", 16) == 0
    for path in tiles.rglob("*_DEL.tif"):
        with rasterio.open(path, "r+") as raster:
            raster.write(raster.read(1) * 255, 1)
    capsys.readouterr()
    assert run(tiles, "patches", "--size", 16) == 1
    assert "--classes 255=1" in capsys.readouterr().err
    assert not Path("patches/manifest.json").exists()
    assert run(tiles, "remapped", "--size", 16, *words) == 0
    for name in ("train/images.npy", "train/masks_del.npy", "val/masks_del.npy"):
        assert Path("remapped", name).read_bytes() == Path("expected", name).read_bytes()
    assert json.loads(Path("remapped/manifest.json").read_text())["options"]["classes"] == ["7=1", "255=1"]
    assert "classes" not in json.loads(Path("expected/manifest.json").read_text())["options"]


def test_images_and_masks_in_folders_of_their_own_give_the_same_patches(run: Run, tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=2, val=1, test=0, kinds=("DEL",))
    assert run(tiles, "expected", "--size", 16) == 0
    for path in sorted(tiles.rglob("*.tif")):
        split, kind = path.relative_to(tiles).parts[0], path.stem.rsplit("_", 1)[1]
        name = {"S2L2A": f"images/{split}/{{}}.tif", "DEL": f"masks/{split}/{{}}_mask.tif"}[kind]
        target = tmp_path / "pairs" / name.format(path.stem.removesuffix(f"_{kind}"))
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    assert run("pairs", "patches", "--size", 16, "--images", "images/**/*.tif", "--masks", "masks/**/*.tif") == 0
    for name in ("train/images.npy", "train/masks_del.npy", "val/images.npy", "val/masks_del.npy"):
        assert Path("patches", name).read_bytes() == Path("expected", name).read_bytes()
    options = json.loads(Path("patches/manifest.json").read_text())["options"]
    assert (options["images"], options["masks"]) == ("images/**/*.tif", "masks/**/*.tif")


def test_polygons_give_the_same_patches_as_the_masks_that_they_outline(run: Run, tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=1, test=0, kinds=("DEL", "GRA"))
    assert run(tiles, "expected", "--size", 16) == 0
    for path in [*tiles.rglob("*_DEL.tif"), *tiles.rglob("*_GRA.tif")]:
        with rasterio.open(path) as raster:
            outlines = [(one, int(value)) for one, value in shapes(raster.read(1), transform=raster.transform) if value]
        features = [{"type": "Feature", "geometry": one, "properties": {"grade": value}} for one, value in outlines]
        path.with_suffix(".geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        path.unlink()
    words = (tiles, "patches", "--size", 16, "--grade-field", "grade")
    assert run(*words) == 0
    for name in ("images", "masks_del", "masks_gra"):
        for split in ("train", "val"):
            content = Path("patches", split, f"{name}.npy").read_bytes()
            assert content == Path("expected", split, f"{name}.npy").read_bytes()
    manifest = json.loads(Path("patches/manifest.json").read_text())
    assert manifest["options"]["grade_field"] == "grade"
    (changed,) = [name for name in manifest["sources"] if "train" in name and name.endswith("_DEL.geojson")]
    (tiles / changed).write_text('{"type": "FeatureCollection", "features": []}')
    assert run(*words) == 1


def test_leaks_exit_with_1_unless_allowed(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=0, test=0)
    write_tile(tiles, "EMSR900_AOI01_01", split="val", seed=9)
    assert run(tiles, "patches", "--size", 16) == 1
    assert "--split-by activation" in capsys.readouterr().err
    assert run(tiles, "patches", "--size", 16, "--allow-leaks") == 0


def test_an_audit_of_tiles_exits_with_1_if_it_finds_leaks_and_writes_them(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiles = write_set(tmp_path / "tiles", train=2, val=1, test=0)
    assert run("--audit", tiles) == 0
    write_tile(tiles, "EMSR900_AOI01_01", split="val", seed=9)
    assert run("--audit", tiles, "--json", "found/audit.json") == 1
    assert "EMSR900_AOI01_01" in capsys.readouterr().out
    assert json.loads(Path("found/audit.json").read_text())["counts"]["same acquisition"] == 1


def test_an_audit_of_a_table_needs_no_tiles(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "satelliteData.csv"
    table.write_text(
        "folderPath,left_Long,bottom_Lat,right_Long,top_Lat\n"
        "x/EMSR1_AOI01_01,8.0,40.0,8.2,40.1\n"
        "x/EMSR2_AOI01_01,8.1,40.0,8.3,40.1\n"
    )
    assert run("--audit", table) == 1
    assert json.loads(Path("audit.json").read_text())["counts"]["overlap"] == 1


def test_the_help_lists_options_with_defaults(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run("--help")
    assert end.value.code == 0
    text = capsys.readouterr().out
    for word in ("TILES PATCHES", "--max-cloud", "--split-by {folder,activation}", "(default: 256)"):
        assert word in text
    assert "None" not in text
