"""Downloads the CEMS wildfire data set: prints size and licence, resumes, verifies checksums and unpacks."""

from __future__ import annotations

import argparse
import errno
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cems_folder import describe_tiles, is_complete, is_foreign, publish
from filelock import FileLock, Timeout
from hub_files import RESUME_HINT, HubFile, Listing, fetch, format_bytes, list_files, print_line
from split_archives import group_parts, unpack
from tqdm import tqdm

from fireseg.console import format_command, print_error
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
# The 433 tiles, twelve float32 bands and the masks, take at most 41 GB; their archives 18.3 GB.
_UNPACKED_RATIO = 2.4
_STORE, _STAGING = ".download", "unpacking"

Plan = dict[str, dict[str, tuple[HubFile, ...]]]  # split -> archive -> its parts


def main() -> int:
    """Downloads the missing splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="output folder of train/, val/ and test/, such as data/cems")
    parser.add_argument(
        "--splits", nargs="+", choices=SPLITS, default=list(SPLITS), help="splits to download (default: all)"
    )
    parser.add_argument(
        "--yes", action="store_true", help="do not ask for confirmation (never asked without a terminal)"
    )
    parser.add_argument("--keep-archives", action="store_true", help="keep the archives after unpacking")
    parser.add_argument(
        "--retries",
        type=int,
        default=8,
        help="consecutive connections without data before giving up (default: %(default)s)",
    )
    options = parser.parse_args()
    splits = list(dict.fromkeys(options.splits))
    try:
        with _lock_folder(options.folder):
            download(
                options.folder, splits, confirm=not options.yes, keep=options.keep_archives, retries=options.retries
            )
    except FiresegError as error:
        return print_error(error)
    except KeyboardInterrupt:
        print(f"Stopped; {RESUME_HINT}.", file=sys.stderr)
        return 130
    return 0


def download(root: Path, splits: Sequence[str], *, confirm: bool, keep: bool, retries: int) -> None:
    """Downloads and unpacks every split that is not complete into `root/<split>`.

    Args:
        root: Folder of the data set.
        splits: Names from `SPLITS`.
        confirm: If True, asks for confirmation at a terminal.
        keep: If True, keeps the archives after unpacking.
        retries: Number of consecutive connections without data before giving up.

    Raises:
        FiresegError: If the hub, the network or the disk fails.
    """
    missing = [split for split in splits if not is_complete(root / split)]
    shutil.rmtree(root / _STORE / _STAGING, ignore_errors=True)
    for split in splits:
        if split not in missing:
            print_line(f"{root / split}: complete, {describe_tiles(root / split)}")
            _clear(root, split, keep=keep)
    if not missing:
        print_line("Nothing to download.")
        return
    if foreign := [root / split for split in missing if is_foreign(root / split)]:
        raise FiresegError(*(f"{path}: exists and was not made by this script; move it away" for path in foreign))
    listing = list_files(REPO)
    plan = plan_splits(listing, missing)
    print_plan(listing, plan, root)
    check_disk_space(root, plan, keep=keep)
    if confirm and sys.stdin.isatty() and not _is_confirmed("Download? [y/N] "):
        print_line("Nothing was downloaded.")
        return
    for split, archives in plan.items():
        download_split(listing, split, archives, root, retries=retries)
        print_line(f"{root / split}: {describe_tiles(root / split)}")
        _clear(root, split, keep=keep)
    print_line(f"Next: {format_command('prepare', root, 'patches')}")


def plan_splits(listing: Listing, splits: Sequence[str]) -> Plan:
    """Finds the archives of each split, the largest split first, because the free disk space shrinks.

    Raises:
        FiresegError: If a split has no archive, or a part is missing.
    """
    files = {file.path: file for file in listing.files}
    plan: Plan = {split: {} for split in splits}
    for name, parts in group_parts(files).items():
        # The split is in the name of a folder or of the file.
        words = re.split(r"[/._-]", name.lower())
        split = next((split for word in words for split in SPLITS if word.startswith(split)), "")
        if split in plan:
            plan[split][name] = tuple(files[part] for part in parts)
    if empty := [split for split, archives in plan.items() if not archives]:
        raise FiresegError(
            f"{listing.repo}: no archive of {', '.join(empty)} among the {len(files)} files at {listing.endpoint}; "
            "the data set has changed: download it in a browser and unpack it by hand"
        )
    return dict(sorted(plan.items(), key=lambda item: -_count_bytes(item[1])))


def print_plan(listing: Listing, plan: Plan, root: Path) -> None:
    """Prints source, licence, citation, sizes and target folders of the download."""
    print_line(f"CEMS wildfire data set  {listing.repo} at {listing.endpoint}, version {listing.revision[:12]}")
    changed = "" if listing.licence.lower() == LICENCE else f" (formerly {LICENCE.upper()}; read it at the URL above)"
    print_line(f"licence   {listing.licence.upper()}{changed}: credit the authors wherever you use the data")
    for label, line in zip(("cite", "", ""), CITATION, strict=True):
        print_line(f"{label:9} {line}")
    for number, (split, archives) in enumerate(plan.items()):
        count = sum(len(parts) for parts in archives.values())
        print_line(f"{'' if number else 'size':9} {split:5} {format_bytes(_count_bytes(archives)):>8} in {count} files")
    total = sum(map(_count_bytes, plan.values()))
    print_line(f"          {format_bytes(total)} to download, about {format_bytes(total * _UNPACKED_RATIO)} unpacked")
    if downloaded := _count_downloaded(root, plan):
        print_line(f"          {format_bytes(downloaded)} of it already downloaded")
    print_line(f"folders   {', '.join(str(root / split) for split in plan)}")


def check_disk_space(root: Path, plan: Plan, *, keep: bool) -> None:
    """Checks that the disk has room for the peak of archives and unpacked files.

    Raises:
        FiresegError: If the disk has too little free space.
    """
    used = peak = 0.0
    for archives in plan.values():
        size = _count_bytes(archives)
        peak = max(peak, used + size * (1 + _UNPACKED_RATIO))
        used += size * (_UNPACKED_RATIO + keep)
    required, free = peak - _count_downloaded(root, plan), shutil.disk_usage(root).free
    if free < required:
        raise FiresegError(
            f"{root}: {format_bytes(free)} free, but about {format_bytes(required)} needed while unpacking; "
            "free disk space, choose a folder on another disk, or download fewer splits with --splits"
        )
    print_line(f"disk      about {format_bytes(required)} needed while unpacking, {format_bytes(free)} free")


def download_split(
    listing: Listing, split: str, archives: Mapping[str, Sequence[HubFile]], root: Path, *, retries: int
) -> None:
    """Downloads, verifies and unpacks one split; its folder is renamed into place when it is complete.

    Raises:
        FiresegError: If a part cannot be downloaded or verified, the archive is broken, or the disk is full.
    """
    staging = root / _STORE / _STAGING
    try:
        archive_paths = _fetch_parts(listing, split, archives, root, retries=retries)
        staging.mkdir()
        with _bar(f"{split}: unpacking", _count_bytes(archives)) as bar:
            for parts in archive_paths:
                unpack(parts, staging, advance=bar.update)
        source = {"repo": listing.repo, "revision": listing.revision, "licence": listing.licence}
        sums = {file.path: file.sha256 for parts in archives.values() for file in parts}
        publish(staging, root / split, {"source": source, "citation": " ".join(CITATION), "archives": sums})
        shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise FiresegError(f"{root}: the disk is full; free disk space ({RESUME_HINT})") from error
        raise disk_error(root, error) from error


def _is_confirmed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _fetch_parts(
    listing: Listing, split: str, archives: Mapping[str, Sequence[HubFile]], root: Path, *, retries: int
) -> list[list[Path]]:
    archive_paths = [[root / _STORE / split / file.path for file in parts] for parts in archives.values()]
    with _bar(f"{split}: downloading", _count_bytes(archives)) as bar:
        for parts, paths in zip(archives.values(), archive_paths, strict=True):
            for file, path in zip(parts, paths, strict=True):
                fetch(listing.get_url(file), file, path, retries=retries, advance=bar.update)
                check = "checksum verified" if file.sha256 else "size verified"
                print_line(f"{file.path}: {format_bytes(file.size)}, {check}")
    return archive_paths


def _clear(root: Path, split: str, *, keep: bool) -> None:
    store = root / _STORE / split
    if not keep:
        shutil.rmtree(store, ignore_errors=True)
    elif store.exists():
        print_line(f"{store}: archives kept")


def _count_bytes(archives: Mapping[str, Sequence[HubFile]]) -> int:
    return sum(file.size for parts in archives.values() for file in parts)


def _count_downloaded(root: Path, plan: Plan) -> int:
    stores = (root / _STORE / split for split in plan)
    return sum(path.stat().st_size for store in stores for path in store.rglob("*") if path.is_file())


def _bar(label: str, total: int) -> tqdm:
    """Creates a progress bar with the remaining time; disabled without a terminal."""
    return tqdm(
        desc=label, total=total, unit="B", unit_scale=True, smoothing=0.05, leave=False, disable=not sys.stderr.isatty()
    )


@contextmanager
def _lock_folder(root: Path) -> Iterator[None]:
    try:
        (root / _STORE).mkdir(parents=True, exist_ok=True)
        with FileLock(root / _STORE / "lock", timeout=0):
            yield
    except Timeout as error:
        raise FiresegError(f"{root}: another download into this folder is running; wait for it or stop it") from error
    except OSError as error:
        raise disk_error(root, error) from error


if __name__ == "__main__":
    sys.exit(main())
