"""Download of the CEMS data set: messages, files and folders."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from tests.scripts.builders import (
    PARTS,
    REVISION,
    ROOT,
    SIZES,
    TILES,
    TRAIN,
    VAL,
    FakeHub,
    pack_tar,
    read_files,
    split_archive,
)
from tests.scripts.conftest import Run


def test_all_splits_are_downloaded_in_the_layout_of_cems(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    code, out, error = run()
    assert (code, error) == (0, "")
    for split, tiles in TILES.items():
        assert read_files(tmp_path / "cems" / split) == tiles
    assert f"{tmp_path}/cems/train: 4 tiles (4 DEL, 3 GRA, 4 CM), 19 files" in out
    assert f"Next: python -m fireseg.prepare {tmp_path}/cems patches" in out
    assert hub.sent == SIZES
    assert [path for path in (tmp_path / "cems" / ".download").rglob("*") if path.name != "lock"] == []


def test_size_licence_and_citation_are_printed_before_the_download(hub: FakeHub, run: Run) -> None:
    _, out, _ = run("--splits", "val")
    before, _ = out.split("data/val/val.tar.00.gz.part")
    size = sum(SIZES[path] for path in VAL) / 1000
    assert "licence   CC-BY-4.0: credit the authors" in before
    assert "Robust Burned Area Delineation" in before
    assert f"{size:.3g} kB to download, about {size * 2.4:.3g} kB unpacked" in before
    assert hub.address in before


def test_a_changed_licence_is_pointed_out(hub: FakeHub, run: Run) -> None:
    hub.licence = "cc-by-nc-4.0"
    _, out, _ = run("--splits", "val")
    assert "licence   CC-BY-NC-4.0 (formerly CC-BY-4.0;" in out


def test_the_download_is_recorded(run: Run, tmp_path: Path) -> None:
    run("--splits", "val")
    record = json.loads((tmp_path / "cems/val/download.json").read_text())
    assert record["source"] == {"repo": "links-ads/wildfires-cems", "revision": REVISION, "licence": "cc-by-4.0"}
    assert list(record["archives"]) == VAL
    assert record["files"] == {name: len(content) for name, content in TILES["val"].items()}


def test_a_second_call_does_not_contact_the_hub(hub: FakeHub, run: Run) -> None:
    run()
    hub.requests.clear()
    code, out, error = run()
    assert (code, error, hub.requests) == (0, "", [])
    assert out.endswith("Nothing to download.\n")


def test_a_full_disk_is_an_error_before_the_download(hub: FakeHub, run: Run) -> None:
    hub.sizes[VAL[0]] = 10**18
    code, _, error = run("--splits", "val")
    assert code == 1
    assert re.search(r"/cems: \S+ [GT]B free, but about 3\.4e\+06 TB needed .*--splits", error)
    assert not hub.sent


def test_a_missing_part_is_an_error_before_the_download(hub: FakeHub, run: Run) -> None:
    del hub.files[TRAIN[2]]
    code, _, error = run("--splits", "train")
    assert code == 1
    assert "data/train/train.tar.gz: part 2 is missing" in error
    assert not hub.sent


def test_a_truncated_archive_makes_no_folder(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    del hub.files[TRAIN[3]]
    code, _, error = run("--splits", "train")
    assert code == 1
    assert "not a complete archive" in error
    assert not (tmp_path / "cems/train").exists()


def test_an_archive_without_tiles_is_an_error(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    hub.files |= split_archive(pack_tar({"readme.txt": b"moved"}, prefix="val/"), VAL)
    code, _, error = run("--splits", "val")
    assert code == 1
    assert "no tile (…_S2L2A.tif)" in error
    assert not (tmp_path / "cems/val").exists()


@pytest.mark.parametrize("prefix", ["", "val/", "data/val/", "./"])
def test_folders_around_the_activations_are_removed(hub: FakeHub, run: Run, tmp_path: Path, prefix: str) -> None:
    hub.files |= split_archive(pack_tar(TILES["val"], prefix=prefix), VAL)
    assert run("--splits", "val")[0] == 0
    assert read_files(tmp_path / "cems/val") == TILES["val"]


def test_files_of_an_interrupted_unpacking_are_removed(run: Run, tmp_path: Path) -> None:
    left = tmp_path / "cems/.download/unpacking/EMSR999/EMSR999_AOI01_01_S2L2A.tif"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert run("--splits", "val")[0] == 0
    assert read_files(tmp_path / "cems/val") == TILES["val"]
    assert not left.exists()


def test_deleted_files_are_restored_and_other_files_kept(run: Run, tmp_path: Path) -> None:
    run("--splits", "val")
    folder = tmp_path / "cems/val"
    next(folder.rglob("*_DEL.tif")).unlink()
    (folder / "notes.txt").write_text("mine")
    assert run("--splits", "val")[0] == 0
    assert read_files(folder) == {**TILES["val"], "notes.txt": b"mine"}


def test_a_folder_with_other_files_is_an_error(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    (tmp_path / "cems/val").mkdir(parents=True)
    (tmp_path / "cems/val/mine.tif").write_bytes(b"mine")
    code, _, error = run()
    assert (code, hub.requests) == (1, [])
    assert error.startswith(f"fireseg: {tmp_path}/cems/val: exists")
    assert error.endswith("; move it away\n")


def test_archives_are_kept_until_a_call_without_the_option(run: Run, tmp_path: Path) -> None:
    store = tmp_path / "cems/.download/val"
    _, out, _ = run("--splits", "val", "--keep-archives")
    assert f"{store}: archives kept" in out
    assert read_files(store) == {path: PARTS[path] for path in VAL}
    assert run("--splits", "val")[0] == 0
    assert not store.exists()


def test_a_second_download_into_the_same_folder_is_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cems/.download").mkdir(parents=True)
    with FileLock(tmp_path / "cems/.download/lock"):
        code, _, error = run()
    assert code == 1
    assert error.startswith(f"fireseg: {tmp_path}/cems: another download")


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminal")
@pytest.mark.parametrize(("answer", "is_downloaded"), [("n\n", False), ("y\n", True)])
def test_at_a_terminal_the_download_needs_confirmation(
    hub: FakeHub, tmp_path: Path, answer: str, is_downloaded: bool
) -> None:
    import pty

    master, terminal = pty.openpty()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, str(ROOT / "scripts/download_cems.py"), str(tmp_path / "cems"), "--splits", "val"]
    os.write(master, answer.encode())
    done = subprocess.run(
        command,
        env={**variables, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        stdin=terminal,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    os.close(master)
    os.close(terminal)
    assert "Download? [y/N]" in done.stdout
    assert bool(hub.sent) == is_downloaded
    assert ("Nothing was downloaded." in done.stdout) != is_downloaded
