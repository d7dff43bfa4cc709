"""Files of every kind that fireseg reads, and the commands that read them, for `fuzz.py`."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from kill_test import SETTINGS, write_patches
from rasterio import Affine
from split_archives import unpack

from fireseg.config import make
from fireseg.data.bands import BAND_NAMES, CEMS_BANDS
from fireseg.data.checks import validate_dataset
from fireseg.errors import FiresegError
from fireseg.evaluate.cli import main as evaluate
from fireseg.fetch.area import read_area
from fireseg.files import build_once, load_tensors
from fireseg.model import FireSegmentationModel
from fireseg.plots import render_curves
from fireseg.predict.cli import main as predict
from fireseg.prepare import pipeline
from fireseg.prepare.cli import main as prepare
from fireseg.runs.folder import RunFolder
from fireseg.runs.sync import describe_run, list_epochs
from fireseg.task import Task, get_class_names
from fireseg.train.cli import main as train

Result = Mapping[str, Any]
"""Plain values that do not depend on times or paths."""

TASK = Task(name="del", num_classes=2, class_names=get_class_names(2))

SAFE = "S2B_MSIL2A_20230828T105439_N0509_R051_T31TCJ_20230828T131109"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of file and the command that reads it.

    Attributes:
        path: File to damage, relative to the working folder.
        read: Runs the command in the working folder and returns its result.
        needs: Files and folders that the command needs.
        has_checksum: True if the format has a checksum, so that every change must be noticed.
        weight: Share of the mutants: lower for commands that take seconds.
        scene: Name of the scene that the file is a part of, which errors may give instead.
    """

    path: str
    read: Callable[[], Result]
    needs: tuple[str, ...]
    has_checksum: bool = False
    weight: int = 3
    scene: str = ""


def import_libraries() -> None:
    """Imports what the commands import only when they need it, once for all processes forked later."""
    import albumentations  # noqa: F401
    import hydra  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pyogrio  # noqa: F401
    import segmentation_models_pytorch  # noqa: F401

    import fireseg.evaluate.pipeline
    import fireseg.predict.pipeline
    import fireseg.prepare.pipeline
    import fireseg.prepare.report
    import fireseg.train.run

    # Its figures take most of the time of prepare, and read nothing that is damaged here.
    fireseg.prepare.report.write_report = lambda folder: None


def write_files(folder: Path, names: Collection[str]) -> None:
    """Writes intact files into an empty folder, the current one.

    Args:
        folder: The folder.
        names: Targets whose files are needed; training and evaluating the runs takes most of the time.
    """
    needed = {need for name in names for need in TARGETS[name].needs}
    write_patches(folder / "patches")
    if needed & {"run", "other"}:
        run_main(train, "data.root=patches", *SETTINGS, "engine.epochs=2", "data.num_workers=0", "hydra.run.dir=run")
        shutil.copytree("run", "other")
        shutil.copyfile("run/checkpoints/final_model.pt", "other/checkpoints/best_model.pt")
        for run in ("run", "other"):
            run_main(evaluate, run, "--split=val", "--no-track")
    _write_scenes(folder)
    _write_tiles(folder / "tiles")
    _prepare("prepared")
    _prepare_incompletely("unfinished")
    validate_dataset(Path("prepared"), task=TASK, bands=BAND_NAMES)  # writes the cache of the statistics
    _write_archives(folder)
    build_once(Path("sample"), {"seed": 0}, _write_sample)


def run_main(main: Callable[[], int], *arguments: str) -> None:
    """Runs a command as the shell does; raises FiresegError if it fails, after it has printed its error."""
    sys.argv = ["fireseg", *arguments]
    if main() != 0:
        raise FiresegError


def _digest(values: Any) -> str:
    return hashlib.sha256(values if isinstance(values, bytes) else repr(values).encode()).hexdigest()[:16]


