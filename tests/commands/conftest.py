"""Inputs of all commands, made once."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.commands.builders import Inputs
from tests.evaluate.builders import cut_tiles, make_run
from tests.evaluate.conftest import reset_logging
from tests.fetch.builders import serve_stac, write_area
from tests.predict.builders import draw_image, write_scene
from tests.prepare.builders import write_set


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inputs]:
    """Makes tiles, patches, a run, scenes and a catalogue."""
    root = tmp_path_factory.mktemp("commands")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    tiles = write_set(root / "tiles")
    patches = cut_tiles(tiles, root / "patches")
    run = make_run(root / "outputs", patches, name="run")
    for number, handler in handlers.items():
        signal.signal(number, handler)
    reset_logging()
    scenes = [write_scene(root / f"{name}.tif", draw_image(60, 80, seed=seed)) for seed, name in enumerate("ab")]
    (root / "server").mkdir()
    with serve_stac(root / "server") as server:
        server.add_item("A", day="2025-08-24", values=3000)
        area = write_area(root / "fire.geojson", 31, 20, 89, 79)
        yield Inputs(tiles=tiles, patches=patches, run=run.path, scenes=scenes, area=area, catalogue=server.url)
