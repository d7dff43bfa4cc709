"""Worker process that loads a run once and maps one scene after the other, within a limit of memory.

It reads a JSON line for each scene on stdin and writes JSON lines with progress and outcome on stdout. Scenes are
opened here alone: what crashes is this process, not the server. It ends when stdin closes, as it does
when the server has died.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from fireseg.errors import FiresegError, convert_unexpected_errors
from fireseg.files import atomic_write
from fireseg.geo.display import sum_area_by_probability, write_picture
from fireseg.plots.style import choose_composite, render_composite
from fireseg.predict.options import MapOptions
from fireseg.predict.outputs import MapFiles
from fireseg.predict.scene import open_map_scene, predict_scene
from fireseg.runs import TrainedModel, load_trained_model
from fireseg.runtime.engines import InferenceEngine, create_engine
from fireseg.serve.store import MAP, POLYGONS, RESULT, SCENE_PICTURE
from fireseg.tiles import SceneReader
from fireseg.tiles.products import get_scene_name

_MAX_POLYGONS = 500

_MAX_PICTURE_PX = 5490

_LOCK_WAIT_S = 60


def main(arguments: list[str] | None = None) -> int:
    """Runs the worker: RUN, device, GB of memory beside the model, and millions of pixels of the largest scene."""
    run, device, memory_gb, max_megapixels = sys.argv[1:] if arguments is None else arguments
    # Libraries may print: what they write goes to stderr, and only messages to the server.
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    requests = _read_requests(sys.stdin)
    try:
        with convert_unexpected_errors(run):
            trained = load_trained_model(run, device=device, build=False)  # pyright: ignore[reportArgumentType]
            engine = create_engine(trained)
            _limit_memory(float(memory_gb), trained)
    except FiresegError as error:
        _send(messages, {"faults": error.faults, "exit_code": error.exit_code})
        return error.exit_code
    _send(messages, {"run": trained.name, "bands": trained.bands, "labels": trained.task.labels})
    for request in iter(requests.get, None):
        try:
            with convert_unexpected_errors(request["scene"]):
                map_scene(trained, engine, request, max_pixels=int(1e6 * float(max_megapixels)), messages=messages)
        except FiresegError as error:
            _send(messages, {"faults": error.faults})
        else:
            _send(messages, {"done": True})
    return 0


def map_scene(
    trained: TrainedModel, engine: InferenceEngine, request: dict[str, Any], *, max_pixels: int, messages: IO[str]
) -> None:
    """Maps a scene and prepares its map for display; a map that is complete is not made again.

    Args:
        trained: Model.
        engine: Engine that computes it.
        request: `scene`, relative to `base`; its `folder` in the store; and `settings`, options of the map.
        max_pixels: Largest number of pixels.
        messages: Receives the progress.

    Raises:
        FiresegError: If the scene is too large or cannot be mapped.
        SettingError: If an option is out of range.
    """
    folder = Path(request["folder"])
    # Messages and summaries then hold the relative name, not where files lie on the server.
    os.chdir(request["base"])
    scene, out = Path(request["scene"]), folder / MAP
    options = MapOptions(geojson=True, **request["settings"])
    # The worker of a killed server may not have ended yet.
    with FileLock(folder / ".lock", timeout=_LOCK_WAIT_S):
        if (folder / RESULT).exists():
            return
        files = MapFiles.of(out, get_scene_name(scene))
        with open_map_scene(scene, trained.bands, options) as reader:
            if reader.height * reader.width > max_pixels:
                raise FiresegError(
                    f"{scene}: {reader.height:,} x {reader.width:,} pixels, but this server maps at most "
                    f"{max_pixels / 1e6:g} million; cut a part of it with gdal_translate -srcwin"
                )
            if not files.summary.exists():
                progress = _Progress(messages)
                predict_scene(trained, scene, out, options=options, engine=engine, on_progress=progress.update)
                _append_line(folder / "log.txt", "mapped")
            _send(messages, {"stage": "drawing", "share": 1.0})
            _draw_scene(out / SCENE_PICTURE, reader)
        _select_polygons(files.geojson, out / POLYGONS)
        _write_result(folder / RESULT, trained, files)


class _Progress:
    def __init__(self, messages: IO[str]) -> None:
        self._messages, self._percent = messages, -1

    def update(self, done: int, total: int) -> None:
        percent = 100 * done // max(total, 1)
        if percent > self._percent:
            self._percent = percent
            _send(self._messages, {"stage": "mapping", "share": percent / 100})


def _read_requests(stdin: IO[str]) -> queue.Queue[Any]:
    """Reads requests in a thread, which ends the process when the server has died, whatever is being done."""
    requests: queue.Queue[Any] = queue.Queue()

    def read() -> None:
        with suppress(ValueError):
            for line in stdin:
                requests.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return requests


def _limit_memory(memory_gb: float, trained: TrainedModel) -> None:
    """Limits the address space to what the loaded model takes and the given memory.

    A GPU maps far more addresses than it uses, so that only the limit of the machine holds there.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    statm = Path("/proc/self/statm")
    if trained.device != "cpu" or not statm.exists():
        return
    used = int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = used + int(memory_gb * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _draw_scene(path: Path, reader: SceneReader) -> None:
    step = max(1, -(-max(reader.height, reader.width) // _MAX_PICTURE_PX))
    # A whole multiple of the step, so that the sampled rows go on evenly from strip to strip.
    num_rows = step * max(1, 256 // step)

    def draw_rows() -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.bool_]]]:
        for top in range(0, reader.height, num_rows):
            image, unknown = reader.read(top, 0, min(num_rows, reader.height - top), reader.width)
            reflectance = image[::step, ::step].transpose(2, 0, 1).astype(np.float32) / 10_000
            yield top // step, render_composite(reflectance, reader.bands), unknown[::step, ::step]

    write_picture(path, reader.grid, draw_rows(), step=step)


def _select_polygons(source: Path, target: Path) -> None:
    """Keeps the largest polygons, which come first: thousands would make a page slow."""
    content = json.loads(source.read_bytes())
    features = content["features"]
    shown = {"type": "FeatureCollection", "total": len(features), "features": features[:_MAX_POLYGONS]}
    with atomic_write(target) as part:
        part.write_text(json.dumps(shown), encoding="utf-8")


def _write_result(path: Path, trained: TrainedModel, files: MapFiles) -> None:
    summary = json.loads(files.summary.read_bytes())
    task = trained.task
    result = {
        "summary": summary,
        "classes": [
            {"name": name, "label": label, "colour": colour, "ha": summary["hectares"][name]}
            for name, label, colour in zip(task.class_names, task.labels, task.colours, strict=True)
        ],
        "scene_colours": choose_composite(trained.bands).caption,
        "area_by_probability": sum_area_by_probability(files.fire),
        "files": {kind: path.name for kind, path in files._asdict().items() if path.exists()},
    }
    with atomic_write(path) as part:
        part.write_text(json.dumps(result, ensure_ascii=True) + "\n", encoding="utf-8")


def _append_line(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _send(messages: IO[str], message: dict[str, Any]) -> None:
    messages.write(json.dumps(message) + "\n")
    messages.flush()


if __name__ == "__main__":
    sys.exit(main())
