"""The download of the CEMS data set: what is said, what arrives, and what is left alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from tests.scripts.conftest import ROOT, Run
from tests.scripts.look_alike_cems import PARTS, SIZES, TILES, TRAIN, VAL, pack, read, split_up
from tests.scripts.look_alike_hub import REVISION, LookAlikeHub


def test_all_splits_arrive_in_the_layout_of_cems(hub: LookAlikeHub, run: Run, tmp_path: Path) -> None:
    code, out, error = run()
    assert (code, error) == (0, "")
    for split, tiles in TILES.items():
        assert read(tmp_path / "cems" / split) == tiles
    assert f"{tmp_path}/cems/train: 4 tiles (4 DEL, 3 GRA, 4 CM), 19 files" in out
    assert f"Next: python -m fireseg.prepare {tmp_path}/cems patches" in out
    assert hub.sent == SIZES
    assert [path for path in (tmp_path / "cems" / ".download").rglob("*") if path.name != "lock"] == []


def test_size_licence_and_citation_are_said_before_anything_comes(hub: LookAlikeHub, run: Run) -> None:
    _, out, _ = run("--splits", "val")
    before, _ = out.split("data/val/val.tar.00.gz.part")
    size = sum(SIZES[path] for path in VAL) / 1000
    assert "licence   CC-BY-4.0: name the authors" in before
    assert "Robust Burned Area Delineation" in before
    assert f"{size:.3g} kB to download, about {size * 2.4:.3g} kB unpacked" in before
    assert hub.address in before


def test_another_licence_than_expected_is_pointed_out(hub: LookAlikeHub, run: Run) -> None:
    hub.licence = "cc-by-nc-4.0"
    _, out, _ = run("--splits", "val")
    assert "licence   CC-BY-NC-4.0 (was CC-BY-4.0: read it at the address above)" in out


def test_what_came_is_recorded_beside_it(run: Run, tmp_path: Path) -> None:
    run("--splits", "val")
    record = json.loads((tmp_path / "cems/val/download.json").read_text())
    assert record["source"] == {"repo": "links-ads/wildfires-cems", "revision": REVISION, "licence": "cc-by-4.0"}
    assert list(record["archives"]) == VAL
    assert record["files"] == {name: len(content) for name, content in TILES["val"].items()}


def test_a_second_call_needs_no_hub(hub: LookAlikeHub, run: Run) -> None:
    run()
    hub.requests.clear()
    code, out, error = run()
    assert (code, error, hub.requests) == (0, "", [])
    assert out.endswith("Nothing to download.\n")


def test_too_small_a_disk_is_said_before_anything_comes(hub: LookAlikeHub, run: Run) -> None:
    hub.claims[VAL[0]] = 10**18
    code, _, error = run("--splits", "val")
    assert code == 1
    assert re.search(r"/cems: \S+ [GT]B are free, but about 3\.4e\+06 TB are wanted", error)
    assert not hub.sent


def test_a_missing_part_is_said_before_anything_comes(hub: LookAlikeHub, run: Run) -> None:
    del hub.files[TRAIN[2]]
    code, _, error = run("--splits", "train")
    assert code == 1
    assert "data/train/train.tar.gz: number 2 of its parts is missing" in error
    assert not hub.sent


def test_an_archive_that_ends_too_early_makes_no_folder(hub: LookAlikeHub, run: Run, tmp_path: Path) -> None:
    del hub.files[TRAIN[3]]
    code, _, error = run("--splits", "train")
    assert code == 1
    assert "no whole archive together" in error
    assert not (tmp_path / "cems/train").exists()


def test_an_archive_without_tiles_is_refused(hub: LookAlikeHub, run: Run, tmp_path: Path) -> None:
    hub.files |= split_up(pack({"readme.txt": b"moved"}, under="val/"), VAL)
    code, _, error = run("--splits", "val")
    assert code == 1
    assert "no tile (…_S2L2A.tif) was in its archive" in error
    assert not (tmp_path / "cems/val").exists()


@pytest.mark.parametrize("under", ["", "val/", "data/val/", "./"])
def test_folders_around_the_activations_are_taken_off(hub: LookAlikeHub, run: Run, tmp_path: Path, under: str) -> None:
    hub.files |= split_up(pack(TILES["val"], under=under), VAL)
    assert run("--splits", "val")[0] == 0
    assert read(tmp_path / "cems/val") == TILES["val"]


def test_what_a_killed_unpacking_left_is_not_taken_for_data(run: Run, tmp_path: Path) -> None:
    left = tmp_path / "cems/.download/unpacking/EMSR999/EMSR999_AOI01_01_S2L2A.tif"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert run("--splits", "val")[0] == 0
    assert read(tmp_path / "cems/val") == TILES["val"]
    assert not left.exists()


def test_files_deleted_later_come_back_and_others_stay(run: Run, tmp_path: Path) -> None:
    run("--splits", "val")
    folder = tmp_path / "cems/val"
    next(folder.rglob("*_DEL.tif")).unlink()
    (folder / "notes.txt").write_text("mine")
    assert run("--splits", "val")[0] == 0
    assert read(folder) == {**TILES["val"], "notes.txt": b"mine"}


def test_a_folder_of_others_is_left_alone(hub: LookAlikeHub, run: Run, tmp_path: Path) -> None:
    (tmp_path / "cems/val").mkdir(parents=True)
    (tmp_path / "cems/val/mine.tif").write_bytes(b"mine")
    code, _, error = run()
    assert (code, hub.requests) == (1, [])
    assert error == f"fireseg: {tmp_path}/cems/val: exists, and was not made by this script; move it away\n"


def test_kept_archives_are_the_ones_of_the_hub_until_a_call_without_them(run: Run, tmp_path: Path) -> None:
    store = tmp_path / "cems/.download/val"
    _, out, _ = run("--splits", "val", "--keep-archives")
    assert f"{store}: the archives, kept" in out
    assert read(store) == {path: PARTS[path] for path in VAL}
    assert run("--splits", "val")[0] == 0
    assert not store.exists()


def test_two_downloads_into_one_folder_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cems/.download").mkdir(parents=True)
    with FileLock(tmp_path / "cems/.download/lock"):
        code, _, error = run()
    assert code == 1
    assert error == f"fireseg: {tmp_path}/cems: another download is at work there; wait for it, or stop it\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminal")
@pytest.mark.parametrize(("answer", "comes"), [("n\n", False), ("y\n", True)])
def test_at_a_terminal_it_asks_first(hub: LookAlikeHub, tmp_path: Path, answer: str, comes: bool) -> None:
    import pty

    ours, theirs = pty.openpty()
    given = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, str(ROOT / "scripts/download_cems.py"), str(tmp_path / "cems"), "--splits", "val"]
    os.write(ours, answer.encode())
    done = subprocess.run(
        command,
        env={**given, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    os.close(ours)
    os.close(theirs)
    assert "Download? [y/N]" in done.stdout
    assert bool(hub.sent) == comes
    assert ("Nothing was downloaded." in done.stdout) != comes
