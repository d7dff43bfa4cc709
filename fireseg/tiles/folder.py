"""Finds the files of tiles by name."""

from __future__ import annotations

import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from fireseg.console import is_plain_name
from fireseg.data.patches import SPLITS, Fault
from fireseg.errors import FiresegError, join_names
from fireseg.pairs import PRE_SUFFIX
from fireseg.tiles.options import DEFAULT_LABELS, LabelOptions

RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".j2k", ".png", ".img", ".vrt", ".bil", ".bip", ".bsq", ".dat", ".asc")
"""Endings of raster files; sidecars such as .ovr, .tfw or .aux.xml are not among them."""

VECTOR_SUFFIXES = (".geojson", ".gpkg", ".shp")
"""Endings of vector files with the labels of a tile."""

_FILE = re.compile(r"(?P<name>.+)_(?P<kind>S2L2A|DEL|GRA|CM|SCL|ESA_LC|Esri10_LC)", re.IGNORECASE | re.DOTALL)

_SCL_NAME = re.compile(r"(?<![a-z0-9])SCL(?![a-z])", re.IGNORECASE)

_CLOUD_NAME = re.compile(r"_(CM|SCL)$", re.IGNORECASE)

_PICTURE_SUFFIX = ".png"

_ADDED_WORDS = re.compile(r"[_. -](?=[^\d]*$)")
"""Start of words at the end of a name, such as `_burned_mask`; with a number in them it is the name of another tile."""

_WILDCARDS = re.compile(r"[*?\[\]]")

_ACTIVATION = re.compile(r"(?<![a-z0-9])EMSR\d+", re.IGNORECASE)

_METADATA = "metadata"

_LANDCOVER = {"esa": "ESA_LC", "esa-cems": "ESA_LC", "esri": "ESRI10_LC", "esri-cems": "ESRI10_LC"}
"""Kind of file, in upper case, for each numbering of land cover maps."""

