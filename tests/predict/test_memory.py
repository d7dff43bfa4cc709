"""Memory does not grow with the height of a scene."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from fireseg.data.bands import BAND_NAMES
from tests.predict.stand_in import UTM

WIDTH = 10_980

# A process of its own, so that its memory is its own.
PROGRAM = """
import sys
from pathlib import Path
from torch import nn
from fireseg.mapping.options import Options
from fireseg.mapping.scene_map import map_scene
from tests.predict.stand_in import make_trained

scene = Path(sys.argv[1])
map_scene(make_trained(), scene, scene.parent / "maps", Options(min_area_ha=10))
# Not ru_maxrss: a child inherits that from whoever started it.
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def write_tall_scene(path: Path, height: int) -> Path:
    """Blocks of one colour, some dark, written row of blocks by row of blocks."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 7, "height": height, "width": WIDTH, **UTM}
    stored = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    with rasterio.open(path, "w", **profile, **stored) as raster:
        for top in range(0, height, 512):
            cells = rng.integers(800, 4000, (7, 8, WIDTH // 64 + 1))
            window = Window(0, top, WIDTH, 512)  # pyright: ignore[reportCallIssue]
            raster.write(cells.repeat(64, axis=1).repeat(64, axis=2)[..., :WIDTH].astype(np.uint16), window=window)
        for channel, band in enumerate(BAND_NAMES, 1):
            raster.set_band_description(channel, band)
    return path


def measure(scene: Path) -> float:
    """Megabytes that a process held at most while it mapped a scene."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(scene)], cwd=root, check=True, capture_output=True, text=True
    )
    return int(done.stdout.split()[-1]) / 1000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
@pytest.mark.timeout(300)
def test_four_times_the_height_takes_the_same_memory(tmp_path: Path) -> None:
    low = measure(write_tall_scene(tmp_path / "low.tif", 1024))
    tall = measure(write_tall_scene(tmp_path / "tall.tif", 4096))
    assert tall <= 1.1 * low
    assert tall < 2000
