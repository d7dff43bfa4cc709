"""Downloads the CEMS wildfire data set: says size and licence first, goes on where it stopped, checks, unpacks."""

from __future__ import annotations

import argparse
import errno
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cems_folder import describe_tiles, is_complete, is_foreign, settle
from filelock import FileLock, Timeout
from hub_files import HubFile, Listing, fetch, format_bytes, list_files, say
from split_archives import group_parts, unpack
from tqdm import tqdm

from fireseg.errors import FiresegError
from fireseg.files import disk_error

REPO = "links-ads/wildfires-cems"
LICENCE = "cc-by-4.0"
CITATION = (
    "E. Arnaudo, L. Barco, M. Merlo, C. Rossi (2023): Robust Burned Area Delineation through Multitask Learning.",
    "ECML PKDD workshop MACLEAN, doi:10.1007/978-3-031-74633-8_32; data doi:10.57967/hf/2047.",
    "Contains Copernicus Emergency Management Service products and modified Copernicus Sentinel data.",
)
SPLITS = ("train", "val", "test")
# Twelve bands of float32 and the masks are at most 41 GB for the 433 tiles, and their archives 18.3 GB.
_UNPACKED = 2.4
_STORE, _STAGING = ".download", "unpacking"

Plan = dict[str, dict[str, tuple[HubFile, ...]]]  # split -> archive -> its parts


