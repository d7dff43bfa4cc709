"""Files from the hub: cut off, killed, spoilt, refused, and whole in the end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.scripts.conftest import Run, Start
from tests.scripts.look_alike_cems import SIZES, TILES, TRAIN, VAL, read
from tests.scripts.look_alike_hub import LookAlikeHub

GO_ON = "what is here is kept, and the same command goes on from there"


def test_a_second_call_goes_on_where_the_first_was_cut_off(hub: LookAlikeHub, run: Run, tmp_path: Path) -> None:
    hub.stop_at[TRAIN[1]] = 60_000
    code, _, error = run("--retries", "0", "--splits", "train")
    assert code == 1
    assert error.startswith(f"fireseg: {TRAIN[1]}: 60 kB of {SIZES[TRAIN[1]] / 1000:.3g} kB came from {hub.address}/")
    assert error.endswith(f"; {GO_ON}\n")
    assert not (tmp_path / "cems/train").exists()
    hub.stop_at.clear()
    code, out, _ = run("--splits", "train")
    assert code == 0
    assert "came in an earlier call" in out
    assert hub.sent == {path: SIZES[path] for path in TRAIN}  # every byte once, over both calls
    assert read(tmp_path / "cems/train") == TILES["train"]


def test_a_broken_connection_is_taken_up_again_at_once(hub: LookAlikeHub, run: Run, tmp_path: Path) -> None:
    hub.break_once[VAL[0]] = 40_000
    code, out, _ = run("--splits", "val", "--retries", "0")
    assert code == 0
    assert f"{VAL[0]}: the connection failed" in out
    assert hub.sent == {path: SIZES[path] for path in VAL}
    assert read(tmp_path / "cems/val") == TILES["val"]


def test_a_killed_download_goes_on_from_its_last_byte(
    hub: LookAlikeHub, start: Start, run: Run, tmp_path: Path
) -> None:
    hub.slow = 0.2
    script, partial = start("--splits", "val"), tmp_path / "cems/.download/val" / f"{VAL[0]}.partial"
    give_up = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size > 30_000):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    script.kill()
    script.communicate(timeout=60)
    kept = partial.stat().st_size
    assert kept < SIZES[VAL[0]]
    time.sleep(0.5)  # until the server has noticed
    hub.slow = 0.0
    hub.sent.clear()
    assert run("--splits", "val")[0] == 0
    assert hub.sent == {VAL[0]: SIZES[VAL[0]] - kept, VAL[1]: SIZES[VAL[1]]}
    assert read(tmp_path / "cems/val") == TILES["val"]


def test_a_server_that_cannot_continue_sends_the_part_again(hub: LookAlikeHub, run: Run, tmp_path: Path) -> None:
    hub.break_once[VAL[0]] = 40_000
    hub.without_ranges.add(VAL[0])
    assert run("--splits", "val")[0] == 0
    assert hub.sent[VAL[0]] == 40_000 + SIZES[VAL[0]]
    assert read(tmp_path / "cems/val") == TILES["val"]


def test_a_part_that_comes_wrong_once_is_fetched_again(hub: LookAlikeHub, run: Run, tmp_path: Path) -> None:
    hub.corrupt[VAL[1]] = 1
    code, out, _ = run("--splits", "val")
    assert code == 0
    assert f"{VAL[1]}: came with a wrong checksum; fetched again" in out
    assert hub.sent == {VAL[0]: SIZES[VAL[0]], VAL[1]: 2 * SIZES[VAL[1]]}
    assert read(tmp_path / "cems/val") == TILES["val"]


def test_a_part_that_always_comes_wrong_is_named(hub: LookAlikeHub, run: Run, tmp_path: Path) -> None:
    hub.corrupt[VAL[1]] = 99
    code, _, error = run("--splits", "val")
    assert code == 1
    assert error.startswith(f"fireseg: {VAL[1]}: fetched 3 times from {hub.address}/")
    assert hub.sent[VAL[1]] == 3 * SIZES[VAL[1]]
    assert not (tmp_path / "cems/val").exists()


def test_a_part_spoilt_on_disk_after_it_came_is_fetched_again(hub: LookAlikeHub, run: Run, tmp_path: Path) -> None:
    hub.answers[VAL[1]] = 403
    assert run("--splits", "val")[0] == 1
    place = tmp_path / "cems/.download/val" / VAL[0]
    place.write_bytes(place.read_bytes()[:-1] + b"x")
    hub.answers.clear()
    assert run("--splits", "val")[0] == 0
    assert hub.sent[VAL[0]] == 2 * SIZES[VAL[0]]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_said_at_once(hub: LookAlikeHub, run: Run, status: int) -> None:
    hub.answers[VAL[0]] = status
    code, out, error = run("--splits", "val")
    assert code == 1
    assert f"fireseg: {VAL[0]}: wanted from {hub.address}/" in error
    assert f"HTTP {status}" in error
    assert "tried again" not in out


def test_a_busy_hub_is_asked_again(hub: LookAlikeHub, run: Run) -> None:
    hub.answers[VAL[0]] = 503
    code, out, error = run("--splits", "val", "--retries", "1")
    assert code == 1
    assert f"{VAL[0]}: the answer was HTTP 503; tried again in 2 s" in out
    assert GO_ON in error


def test_a_hub_out_of_reach_is_said_in_one_line(hub: LookAlikeHub, run: Run) -> None:
    hub.close()
    code, _, error = run()
    assert (code, error.count("\n")) == (1, 1)
    assert error.startswith(f"fireseg: links-ads/wildfires-cems: its list of files was wanted from {hub.address}, but")


def test_a_hub_without_the_data_set_is_said(hub: LookAlikeHub, run: Run) -> None:
    hub.repo = "someone/else"
    code, _, error = run()
    assert code == 1
    assert "links-ads/wildfires-cems: " in error
    assert "HTTP 404" in error or "no such data set" in error


def test_offline_mode_is_named_as_the_reason(run: Run) -> None:
    code, _, error = run(HF_HUB_OFFLINE="1")
    assert code == 1
    assert "HF_HUB_OFFLINE is set; unset it to download" in error


def test_the_token_of_the_hub_is_not_shown_to_where_it_redirects(hub: LookAlikeHub, run: Run) -> None:
    assert run("--splits", "val", HF_TOKEN="hf_dummy")[0] == 0
    assert hub.tokens == {None}
