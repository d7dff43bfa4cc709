"""Downloads from the hub: interrupted, killed, corrupted and rejected."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.scripts.builders import SIZES, TILES, TRAIN, VAL, FakeHub, read_files
from tests.scripts.conftest import Run, Start

RESUME_HINT = "run the same command again to continue"


def test_a_second_call_resumes_an_interrupted_download(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    hub.stop_at[TRAIN[1]] = 60_000
    code, _, error = run("--retries", "0", "--splits", "train")
    assert code == 1
    assert error.startswith(
        f"fireseg: {TRAIN[1]}: 60 kB of {SIZES[TRAIN[1]] / 1000:.3g} kB downloaded from {hub.address}/"
    )
    assert error.endswith(f"{RESUME_HINT}\n")
    assert not (tmp_path / "cems/train").exists()
    hub.stop_at.clear()
    code, out, _ = run("--splits", "train")
    assert code == 0
    assert "already downloaded" in out
    assert hub.sent == {path: SIZES[path] for path in TRAIN}  # every byte once, over both calls
    assert read_files(tmp_path / "cems/train") == TILES["train"]


def test_a_broken_connection_is_resumed(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    hub.break_once[VAL[0]] = 40_000
    code, out, _ = run("--splits", "val", "--retries", "0")
    assert code == 0
    assert f"{VAL[0]}: the connection failed" in out
    assert hub.sent == {path: SIZES[path] for path in VAL}
    assert read_files(tmp_path / "cems/val") == TILES["val"]


def test_a_killed_download_is_resumed_from_its_last_byte(hub: FakeHub, start: Start, run: Run, tmp_path: Path) -> None:
    hub.delay_seconds = 0.2
    script, partial = start("--splits", "val"), tmp_path / "cems/.download/val" / f"{VAL[0]}.partial"
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size > 30_000):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    script.kill()
    script.communicate(timeout=60)
    received = partial.stat().st_size
    assert received < SIZES[VAL[0]]
    time.sleep(0.5)  # until the server notices the closed connection
    hub.delay_seconds = 0.0
    hub.sent.clear()
    assert run("--splits", "val")[0] == 0
    assert hub.sent == {VAL[0]: SIZES[VAL[0]] - received, VAL[1]: SIZES[VAL[1]]}
    assert read_files(tmp_path / "cems/val") == TILES["val"]


def test_a_server_without_ranges_sends_the_part_again(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    hub.break_once[VAL[0]] = 40_000
    hub.without_ranges.add(VAL[0])
    assert run("--splits", "val")[0] == 0
    assert hub.sent[VAL[0]] == 40_000 + SIZES[VAL[0]]
    assert read_files(tmp_path / "cems/val") == TILES["val"]


def test_a_corrupted_part_is_downloaded_again(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    hub.corrupt[VAL[1]] = 1
    code, out, _ = run("--splits", "val")
    assert code == 0
    assert f"{VAL[1]}: wrong checksum; downloading it again" in out
    assert hub.sent == {VAL[0]: SIZES[VAL[0]], VAL[1]: 2 * SIZES[VAL[1]]}
    assert read_files(tmp_path / "cems/val") == TILES["val"]


def test_a_part_that_is_always_corrupted_is_an_error(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    hub.corrupt[VAL[1]] = 99
    code, _, error = run("--splits", "val")
    assert code == 1
    assert error.startswith(f"fireseg: {VAL[1]}: downloaded 3 times from {hub.address}/")
    assert hub.sent[VAL[1]] == 3 * SIZES[VAL[1]]
    assert not (tmp_path / "cems/val").exists()


def test_a_part_corrupted_on_disk_is_downloaded_again(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    hub.statuses[VAL[1]] = 403
    assert run("--splits", "val")[0] == 1
    part = tmp_path / "cems/.download/val" / VAL[0]
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    hub.statuses.clear()
    assert run("--splits", "val")[0] == 0
    assert hub.sent[VAL[0]] == 2 * SIZES[VAL[0]]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_client_error_is_not_retried(hub: FakeHub, run: Run, status: int) -> None:
    hub.statuses[VAL[0]] = status
    code, out, error = run("--splits", "val")
    assert code == 1
    assert f"fireseg: {VAL[0]}: {hub.address}/" in error
    assert f"HTTP status {status}" in error
    assert "retrying" not in out


def test_a_server_error_is_retried(hub: FakeHub, run: Run) -> None:
    hub.statuses[VAL[0]] = 503
    code, out, error = run("--splits", "val", "--retries", "1")
    assert code == 1
    assert f"{VAL[0]}: HTTP status 503; retrying in 2 s" in out
    assert RESUME_HINT in error


def test_an_unreachable_hub_is_a_one_line_error(hub: FakeHub, run: Run) -> None:
    hub.close()
    code, _, error = run()
    assert (code, error.count("\n")) == (1, 1)
    assert error.startswith(
        f"fireseg: links-ads/wildfires-cems: the list of files could not be read from {hub.address}"
    )


def test_a_missing_data_set_is_an_error(hub: FakeHub, run: Run) -> None:
    hub.repo = "someone/else"
    code, _, error = run()
    assert code == 1
    assert "links-ads/wildfires-cems: " in error
    assert "HTTP status 404" in error or "not found" in error


def test_offline_mode_is_an_error_that_names_the_variable(run: Run) -> None:
    code, _, error = run(HF_HUB_OFFLINE="1")
    assert code == 1
    assert "HF_HUB_OFFLINE is set; unset it to download" in error


def test_the_token_is_not_sent_to_the_redirected_host(hub: FakeHub, run: Run) -> None:
    assert run("--splits", "val", HF_TOKEN="hf_dummy")[0] == 0
    assert hub.tokens == {None}