_MAX_NAMES_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class TileFiles:
    """The files of one tile.

    Attributes:
        name: File name of the image before `_S2L2A.tif`, or before the suffix.
        split: `train`, `val`, `test`, or empty if the tile is in no such folder.
        activation: Code of the CEMS activation, such as `EMSR382`; the tile name if there is none.
        image: Reflectance, `<name>_S2L2A.tif`.
        delineation: `<name>_DEL.tif`, or polygons, if it exists.
        grading: `<name>_GRA.tif`, or polygons, if it exists.
        cloud: `<name>_CM.tif`, else `<name>_SCL.tif`, if it exists.
        metadata: `<name>_S2L2A.json`, if it exists.
        landcover: `<name>_ESA_LC.tif` or `<name>_Esri10_LC.tif`, if it exists and is wanted.
        pre: Scene before the fire, if pairs are wanted and it exists.
    """

    name: str
    split: str
    activation: str
    image: Path
    delineation: Path | None = None
    grading: Path | None = None
    cloud: Path | None = None
    metadata: Path | None = None
    landcover: Path | None = None
    pre: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All existing files, the image first; of a shapefile those with its values and its reference system, too."""
        paths = (self.image, self.delineation, self.grading, self.cloud, self.metadata, self.landcover, self.pre)
        existing = [path for path in paths if path is not None]
        shapefiles = [path for path in existing if path.suffix.lower() == ".shp"]
        beside = [path.with_suffix(suffix) for path in shapefiles for suffix in (".dbf", ".prj")]
        return (*existing, *(path for path in beside if path.is_file()))


class TileSearch(NamedTuple):
    """Tiles and faults found in a folder.

    Attributes:
        tiles: All tiles that have an image, sorted by split and name.
        faults: Files in the wrong place: masks without an image, duplicate files, tiles in two splits.
    """

    tiles: tuple[TileFiles, ...]
    faults: tuple[Fault, ...]


def group_tile_files(root: Path, labels: LabelOptions = DEFAULT_LABELS) -> TileSearch:
    """Groups the files below a folder by tile, without opening them.

    Tiles may be at any depth, as archives may unpack one level deeper (`train/train/EMSR382/…`). Links are followed;
    names that begin with a dot are skipped.

    Args:
        root: Folder to search. Splits are recognised by the folders below it, not by its own name.
        labels: Names of images and masks, if they are not those of CEMS.

    Raises:
        FiresegError: If a pattern of `labels` matches no raster.
    """
    faults: list[Fault] = []
    pre = [] if labels.pre is None else _match_files(root, "--pre", labels.pre, faults)
    if labels.images is None:
        tiles = _group_by_name(root, labels, faults)
    else:
        tiles = _group_by_pattern(root, labels, faults, without=set(pre))
    if labels.pre is not None:
        tiles = _add_pre_scenes(root, tiles, pre, labels, faults)
    if labels.landcover and tiles and not any(files.landcover for files in tiles):
        end = _LANDCOVER[labels.landcover].replace("ESRI", "Esri")
        raise FiresegError(
            f"--landcover {labels.landcover}: no tile in {root} has <name>_{end}.tif beside <name>_S2L2A.tif; add "
            "them, or omit it"
        )
    tiles.sort(key=lambda files: (files.split, files.name, str(files.image)))
    return TileSearch(tuple(tiles), tuple(sorted(faults + _check_splits(root, tiles))))


def _group_by_name(root: Path, labels: LabelOptions, faults: list[Fault]) -> list[TileFiles]:
    groups: dict[tuple[Path, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in _walk(root, faults):
        if not (match := _FILE.fullmatch(path.stem)):
            continue
        kind, suffix = match["kind"].upper(), path.suffix.lower()
        if suffix == ".json" and kind == "S2L2A":
            kind = _METADATA
        elif not _is_wanted(kind, suffix, labels):
            continue
        if not _has_plain_name(path, faults):
            continue
        groups[path.parent, match["name"]][kind].append(path)
    tiles = []
    for (_, name), paths in groups.items():
        group = {kind: _select_file(same, faults) for kind, same in paths.items()}
        if "S2L2A" in group:
            tiles.append(_make_tile(root, name, group))
        else:
            masks = (path for kind, path in group.items() if kind not in (_METADATA, "SCL", *_LANDCOVER.values()))
            faults += report_orphan_masks(name, (path for path in masks if path.suffix.lower() != _PICTURE_SUFFIX))
    return tiles


def _is_wanted(kind: str, suffix: str, labels: LabelOptions) -> bool:
    if kind in _LANDCOVER.values() and (labels.landcover is None or kind != _LANDCOVER[labels.landcover]):
        return False
    return suffix in RASTER_SUFFIXES or (suffix in VECTOR_SUFFIXES and kind in ("DEL", "GRA"))


def _group_by_pattern(root: Path, labels: LabelOptions, faults: list[Fault], *, without: set[Path]) -> list[TileFiles]:
    """Groups images with the masks of equal name, or of a name that adds something to that of the image."""
    patterns = {"DEL": labels.masks, "GRA": labels.gradings}
    masks = {
        kind: _match_files(root, option, pattern, faults)
        for (kind, pattern), option in zip(patterns.items(), ("--masks", "--gradings"), strict=True)
        if pattern is not None
    }
    taken = without.union(*masks.values())
    pattern = labels.images or ""
    images = [
        path
        for path in _match_files(root, "--images", pattern, faults)
        if path not in taken and not _CLOUD_NAME.search(path.stem)
    ]
    groups = {image: {"S2L2A": image} for image in images}
    by_name, by_key = _index_images(images, pattern)
    for kind, paths in masks.items():
        for path in paths:
            candidates = _find_candidates(root, path, patterns[kind] or "", by_name, by_key)
            if len(candidates) > 1:
                names = join_names([str(image) for image in candidates], _MAX_NAMES_SHOWN)
                faults.append(Fault(path, f"mask of several images ({names}); give each image a name of its own"))
            elif not candidates:
                faults.append(
                    Fault(path, "mask without an image that --images matches; add the image or remove the mask")
                )
            elif (known := groups[candidates[0]].setdefault(kind, path)) != path:
                faults.append(Fault(path, f"mask of {candidates[0].name} as well as {known.name}; keep one of the two"))
    for image, group in groups.items():
        if (metadata := image.with_suffix(".json")).is_file():
            group[_METADATA] = metadata
        if clouds := find_cloud_mask(image):
            group["CM"] = clouds
    return [_make_tile(root, _get_tile_name(image), group) for image, group in groups.items()]


def _add_pre_scenes(
    root: Path, tiles: list[TileFiles], scenes: list[Path], labels: LabelOptions, faults: list[Fault]
) -> list[TileFiles]:
    """Adds to each tile the scene before the fire whose name is that of its image, as masks are found."""
    by_name, by_key = _index_images([files.image for files in tiles], labels.images or "*_S2L2A.*")
    found: dict[Path, Path] = {}
    for path in scenes:
        candidates = _find_candidates(root, path, labels.pre or "", by_name, by_key)
        if not candidates:
            faults.append(
                Fault(path, "scene before a fire without an image after it; add the image or remove the scene")
            )
        elif len(candidates) > 1:
            names = join_names([str(image) for image in candidates], _MAX_NAMES_SHOWN)
            faults.append(
                Fault(path, f"scene before the fire of several images ({names}); give each image its own name")
            )
        elif (known := found.setdefault(candidates[0], path)) != path:
            faults.append(Fault(path, f"scene before that of {candidates[0].name} as well as {known.name}; keep one"))
    return [replace(files, pre=found.get(files.image)) for files in tiles]


def _match_files(root: Path, option: str, pattern: str, faults: list[Fault]) -> list[Path]:
    """Returns the files that a pattern matches, sorted, without pictures beside a raster of the same name."""
    suffixes = RASTER_SUFFIXES if option in ("--images", "--pre") else RASTER_SUFFIXES + VECTOR_SUFFIXES
    paths = [Path(root, name) for name in sorted(glob.glob(pattern, root_dir=root, recursive=True))]  # noqa: PTH207
    same, num_faults = defaultdict[Path, list[Path]](list), len(faults)
    for path in paths:
        if path.suffix.lower() in suffixes and path.is_file() and _has_plain_name(path, faults):
            same[path.with_suffix("")].append(path)
    if not same and len(faults) == num_faults:
        what = "no raster" if option in ("--images", "--pre") else "no raster or vector file"
        raise FiresegError(
            f"{option} {pattern}: matches {what} in {root}; write a pattern relative to it, in quotes, such as "
            "'*/images/*.tif' or '**/*_mask.tif'"
        )
    return [_select_file(beside, faults) for beside in same.values()]


def _has_plain_name(path: Path, faults: list[Fault]) -> bool:
    """Returns True if a name can be opened by GDAL and stored in tables; otherwise it is added to the faults."""
    if is_plain_name(path):
        return True
    faults.append(Fault(path, "its name is not UTF-8 or holds control characters; rename it"))
    return False


def _select_file(paths: list[Path], faults: list[Fault]) -> Path:
    """Returns the only file for a purpose; pictures beside it are previews, others are faults."""
    rasters = [path for path in paths if path.suffix.lower() != _PICTURE_SUFFIX] or paths
    faults += [Fault(path, f"duplicate of {rasters[0].name}; keep one of the two") for path in rasters[1:]]
    return rasters[0]


def _index_images(images: list[Path], pattern: str) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Returns the images by name, and by the part of the name that the pattern does not fix."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    by_key: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        for name in {image.stem, _get_tile_name(image)}:
            by_name[name].append(image)
        by_key[_cut_fixed_parts(image, pattern)].append(image)
    return by_name, by_key


def _find_images(mask: Path, by_name: Mapping[str, list[Path]]) -> list[Path]:
    """Returns the images of the name of a mask, or of the longest name to which that of the mask adds words."""
    ends = [len(mask.stem), *(match.start() for match in reversed(list(_ADDED_WORDS.finditer(mask.stem))))]
    return next((by_name[mask.stem[:end]] for end in ends if mask.stem[:end] in by_name), [])


def _find_candidates(
    root: Path,
    path: Path,
    pattern: str,
    by_name: Mapping[str, list[Path]],
    by_key: Mapping[str, list[Path]],
) -> list[Path]:
    """Returns the images that a file belongs to by its name, in the same split."""
    candidates = _find_images(path, by_name) or by_key.get(_cut_fixed_parts(path, pattern), [])
    split = _find_split(root, path)
    return [image for image in candidates if split in ("", _find_split(root, image) or split)]


def _cut_fixed_parts(path: Path, pattern: str) -> str:
    """Returns a file name without the parts that its pattern fixes: `7` of `img_7.tif` and `img_*.tif`."""
    name = Path(pattern).stem
    return path.stem.removeprefix(_WILDCARDS.split(name)[0]).removesuffix(_WILDCARDS.split(name)[-1])


def _get_tile_name(image: Path) -> str:
    match = _FILE.fullmatch(image.stem)
    return match["name"] if match and match["kind"].upper() == "S2L2A" else image.stem


def is_scene_classification_file(path: Path) -> bool:
    """Returns True if the name of a raster says that it is a scene classification (SCL)."""
    return _SCL_NAME.search(path.stem) is not None


def find_cloud_mask(scene: Path) -> Path | None:
    """Finds the cloud mask beside a scene: `<name>_CM.tif` or `<name>_SCL.tif`, in upper or lower case.

    Args:
        scene: Raster, `<name>.tif` or `<name>_S2L2A.tif`.
    """
    stem = scene.stem.lower()
    names = [
        f"{name}_{kind}{suffix}"
        for kind in ("cm", "scl")
        for name in dict.fromkeys((stem, stem.removesuffix("_s2l2a")))
        for suffix in RASTER_SUFFIXES
    ]
    files = {path.name.lower(): path for path in scene.parent.iterdir()} if scene.parent.is_dir() else {}
    return next((files[name] for name in names if name in files and files[name] != scene), None)


def find_pre_scene(scene: Path) -> Path | None:
    """Finds the scene before the fire beside a scene: `<name>_PRE.tif`, or `<name>_before.tif` as `fetch` names it.

    Args:
        scene: Raster, `<name>.tif` or `<name>_S2L2A.tif`.
    """
    stems = dict.fromkeys((scene.stem, re.sub("_S2L2A$", "", scene.stem, flags=re.IGNORECASE)))
    # Tried by name: to list the folder for each of thousands of scenes would take longer.
    paths = (
        scene.with_name(f"{stem}{end}{suffix}")
        for stem in stems
        for end in (PRE_SUFFIX, PRE_SUFFIX.lower(), "_before")
        for suffix in RASTER_SUFFIXES
        if suffix != _PICTURE_SUFFIX
    )
    return next((path for path in paths if path.is_file()), None)


def report_orphan_masks(name: str, masks: Iterable[Path]) -> list[Fault]:
    """Returns a fault for each mask of a tile without an image."""
    return [
        Fault(path, f"mask without an image {name}_S2L2A.tif; download or unpack the image, or remove the mask")
        for path in masks
    ]


def _walk(root: Path, faults: list[Fault]) -> Iterator[Path]:
    """Yields files sorted by folder and name; each folder once, even if links form a cycle."""

    def report(error: OSError) -> None:
        faults.append(Fault(Path(error.filename), f"cannot be read ({error.strerror}); check its permissions"))

    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=report):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _make_tile(root: Path, name: str, group: Mapping[str, Path]) -> TileFiles:
    parts = group["S2L2A"].relative_to(root).parent.parts
    # The tile name has priority; the folder of an activation may hold tiles under other names.
    codes = [match[0].upper() for text in (name, *reversed(parts)) if (match := _ACTIVATION.search(text))]
    return TileFiles(
        name=name,
        split=_find_split(root, group["S2L2A"]),
        activation=codes[0] if codes else name,
        image=group["S2L2A"],
        delineation=group.get("DEL"),
        grading=group.get("GRA"),
        cloud=group.get("CM", group.get("SCL")),
        metadata=group.get(_METADATA),
        landcover=next((group[kind] for kind in _LANDCOVER.values() if kind in group), None),
    )


def _find_split(root: Path, path: Path) -> str:
    parts = (part.lower() for part in path.relative_to(root).parent.parts)
    return next((part for part in parts if part in SPLITS), "")


def _check_splits(root: Path, tiles: list[TileFiles]) -> list[Fault]:
    """Finds tiles that are in two splits, twice in one split, or outside the splits that other tiles are in."""
    faults = []
    first: dict[tuple[str, str], Path] = {}
    for files in tiles:
        folders = {part.lower() for part in files.image.relative_to(root).parent.parts} & set(SPLITS)
        if len(folders) > 1:
            faults.append(Fault(files.image, f"in the folders {' and '.join(sorted(folders))}; keep it in one split"))
        known = first.setdefault((files.split, files.name), files.image)
        if known != files.image:
            faults.append(Fault(files.image, f"another tile has the same name, {known}; remove one of the two"))
    outside = [files.name for files in tiles if not files.split]
    if outside and len(outside) < len(tiles):
        shown = join_names(outside, _MAX_NAMES_SHOWN)
        what = f"{len(outside)} tiles are outside train, val and test ({shown}), but the others are inside; move them"
        faults.append(Fault(root, what))
    return faults
