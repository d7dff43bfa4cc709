"""A model of a pair of scenes, from tiles over training to maps and exports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import rasterio

import fireseg
from fireseg.data.bands import BAND_NAMES, to_reflectance
from fireseg.engine import Interrupts
from fireseg.pairs import add_pre_bands
from fireseg.prepare.options import PrepareOptions, TilingOptions
from fireseg.prepare.pipeline import prepare
from fireseg.runs.folder import ResumePoint, RunFolder
from fireseg.tiles import open_scene
from fireseg.tiles.options import LabelOptions
from fireseg.train.run import train
from tests.export.builders import export
from tests.prepare.builders import write_set
from tests.runs.builders import make_settings
from tests.tiles.builders import make_reflectance, write_raster

BANDS = add_pre_bands(BAND_NAMES)


def write_pairs(folder: Path) -> Path:
    tiles = write_set(folder, train=2, val=1, test=0, height=64, width=64)
    for number, image in enumerate(sorted(tiles.rglob("*_S2L2A.tif"))):
        with rasterio.open(image) as raster:
            before = make_reflectance(64, 64, seed=50 + number)
            write_raster(image.with_name(image.name.replace("S2L2A", "PRE")), before, transform=raster.transform)
    return tiles


def test_patches_training_maps_and_exports_take_the_same_bands_of_both_scenes(tmp_path: Path) -> None:
    tiles = write_pairs(tmp_path / "tiles")
    tiling = TilingOptions(size=64, labels=LabelOptions(pre="**/*_PRE.tif"))
    prepare(PrepareOptions(tiles=tiles, patches=tmp_path / "patches", tiling=tiling))
    words = [f"data.root={tmp_path / 'patches'}", "data.pre=true", "data.indices=[NBR,RBR]", "data/augment=radiometric"]
    words += ["engine.epochs=1", "data.num_workers=0", "data.batch_size=2"]
    folder = RunFolder.create(tmp_path, "run")
    train(make_settings(*words), folder, point=ResumePoint(None, None, None), interrupts=Interrupts())

    out = export(folder, to="onnx", out=tmp_path / "onnx")
    report = json.loads((out / "parity.json").read_text())
    assert (report["model"]["bands"], report["model"]["indices"]) == (list(BANDS), ["NBR", "RBR"])
    assert "computes NBR RBR from them" in (out / "MODEL_CARD.md").read_text()
    assert (report["parity"]["source"], report["parity"]["max_difference"] < 1e-4) == ("val patches", True)

    (scene,) = tiles.rglob("EMSR102_*_S2L2A.tif")
    run = fireseg.load(folder.path, device="cpu", runtime="torch")
    result = run.predict_scene(scene, tmp_path / "maps", fire_dtype="float32", clouds="keep")
    with rasterio.open(result.files.fire) as raster:
        mapped = raster.read(1)
    with open_scene(scene, BANDS) as reader:
        image = to_reflectance(reader.read(0, 0, 64, 64)[0]).transpose(2, 0, 1)
    patch = np.load(tmp_path / "patches/val/images.npy")[0].transpose(2, 0, 1)
    np.testing.assert_array_equal(image, to_reflectance(patch))
    session = onnxruntime.InferenceSession(out / "model.onnx")
    exported = 1 - np.asarray(session.run(None, {"image": image[None]})[0])[0, 0]
    np.testing.assert_allclose(mapped, exported, atol=1e-4)
    np.testing.assert_allclose(run.predict(image).fire, exported, atol=1e-4)