def main() -> int:
    """Downloads what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where train/, val/ and test/ go, such as data/cems")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS), help="only these (all three)")
    parser.add_argument("--yes", action="store_true", help="begin without asking (nobody is asked without a terminal)")
    parser.add_argument("--keep-archives", action="store_true", help="keep the archives after unpacking")
    parser.add_argument(
        "--retries", type=int, default=8, help="connections in a row that may bring nothing (%(default)s)"
    )
    chosen = parser.parse_args()
    splits = list(dict.fromkeys(chosen.splits))
    try:
        with _alone_in(chosen.folder):
            download(chosen.folder, splits, ask=not chosen.yes, keep=chosen.keep_archives, retries=chosen.retries)
    except FiresegError as error:
        print(f"fireseg: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Stopped. What is here is kept, and the same command goes on from there.", file=sys.stderr)
        return 130
    return 0


def download(root: Path, splits: Sequence[str], *, ask: bool, keep: bool, retries: int) -> None:
    """Makes `root/<split>` of every split that is not there yet.

    Args:
        root: The folder of the data set.
        splits: Of `SPLITS`.
        ask: Whether a person at a terminal is asked first.
        keep: Whether the archives stay after unpacking.
        retries: How often in a row a connection may bring nothing.

    Raises:
        FiresegError: If the hub, the network or the disk does not allow it.
    """
    missing = [split for split in splits if not is_complete(root / split)]
    shutil.rmtree(root / _STORE / _STAGING, ignore_errors=True)
    for split in splits:
        if split not in missing:
            say(f"{root / split}: complete, {describe_tiles(root / split)}")
            _clear(root, split, keep=keep)
    if not missing:
        say("Nothing to download.")
        return
    if foreign := [root / split for split in missing if is_foreign(root / split)]:
        raise FiresegError(*(f"{path}: exists, and was not made by this script; move it away" for path in foreign))
    listing = list_files(REPO)
    plan = plan_splits(listing, missing)
    describe(listing, plan, root)
    check_room(root, plan, keep=keep)
    if ask and sys.stdin.isatty() and not _agrees("Download? [y/N] "):
        say("Nothing was downloaded.")
        return
    for split, archives in plan.items():
        obtain(listing, split, archives, root, retries=retries)
        say(f"{root / split}: {describe_tiles(root / split)}")
        _clear(root, split, keep=keep)
    say(f"Next: python -m fireseg.prepare {root} patches")


def plan_splits(listing: Listing, splits: Sequence[str]) -> Plan:
    """Finds the archives of each split, the largest split first: the fuller the disk, the less is still wanted.

    Raises:
        FiresegError: If a split has no archive, or a part is missing.
    """
    files = {file.path: file for file in listing.files}
    plan: Plan = {split: {} for split in splits}
    for name, parts in group_parts(files).items():
        # The folder says it, or the name; `train` may stand in both.
        words = re.split(r"[/._-]", name.lower())
        split = next((split for word in words for split in SPLITS if word.startswith(split)), "")
        if split in plan:
            plan[split][name] = tuple(files[part] for part in parts)
    if empty := [split for split, archives in plan.items() if not archives]:
        raise FiresegError(
            f"{listing.repo}: no archive of {', '.join(empty)} among its {len(files)} files at {listing.endpoint}; "
            "the data set has changed: look there, and unpack by hand"
        )
    return dict(sorted(plan.items(), key=lambda item: -_count_bytes(item[1])))


def describe(listing: Listing, plan: Plan, root: Path) -> None:
    """Prints what will come, from where, under which licence, and how large it is."""
    say(f"CEMS wildfire data set  {listing.repo} at {listing.endpoint}, version {listing.revision[:12]}")
    changed = "" if listing.licence.lower() == LICENCE else f" (was {LICENCE.upper()}: read it at the address above)"
    say(f"licence   {listing.licence.upper()}{changed}: name the authors wherever you use it")
    for label, line in zip(("cite", "", ""), CITATION, strict=True):
        say(f"{label:9} {line}")
    for number, (split, archives) in enumerate(plan.items()):
        count = sum(len(parts) for parts in archives.values())
        say(f"{'' if number else 'size':9} {split:5} {format_bytes(_count_bytes(archives)):>8} in {count} files")
    total = sum(map(_count_bytes, plan.values()))
    say(f"          {format_bytes(total)} to download, about {format_bytes(total * _UNPACKED)} unpacked")
    if here := _count_here(root, plan):
        say(f"          {format_bytes(here)} of it came in an earlier call")
    say(f"into      {', '.join(str(root / split) for split in plan)}")


def check_room(root: Path, plan: Plan, *, keep: bool) -> None:
    """Compares the free disk with the most that is ever held at once.

    Raises:
        FiresegError: If there is too little room.
    """
    held = peak = 0.0
    for archives in plan.values():
        size = _count_bytes(archives)
        peak = max(peak, held + size * (1 + _UNPACKED))
        held += size * (_UNPACKED + keep)
    wanted, free = peak - _count_here(root, plan), shutil.disk_usage(root).free
    if free < wanted:
        raise FiresegError(
            f"{root}: {format_bytes(free)} are free, but about {format_bytes(wanted)} are wanted while it unpacks; "
            "make room, name a folder on another disk, or take less with --splits"
        )
    say(f"disk      about {format_bytes(wanted)} wanted while it unpacks, {format_bytes(free)} free")


def obtain(
    listing: Listing, split: str, archives: Mapping[str, Sequence[HubFile]], root: Path, *, retries: int
) -> None:
    """Downloads, checks and unpacks one split; its folder appears when it is whole.

    Raises:
        FiresegError: If a part does not come or comes wrong, the archive is broken, or the disk is full.
    """
    staging = root / _STORE / _STAGING
    try:
        places = _fetch_parts(listing, split, archives, root, retries=retries)
        staging.mkdir()
        with _bar(f"{split}: unpacking", _count_bytes(archives)) as bar:
            for parts in places:
                unpack(parts, staging, advance=bar.update)
        source = {"repo": listing.repo, "revision": listing.revision, "licence": listing.licence}
        sums = {file.path: file.sha256 for parts in archives.values() for file in parts}
        settle(staging, root / split, {"source": source, "citation": " ".join(CITATION), "archives": sums})
        shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise FiresegError(
                f"{root}: the disk is full; make room (what is here is kept, and the same command goes on from there)"
            ) from error
        raise disk_error(root, error) from error


def _agrees(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _fetch_parts(
    listing: Listing, split: str, archives: Mapping[str, Sequence[HubFile]], root: Path, *, retries: int
) -> list[list[Path]]:
    places = [[root / _STORE / split / file.path for file in parts] for parts in archives.values()]
    with _bar(f"{split}: downloading", _count_bytes(archives)) as bar:
        for parts, paths in zip(archives.values(), places, strict=True):
            for file, path in zip(parts, paths, strict=True):
                fetch(listing.get_url(file), file, path, retries=retries, advance=bar.update)
                say(f"{file.path}: {format_bytes(file.size)}, {'checked' if file.sha256 else 'size checked'}")
    return places


def _clear(root: Path, split: str, *, keep: bool) -> None:
    store = root / _STORE / split
    if not keep:
        shutil.rmtree(store, ignore_errors=True)
    elif store.exists():
        say(f"{store}: the archives, kept")


def _count_bytes(archives: Mapping[str, Sequence[HubFile]]) -> int:
    return sum(file.size for parts in archives.values() for file in parts)


def _count_here(root: Path, plan: Plan) -> int:
    stores = (root / _STORE / split for split in plan)
    return sum(path.stat().st_size for store in stores for path in store.rglob("*") if path.is_file())


def _bar(label: str, total: int) -> tqdm:
    """With the time left; none without a terminal."""
    return tqdm(
        desc=label, total=total, unit="B", unit_scale=True, smoothing=0.05, leave=False, disable=not sys.stderr.isatty()
    )


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    try:
        (root / _STORE).mkdir(parents=True, exist_ok=True)
        with FileLock(root / _STORE / "lock", timeout=0):
            yield
    except Timeout as error:
        raise FiresegError(f"{root}: another download is at work there; wait for it, or stop it") from error
    except OSError as error:
        raise disk_error(root, error) from error


if __name__ == "__main__":
    sys.exit(main())
