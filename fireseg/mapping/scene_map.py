"""One scene into its map."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fireseg.data.tiles import BandReader, Place, open_bands
from fireseg.mapping.decide import decide
from fireseg.mapping.ground import measure_ground
from fireseg.mapping.infer import make_ready
from fireseg.mapping.options import Options
from fireseg.mapping.outputs import MapFiles, check_outputs, writing_together
from fireseg.mapping.record import Decision, choose_decision, describe_map, get_run_name
from fireseg.mapping.stream import predict_rows
from fireseg.mapping.tally import Tally
from fireseg.mapping.thumb import Thumb
from fireseg.render.map import render_map, spell_hectares
from fireseg.render.panels import spell_share
from fireseg.render.pixels import choose_recipe
from fireseg.scene import MapWriter, PixelAreas, Polygons, draw_polygons, plan_windows, write_vectors
from fireseg.task import Task
from fireseg.trained import Trained

log = logging.getLogger("fireseg")

_ROWS_AT_ONCE = 64
"""Few, so that what lies between probabilities and files takes little memory beside them."""


@dataclass(frozen=True, kw_only=True)
class SceneMap:
    """A map that was made.

    Attributes:
        files: Where its files are.
        summary: What the json among them says.
        seconds: How long it took.
    """

    files: MapFiles
    summary: dict[str, Any]
    seconds: float


def map_scene(trained: Trained, path: Path, out: Path, options: Options | None = None) -> SceneMap:
    """Maps what burned in a scene: classes, probabilities, polygons, a summary, a picture.

    Reading, model and writing overlap, and memory grows with the width of the scene alone. The files appear
    together at the end, or not at all.

    Args:
        trained: The model.
        path: The scene: a raster with the model's bands, of any size, reference system and type of numbers.
        out: Folder for the map; made if it is not there.
        options: What may be chosen.

    Raises:
        FiresegError: If the scene cannot be read, maps are there already, or the folder cannot be written.
    """
    options = options or Options()
    check_outputs([path], out, overwrite=options.overwrite)
    begin = time.monotonic()
    files = MapFiles.of(out, path.stem)
    decision = choose_decision(trained, options.threshold, options.temperature)
    with (
        open_bands(path, trained.bands, offset=options.offset) as reader,
        writing_together(files, path.stem) as drafts,
        ThreadPoolExecutor(1, thread_name_prefix="aside") as aside,
    ):
        tally = Tally(trained.task.num_classes)
        thumb = Thumb(reader.height, reader.width, _choose_shown(trained.bands))
        looked = aside.submit(_look, reader)
        _draw_rasters(trained, reader, decision, drafts, options, tally, thumb)
        # The outlines are mostly GDAL's work, the picture Python's: together they take as long as one of them.
        outlined = aside.submit(_draw_polygons, drafts, trained.task, options)
        _draw_picture(trained, reader, decision, tally, thumb, drafts.picture)
        looked.result()
        summary = describe_map(trained, reader, decision, tally, outlined.result(), options)
        drafts.summary.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return SceneMap(files=files, summary=summary, seconds=time.monotonic() - begin)


def _look(reader: BandReader) -> None:
    """Says what looks strange about a scene as soon as it is known, and not when all is done."""
    for flag in reader.look():
        log.warning("%s", flag)


def _draw_rasters(
    trained: Trained,
    reader: BandReader,
    decision: Decision,
    drafts: MapFiles,
    options: Options,
    tally: Tally,
    thumb: Thumb,
) -> None:
    """Classes and probabilities, row by row: threads read ahead, and another one writes behind."""
    grid = _to_grid(reader.place)
    areas = PixelAreas(**grid)
    look = {"class_names": trained.task.class_names, "colours": trained.task.colours}
    with MapWriter(drafts.summary.parent, fire_dtype=options.fire_dtype, **look, **grid) as writer:

        def write(top: int, probabilities: NDArray[np.float32], unknown: NDArray[np.bool_]) -> None:
            numbers = {"threshold": decision.threshold, "temperature": decision.temperature}
            for first in range(0, len(unknown), _ROWS_AT_ONCE):
                rows = slice(first, first + _ROWS_AT_ONCE)
                decided = decide(probabilities[:, rows], unknown[rows], **numbers)
                writer.write(top + first, decided.classes, decided.fire)
                tally.add(decided, areas.of_rows(top + first, len(decided.classes)))
                thumb.add_classes(top + first, decided.classes)

        _predict(trained, reader, options, thumb, write)
        paths = writer.close()
    for path, draft in zip(paths, (drafts.classes, drafts.fire, drafts.names), strict=True):
        path.replace(draft)


def _predict(trained: Trained, reader: BandReader, options: Options, thumb: Thumb, write: Callable[..., None]) -> None:
    """Hands all rows to `write`, in order, in a thread of its own, while the model is at those that follow."""
    layout = plan_windows(reader.height, reader.width)
    pending: list[Future[None]] = []

    def settle() -> None:
        while pending:
            pending.pop().result()

    bar = tqdm(
        total=layout.num_windows, desc=reader.path.stem, unit="window", leave=False, disable=not sys.stderr.isatty()
    )
    rows = predict_rows(
        make_ready(trained.model, trained.device),
        reader,
        layout,
        num_classes=trained.task.num_classes,
        device=trained.device,
        batch_size=options.batch_size,
        readers=options.readers,
        tta=options.tta,
        advance=bar.update,
        settle=settle,
    )
    with bar, ThreadPoolExecutor(1, thread_name_prefix="writer") as pool, closing(rows):
        for top, probabilities, unknown, image in rows:
            thumb.add_image(top, image, unknown)
            pending.append(pool.submit(write, top, probabilities, unknown.copy()))
            del probabilities  # the writer's alone from here on
        settle()


def _draw_polygons(drafts: MapFiles, task: Task, options: Options) -> Polygons:
    polygons = draw_polygons(
        drafts.classes,
        drafts.fire,
        class_names=task.class_names,
        min_area_ha=options.min_area_ha,
        simplify_m=options.simplify_m,
    )
    write_vectors(polygons, drafts.burned, driver="GPKG")
    if options.geojson:
        write_vectors(polygons, drafts.geojson, driver="GeoJSON")
    return polygons


def _draw_picture(
    trained: Trained, reader: BandReader, decision: Decision, tally: Tally, thumb: Thumb, path: Path
) -> None:
    ground = measure_ground(reader.place)
    recipe = choose_recipe(trained.bands)
    days = "/".join(moment[:10] for moment in (reader.place.date or "").split("/"))
    burned = f"{spell_hectares(tally.burned_ha)} burned, {spell_share(tally.fraction)} of the ground that is known"
    rule = f"threshold {decision.threshold:.3g}, temperature {decision.temperature:.3g}"
    thinned = f" Of {thumb.step} x {thumb.step} pixels one is shown." if thumb.step > 1 else ""
    render_map(
        thumb.image,
        thumb.classes,
        bands=recipe.bands,
        task=trained.task,
        path=path,
        title=f"{reader.path.stem}{', ' + days if days else ''}",
        notes=[f"{burned}.", f"Run {get_run_name(trained)}, {rule}.{thinned}"],
        hectares=tally.hectares,
        unknown_share=tally.unknown_share,
        pixel_m=(ground.column_m * thumb.step, ground.row_m * thumb.step),
        north_deg=ground.north_deg,
    )


def _choose_shown(bands: Sequence[str]) -> list[int]:
    return [list(bands).index(band) for band in choose_recipe(bands).bands]


def _to_grid(place: Place) -> dict[str, Any]:
    """The place as those who write rasters want it."""
    return {"height": place.height, "width": place.width, "crs": place.crs, "transform": place.transform}