def _digest_files(folder: Path, pattern: str) -> Result:
    return {path.relative_to(folder).as_posix(): _digest(path.read_bytes()) for path in sorted(folder.rglob(pattern))}


def _predict(scene: str) -> Callable[[], Result]:
    def read() -> Result:
        run_main(predict, "run", scene, "--out=maps", "--device=cpu")
        with (
            rasterio.open(next(Path("maps").glob("*_classes.tif"))) as classes,
            rasterio.open(next(Path("maps").glob("*_fire.tif"))) as fire,
        ):
            return {"shape": classes.shape, "pixels": _digest(classes.read().tobytes() + fire.read().tobytes())}

    return read


def _evaluate(*options: str) -> Callable[[], Result]:
    def read() -> Result:
        run_main(evaluate, "run", "--split=val", "--no-track", *options)
        results = json.loads(Path("run/evaluation_val.json").read_text(encoding="utf-8"))
        return {key: results[key] for key in ("decision", "methods", "confusion", "against")}

    return read


def _resume() -> Result:
    run_main(train, "resume=run", "engine.epochs=3")
    state = load_tensors(Path("run/checkpoints/last.pt"))
    weights = {name: _digest(value.numpy().tobytes()) for name, value in state["model"].items()}
    return {"epoch": state["epoch"], "weights": _digest(weights)}


def _describe() -> Result:
    folder = RunFolder(Path("run"))
    run = describe_run(folder)
    render_curves(folder.read_metrics(), Path("curves.png"))
    return {"name": run.name, "epochs": len(list_epochs(folder))}


def _load_weights() -> Result:
    node = json.loads(Path("run/config.json").read_text())["model"]
    make({**node, "weights": "other/checkpoints/best_model.pt"}, FireSegmentationModel)
    return {}


def _scan(root: str) -> Callable[[], Result]:
    def read() -> Result:
        summary = validate_dataset(Path(root), task=TASK, bands=BAND_NAMES)
        return {"mean": summary.mean, "std": summary.std, "counts": summary.class_counts}

    return read


def _prepare(patches: str, *options: str) -> Result:
    run_main(prepare, "tiles", patches, "--size=16", *options)
    return _digest_files(Path(patches), "*.npy")


def _prepare_incompletely(patches: str) -> None:
    """Cuts all tiles and stops before the tables are written, as a killed process does."""
    original, pipeline._finish = pipeline._finish, lambda *_: sys.exit(1)
    try:
        _prepare(patches)
    except SystemExit:
        pipeline._finish = original


def _audit() -> Result:
    run_main(prepare, "--audit=satelliteData.csv")
    return json.loads(Path("audit.json").read_text(encoding="utf-8"))


def _unpack(archive: str) -> Callable[[], Result]:
    def read() -> Result:
        unpack([Path(archive)], Path("unpacked"), advance=lambda _: None)
        return _digest_files(Path("unpacked"), "*.tif")

    return read


def _read_area() -> Result:
    warnings.simplefilter("ignore")  # as all commands do
    return {"area": read_area(Path("area.geojson")).wkt}


def _read_sample() -> Result:
    build_once(Path("sample"), {"seed": 0}, _write_sample)
    return _digest_files(Path("sample"), "*.npy")


def _write_sample(folder: Path) -> None:
    for split in ("train", "val"):
        (folder / split).mkdir()
        np.save(folder / split / "a_image.npy", np.zeros(4))


