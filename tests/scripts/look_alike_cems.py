"""A look-alike of the CEMS data set: small tiles, in archives that are cut as the published ones are."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np

TRAIN = [f"data/train/train.tar.{number:04d}.gz.part" for number in range(4)]
VAL = [f"data/val/val.tar.{number:02d}.gz.part" for number in range(2)]
TEST = [f"data/test/test.tar.{number:04d}.gz.part" for number in range(2)]


def make_tiles(split: str, count: int, *, kilobytes: int = 100) -> dict[str, bytes]:
    """Files of a split, by their path in its folder; one tile has no GRA."""
    rng = np.random.default_rng(len(split))
    files = {}
    for number in range(count):
        name = f"EMSR{200 + number}_AOI01_01"
        kinds = ["S2L2A.tif", "DEL.tif", "CM.tif", "S2L2A.json"] + (["GRA.tif"] if number else [])
        for kind in kinds:
            size = kilobytes * 1000 if kind == "S2L2A.tif" else 500
            files[f"EMSR{200 + number}/AOI01/{name}/{name}_{kind}"] = rng.bytes(size)
    return files


def pack(files: dict[str, bytes], *, under: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, value in files.items():
            member = tarfile.TarInfo(f"{under}{name}")
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
    return content.getvalue()


def split_up(content: bytes, paths: list[str]) -> dict[str, bytes]:
    """Cuts as the publishers do: equal parts, and a shorter last one."""
    step = len(content) // len(paths) + 1
    return {path: content[number * step : (number + 1) * step] for number, path in enumerate(paths)}


TILES = {"train": make_tiles("train", 4), "val": make_tiles("val", 2), "test": make_tiles("test", 1)}
PARTS = {
    path: content
    for (split, tiles), paths in zip(TILES.items(), (TRAIN, VAL, TEST), strict=True)
    for path, content in split_up(pack(tiles, under=f"{split}/"), paths).items()
}
SIZES = {path: len(content) for path, content in PARTS.items()}


def read(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "download.json"
    }
