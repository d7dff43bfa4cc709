"""A run at hand, from `fireseg.load`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fireseg
from fireseg.errors import FiresegError, SettingError
from fireseg.predict.api import Run
from tests.predict.stand_in import draw_image, make_trained, write_run, write_scene


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fireseg.load(write_run(tmp_path_factory.mktemp("runs") / "a_run"), device="cpu")


def test_importing_fireseg_stays_light() -> None:
    program = "import sys, fireseg; print(*({'torch', 'numpy', 'rasterio', 'fireseg.predict'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


def test_what_fireseg_does_not_have_is_said_as_python_says_it() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        fireseg.lode  # noqa: B018
    assert "load" in dir(fireseg)


@pytest.mark.parametrize("shape", [(7, 20, 9), (7, 100, 33), (33, 100, 7)])
def test_an_image_of_any_size_gets_its_map(run: Run, shape: tuple[int, ...]) -> None:
    height, width = (side for side in shape if side != 7)
    found = run.predict(np.full(shape, 0.2, np.float32))
    assert found.classes.shape == found.fire.shape == (height, width)
    assert found.classes.dtype == np.uint8
    assert found.fire.dtype == np.float32
    assert found.has_fire == bool((found.classes == 1).any())
    assert found.fraction == pytest.approx((found.classes == 1).mean())
    assert found.confidence == pytest.approx(found.fire.max())


def test_an_image_is_predicted_as_the_model_predicts_it(run: Run) -> None:
    image = torch.from_numpy(draw_image(64, 96))
    expected = run.trained.model.predict_probabilities(image[None])[0, 1]
    np.testing.assert_allclose(run.predict(image).fire, expected.numpy(), atol=1e-5)


def test_unknown_pixels_of_an_image_stay_unknown(run: Run) -> None:
    image = draw_image(40, 50)
    image[2, 3, 4] = np.nan
    found = run.predict(image)
    assert np.argwhere(found.classes == 255).tolist() == [[3, 4]]
    assert np.argwhere(np.isnan(found.fire)).tolist() == [[3, 4]]


def test_thresholds_can_be_given() -> None:
    run, image = Run(make_trained()), draw_image(80, 80)
    assert run.predict(image, threshold=0.01).fraction > run.predict(image, threshold=0.99).fraction
    with pytest.raises(SettingError, match="--threshold"):
        run.predict(image, threshold=2.0)


def test_an_image_without_the_bands_of_the_run_is_refused(run: Run) -> None:
    with pytest.raises(FiresegError, match="B02 B03 B04 B08 B8A B11 B12"):
        run.predict(np.zeros((3, 40, 40), np.float32))


def test_a_scene_on_disk_is_mapped_into_a_folder(run: Run, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", draw_image(40, 50))
    found = run.predict_scene(str(scene), out=str(tmp_path / "maps"), geojson=True)
    assert found.files.geojson == tmp_path / "maps" / "scene_burned.geojson"
    assert found.files.geojson.exists()
    assert found.summary["model"]["run"] == "a_run"
