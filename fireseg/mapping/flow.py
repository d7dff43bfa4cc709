"""Scenes into maps, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fireseg.console import format_seconds
from fireseg.engine.device import DeviceName
from fireseg.errors import FiresegError, SettingError
from fireseg.mapping.options import Options
from fireseg.mapping.outputs import check_outputs
from fireseg.mapping.record import choose_decision, get_run_name
from fireseg.mapping.scene_map import SceneMap, map_scene
from fireseg.render.map import spell_hectares
from fireseg.render.panels import spell_share
from fireseg.trained import open_trained

log = logging.getLogger("fireseg")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user asks for.

    Attributes:
        run: Run folder, checkpoint file, or MLflow address of the model.
        scenes: Rasters to map.
        out: Folder for the maps.
        device: Where the model computes.
        options: What else may be chosen.
    """

    run: str
    scenes: tuple[Path, ...]
    out: Path
    device: DeviceName = "auto"
    options: Options = field(default_factory=Options)


def map_scenes(wish: Wish) -> Sequence[str]:
    """Maps all scenes; one that cannot be mapped does not stop the others.

    Args:
        wish: What is asked for.

    Returns:
        What is wrong with scenes, one line each; empty if all are mapped.

    Raises:
        FiresegError: If maps are there already, or the model cannot be had: then nothing was done.
        SettingError: If there is no scene, or two would give maps of one name.
    """
    if not wish.scenes:
        raise SettingError("no scene; name one raster or more with the bands of Sentinel-2")
    check_outputs(wish.scenes, wish.out, overwrite=wish.options.overwrite)
    trained = open_trained(wish.run, device=wish.device)
    decision = choose_decision(trained, wish.options.threshold, wish.options.temperature)
    origin = {"user": "as you say", "calibration": "chosen on val", "default": "nothing was chosen on val"}
    log.info(
        "%s: threshold %.3g (%s), temperature %.3g, on %s",
        get_run_name(trained),
        decision.threshold,
        origin[decision.chosen_by],
        decision.temperature,
        trained.device,
    )
    found: dict[Path, SceneMap | FiresegError] = {}
    for number, scene in enumerate(wish.scenes, 1):
        try:
            done = found[scene] = map_scene(trained, scene, wish.out, wish.options)
        except FiresegError as error:
            found[scene] = error
            said = "failed"
        else:
            said = f"{spell_hectares(done.summary['burned_ha'])} burned, {format_seconds(done.seconds)}"
        log.info("%d of %d  %s: %s", number, len(wish.scenes), scene.name, said)
    for line in tabulate(found):
        log.info("%s", line)
    return [fault for scene in found.values() if isinstance(scene, FiresegError) for fault in scene.faults]


def tabulate(found: dict[Path, SceneMap | FiresegError]) -> list[str]:
    """One line a scene, below a heading.

    Args:
        found: What became of each scene.
    """
    rows = [["scene", "burned", "of known", "surest", "areas", "unknown", "map"]]
    for scene, result in found.items():
        if isinstance(result, FiresegError):
            rows.append([scene.name, "failed", "", "", "", "", ""])
            continue
        said = result.summary
        rows.append(
            [
                scene.name,
                spell_hectares(said["burned_ha"]),
                spell_share(said["fraction"]),
                f"{said['confidence']:.2f}",
                str(said["polygons"]["count"]),
                spell_share(said["unknown_share"]),
                str(result.files.classes),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["", *(_align(row, widths) for row in rows)]


def _align(row: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, numbers to the right."""
    is_word = [place in (0, len(row) - 1) for place in range(len(row))]
    cells = zip(row, widths, is_word, strict=True)
    return "  ".join(f"{cell:<{width}}" if left else f"{cell:>{width}}" for cell, width, left in cells).rstrip()
