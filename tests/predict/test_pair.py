"""Maps of a model that compares a scene with one before the fire."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from fireseg.errors import FiresegError, SettingError
from fireseg.predict.api import Run
from fireseg.predict.manifest import Manifest
from fireseg.predict.options import PredictOptions
from fireseg.predict.pipeline import predict_scenes
from tests.predict.builders import make_pair_model, make_trained, predict, write_scene


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A scene with an old scar on its left and a new one on its right; only the old one is in the scene before."""
    image = np.full((7, 64, 96), 0.2, np.float32)
    image[:3], image[3] = 0.05, 0.4
    before = image.copy()
    before[3, :, :32] = image[3, :, :32] = 0.1
    image[3, :, 64:] = 0.1
    write_scene(tmp_path / "in" / "a_PRE.tif", before)
    return write_scene(tmp_path / "in" / "a.tif", image)


def test_only_what_burned_between_the_scenes_is_mapped(scene: Path, tmp_path: Path) -> None:
    result = predict(make_pair_model(), scene, tmp_path / "maps")
    with rasterio.open(result.files.classes) as raster:
        classes = raster.read(1)
    assert not classes[:, :64].any()
    assert (classes[:, 64:] == 1).all()
    before = str(scene.with_name("a_PRE.tif"))
    assert result.summary["pre"] == {"scene": before, "date": None, "is_resampled": False}
    assert "pre" not in result.summary["options"]


def test_an_image_in_memory_holds_the_bands_of_both_scenes(scene: Path, tmp_path: Path) -> None:
    images = []
    for path in (scene, scene.with_name("a_PRE.tif")):
        with rasterio.open(path) as raster:
            images.append(raster.read())
    images[1][:, :8] = 0  # unknown in the scene before alone
    found = Run(make_pair_model()).predict(np.concatenate(images))
    assert (found.classes[:8] == 255).all()
    assert not found.classes[8:, :64].any()
    assert (found.classes[8:, 64:] == 1).all()


def test_a_given_scene_before_the_fire_is_used_and_named_in_the_options(scene: Path, tmp_path: Path) -> None:
    other = scene.with_name("a_PRE.tif").rename(tmp_path / "before.tif")
    result = predict(make_pair_model(), scene, tmp_path / "maps", pre=str(other))
    assert result.summary["pre"]["scene"] == result.summary["options"]["pre"] == str(other)
    assert result.summary["burned_fraction"] == pytest.approx(1 / 3)


def test_a_missing_or_useless_scene_before_the_fire_is_refused_with_its_cure(scene: Path, tmp_path: Path) -> None:
    before = scene.with_name("a_PRE.tif").rename(tmp_path / "before.tif")
    with pytest.raises(FiresegError, match=r"name it with --pre, or put it beside the scene as a_PRE.tif"):
        predict(make_pair_model(), scene, tmp_path / "maps")
    with pytest.raises(SettingError, match="leave --pre out"):
        predict(make_trained(), scene, tmp_path / "maps", pre=str(before))
    assert not any((tmp_path / "maps").glob("*.tif"))
    options = PredictOptions(run="run", scenes=(str(scene), "b.tif"), pre=str(before), out=tmp_path / "maps")
    with pytest.raises(SettingError, match=r"belongs to one scene; .* or put <name>_PRE.tif beside each"):
        predict_scenes(options)


def test_the_manifest_tells_whether_the_scene_before_the_fire_has_changed(scene: Path, tmp_path: Path) -> None:
    files = []
    for _ in range(2):
        with Manifest(tmp_path, [scene], {}).started({}):
            pass
        (record,) = json.loads((tmp_path / "maps.json").read_text())["scenes"].values()
        files.append(record["file"])
        scene.with_name("a_PRE.tif").write_bytes(b"")
    assert files[0] != files[1]