def _write_raster(path: Path, values: Any, **profile: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = values if values.ndim == 3 else values[None]
    profile = {"driver": "GTiff", "crs": "EPSG:32631", "transform": Affine(10, 0, 3e5, 0, -10, 49e5)} | profile
    count, height, width = bands.shape
    with rasterio.open(path, "w", count=count, height=height, width=width, dtype=bands.dtype, **profile) as raster:
        raster.write(bands)
        names = {len(BAND_NAMES): BAND_NAMES, len(CEMS_BANDS): CEMS_BANDS}.get(count, ())
        for channel, name in enumerate(names, 1):
            raster.set_band_description(channel, name)


def _write_scenes(folder: Path) -> None:
    """Writes a compressed and an uncompressed scene, a STAC item, a SAFE product and an area of interest."""
    rng = np.random.default_rng(0)
    reflectance = rng.uniform(0.05, 0.4, (7, 48, 64)).astype(np.float32)
    numbers = np.rint(reflectance * 10_000 + 1000).astype(np.uint16)
    _write_raster(folder / "scene.tif", reflectance)
    _write_raster(folder / "numbers.tif", numbers, compress="deflate", tiled=True, blockxsize=16, blockysize=16)
    (folder / "numbers.json").write_text(json.dumps({"boa_offset_applied": False, "processing_baseline": "05.09"}))
    _write_raster(folder / "numbers_SCL.tif", np.where(np.arange(64) < 8, 9, 4)[None].repeat(48, 0).astype(np.uint8))
    assets = {}
    images = folder / f"{SAFE}.SAFE/GRANULE/L2A_T31TCJ_A033821_20230828T105652/IMG_DATA/R10m"
    for band, values in zip(BAND_NAMES, numbers, strict=True):
        _write_raster(folder / f"bands/{band}.tif", values, compress="lzw")
        assets[band] = {"href": f"bands/{band}.tif", "raster:bands": [{"scale": 0.0001, "offset": -0.1}]}
        path = images / f"T31TCJ_20230828T105439_{band}_10m.jp2"
        _write_raster(path, values, driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES")
    properties = {"datetime": "2023-08-28T10:54:39Z", "s2:processing_baseline": "05.09"}
    item = {"type": "Feature", "id": "item", "properties": properties, "assets": assets}
    (folder / "item.json").write_text(json.dumps(item))
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{number}">-1000</BOA_ADD_OFFSET>' for number in range(13))
    (folder / f"{SAFE}.SAFE/MTD_MSIL2A.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?><n1:Level-2A_User_Product xmlns:n1="https://psd-14"><n1:General_Info>'
        f"<Product_Info><PRODUCT_START_TIME>2023-08-28T10:54:39.024Z</PRODUCT_START_TIME><PRODUCT_URI>{SAFE}.SAFE"
        "</PRODUCT_URI><PROCESSING_LEVEL>Level-2A</PROCESSING_LEVEL><PRODUCT_TYPE>S2MSI2A</PRODUCT_TYPE>"
        "<PROCESSING_BASELINE>05.09</PROCESSING_BASELINE></Product_Info><Product_Image_Characteristics>"
        f'<BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE><BOA_ADD_OFFSET_VALUES_LIST>{offsets}'
        "</BOA_ADD_OFFSET_VALUES_LIST></Product_Image_Characteristics></n1:General_Info></n1:Level-2A_User_Product>"
    )
    for sidecar in folder.rglob("*.aux.xml"):
        sidecar.unlink()
    ring = [[8.0, 40.0], [8.1, 40.0], [8.1, 40.1], [8.0, 40.0]]
    (folder / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))


def _write_tiles(root: Path) -> None:
    """Writes tiles in CEMS layout, one delineated by polygons, with the tables that prepare reads."""
    box = ("left_Long", "bottom_Lat", "right_Long", "top_Lat", "height", "width")
    rows: list[tuple[str, ...]] = [("folderPath", *box, "EMSR", "post_fire_acquisition", "country", "koppen_subgroup")]
    splits = [["tile", "split"]]
    for number, split in enumerate(("train", "train", "val", "test")):
        name, west = f"EMSR{100 + number}_AOI01_01", 8.0 + number
        folder, step = root / split / name, 1e-4
        grid = {"crs": "EPSG:4326", "transform": Affine(step, 0, west, 0, -step, 40), "compress": "deflate"}
        reflectance = np.random.default_rng(number).integers(50, 4500, (12, 40, 48)) / np.float32(10_000)
        _write_raster(folder / f"{name}_S2L2A.tif", reflectance.astype(np.float32), **grid)
        burned = np.zeros((40, 48), np.uint8)
        burned[:20, :24] = 1
        east, south = west + 24 * step, 40 - 20 * step
        ring = [[west, 40.0], [east, 40.0], [east, south], [west, south], [west, 40.0]]
        feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        if number == 1:
            collection = {"type": "FeatureCollection", "features": [feature]}
            (folder / f"{name}_DEL.geojson").write_text(json.dumps(collection))
        else:
            _write_raster(folder / f"{name}_DEL.tif", burned, **grid)
        _write_raster(folder / f"{name}_GRA.tif", 2 * burned, **grid)
        _write_raster(folder / f"{name}_CM.tif", 0 * burned, **grid)
        (folder / f"{name}_S2L2A.json").write_text(json.dumps({"acquisition_date": "2019-08-28T11:52:21Z"}))
        box = (f"{west:.4f}", "39.9960", f"{west + 48 * step:.4f}", "40.0000", "40", "48")
        rows.append((f"data/{split}/{name}", *box, name[:7], "2019-08-28T11:52:21Z", "Italy", "Csa"))
        splits.append([name, split])
    for path, table in (("satelliteData.csv", rows), ("splits.csv", splits)):
        with (root.parent / path).open("w", newline="") as file:
            csv.writer(file).writerows(table)


def _write_archives(folder: Path) -> None:
    files = {f"tile/a_{number}.tif": bytes(range(256)) * 8 for number in range(3)}
    with zipfile.ZipFile(folder / "tiles.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with tarfile.open(folder / "tiles.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


_TILE = "tiles/train/EMSR100_AOI01_01/EMSR100_AOI01_01"

_RUN = ("run", "patches")

TARGETS = {
    "scene tif, float": Target(path="scene.tif", read=_predict("scene.tif"), needs=("run",)),
    "scene tif, deflate": Target(
        path="numbers.tif", read=_predict("numbers.tif"), needs=("run", "numbers.json", "numbers_SCL.tif")
    ),
    "scene metadata json": Target(
        path="numbers.json", read=_predict("numbers.tif"), needs=("run", "numbers.tif", "numbers_SCL.tif")
    ),
    "cloud mask tif": Target(
        path="numbers_SCL.tif", read=_predict("numbers.tif"), needs=("run", "numbers.tif", "numbers.json")
    ),
    "STAC item json": Target(path="item.json", read=_predict("item.json"), needs=("run", "bands")),
    "STAC asset tif": Target(
        path="bands/B08.tif", read=_predict("item.json"), needs=("run", "bands", "item.json"), scene="item.json"
    ),
    "SAFE xml": Target(
        path=f"{SAFE}.SAFE/MTD_MSIL2A.xml", read=_predict(f"{SAFE}.SAFE"), needs=("run", f"{SAFE}.SAFE")
    ),
    "SAFE jp2": Target(
        path=f"{SAFE}.SAFE/GRANULE/L2A_T31TCJ_A033821_20230828T105652/IMG_DATA/R10m/T31TCJ_20230828T105439_B04_10m.jp2",
        read=_predict(f"{SAFE}.SAFE"),
        needs=("run", f"{SAFE}.SAFE"),
    ),
    "tile tif": Target(path=f"{_TILE}_S2L2A.tif", read=lambda: _prepare("out"), needs=("tiles",)),
    "mask tif": Target(path=f"{_TILE}_DEL.tif", read=lambda: _prepare("out"), needs=("tiles",)),
    "mask geojson": Target(
        path="tiles/train/EMSR101_AOI01_01/EMSR101_AOI01_01_DEL.geojson",
        read=lambda: _prepare("out"),
        needs=("tiles",),
    ),
    "tile metadata json": Target(path=f"{_TILE}_S2L2A.json", read=lambda: _prepare("out"), needs=("tiles",)),
    "satelliteData.csv": Target(
        path="satelliteData.csv",
        read=lambda: _prepare("out", "--metadata=satelliteData.csv"),
        needs=("tiles",),
    ),
    "audited csv": Target(path="satelliteData.csv", read=_audit, needs=()),
    "split csv": Target(path="splits.csv", read=lambda: _prepare("out", "--split-csv=splits.csv"), needs=("tiles",)),
    "prepare journal": Target(
        path="unfinished/unfinished/tiles.jsonl", read=lambda: _prepare("unfinished"), needs=("tiles", "unfinished")
    ),
    "finished journal": Target(
        path="prepared/tiles.jsonl", read=lambda: _prepare("prepared"), needs=("tiles", "prepared")
    ),
    "finished manifest": Target(
        path="prepared/manifest.json", read=lambda: _prepare("prepared"), needs=("tiles", "prepared")
    ),
    "patch npy": Target(
        path="patches/train/EMSR001_AOI01_01_r0_c3_image.npy", read=_scan("patches"), needs=("patches",)
    ),
    "patch mask npy": Target(
        path="patches/train/EMSR001_AOI01_01_r0_c3_mask.npy", read=_scan("patches"), needs=("patches",)
    ),
    "packed images": Target(path="prepared/train/images.npy", read=_scan("prepared"), needs=("prepared",)),
    "packed masks": Target(path="prepared/train/masks_del.npy", read=_scan("prepared"), needs=("prepared",)),
    "patch manifest": Target(path="prepared/manifest.json", read=_scan("prepared"), needs=("prepared",)),
    "patch table": Target(path="prepared/train/metadata.csv", read=_scan("prepared"), needs=("prepared",)),
    "statistics cache": Target(
        path="prepared/train/.fireseg_scan_del.json", read=_scan("prepared"), needs=("prepared",), has_checksum=True
    ),
    "sample json": Target(path="sample/sample.json", read=_read_sample, needs=("sample",)),
    "best_model.pt, predict": Target(
        path="run/checkpoints/best_model.pt", read=_predict("scene.tif"), needs=("run", "scene.tif"), has_checksum=True
    ),
    "best_model.pt, weights": Target(
        path="other/checkpoints/best_model.pt", read=_load_weights, needs=("run", "other"), has_checksum=True
    ),
    "last.pt": Target(path="run/checkpoints/last.pt", read=_resume, needs=_RUN, has_checksum=True, weight=1),
    "config.json, resume": Target(path="run/config.json", read=_resume, needs=_RUN, weight=1),
    "metrics.jsonl, resume": Target(path="run/metrics.jsonl", read=_resume, needs=_RUN, weight=1),
    "run.json, resume": Target(path="run/run.json", read=_resume, needs=_RUN, weight=1),
    "config.json, sync": Target(path="run/config.json", read=_describe, needs=("run",)),
    "metrics.jsonl, sync": Target(path="run/metrics.jsonl", read=_describe, needs=("run",)),
    "run.json, sync": Target(path="run/run.json", read=_describe, needs=("run",)),
    "calibration, predict": Target(path="run/calibration.json", read=_predict("scene.tif"), needs=("run", "scene.tif")),
    "calibration, evaluate": Target(path="run/calibration.json", read=_evaluate(), needs=_RUN, weight=1),
    "run.json, evaluate": Target(path="run/run.json", read=_evaluate(), needs=_RUN, weight=1),
    "evaluation json": Target(
        path="other/evaluation_val.json", read=_evaluate("--against=other"), needs=(*_RUN, "other"), weight=1
    ),
    "zip": Target(path="tiles.zip", read=_unpack("tiles.zip"), needs=(), has_checksum=True),
    "tar.gz": Target(path="tiles.tar.gz", read=_unpack("tiles.tar.gz"), needs=(), has_checksum=True),
    "area geojson": Target(path="area.geojson", read=_read_area, needs=()),
}
