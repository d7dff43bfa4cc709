"""The queue on disk: order, restarts, keys, and what killed servers leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fireseg.errors import FiresegError
from fireseg.serve.store import INPUT, RESULT, Job, Store


def add(store: Store, name: str, key: str | None = None) -> Job:
    with store.receive() as folder:
        (folder / INPUT / name).write_bytes(b"x")
        return store.add(folder, name, key=key)


def test_scenes_are_taken_in_the_order_of_their_arrival(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        names = [add(store, name).name for name in ("b.tif", "a.tif", "c.tif")]
        assert [store.get_position(job) for job in reversed(store.list())] == [1, 2, 3]
        taken = [store.take(0) for _ in range(3)]
        assert [job.name for job in taken if job] == names
        assert store.take(0) is None


def test_a_server_goes_on_with_what_it_had_accepted(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        done, failed, waiting = add(store, "a.tif"), add(store, "b.tif"), add(store, "c.tif")
        store.finish(done)
        store.finish(failed, ("b.tif: broken",))
    with Store(tmp_path) as store:
        assert {job.name: job.state for job in store.list()} == {"a.tif": "done", "b.tif": "failed", "c.tif": "queued"}
        assert store.get(failed.id) is not None
        job = store.take(0)
        assert job is not None
        assert job.id == waiting.id
        assert (store.get_folder(job) / INPUT / "c.tif").read_bytes() == b"x"


def test_a_scene_whose_server_was_killed_is_mapped_again_unless_its_map_was_complete(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        add(store, "unfinished.tif")
        add(store, "finished.tif")
        store.take(0)
        finished = store.take(0)
        assert finished is not None
        (store.get_folder(finished) / RESULT).write_text(json.dumps({"summary": {}}))
    with Store(tmp_path) as store:
        assert {job.name: job.state for job in store.list()} == {"unfinished.tif": "queued", "finished.tif": "done"}
        assert store.read_result(next(job for job in store.list() if job.state == "done")) == {"summary": {}}


def test_a_scene_that_ends_the_server_five_times_fails(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        add(store, "a.tif")
    for _ in range(5):
        with Store(tmp_path) as store:
            assert store.take(0) is not None
    with Store(tmp_path) as store:
        (job,) = store.list()
        assert job.state == "failed"
        assert job.faults[0].startswith("a.tif: ")


def test_a_second_request_with_the_same_key_adds_nothing(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        first = add(store, "a.tif", key="key")
        assert add(store, "a.tif", key="key") == first
    with Store(tmp_path) as store:
        assert add(store, "a.tif", key="key").id == first.id
        assert len(store.list()) == 1
        with pytest.raises(FiresegError, match="Idempotency-Key"):
            add(store, "b.tif", key="key")
        assert [path.name for path in (tmp_path / "incoming").iterdir()] == []


def test_an_upload_that_was_cut_is_removed_at_the_next_start(tmp_path: Path) -> None:
    with Store(tmp_path):
        (tmp_path / "incoming" / "half").mkdir()
    with Store(tmp_path) as store:
        assert store.list() == []
        assert not (tmp_path / "incoming" / "half").exists()


def test_two_servers_do_not_share_a_folder(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(FiresegError, match=r"another server uses this folder.*--out"):
        Store(tmp_path)


def test_a_damaged_record_is_named_with_its_cure(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        folder = store.get_folder(add(store, "a.tif"))
    (folder / "job.json").write_text("{")
    with pytest.raises(FiresegError, match=r"job.json: damaged; delete the folder"):
        Store(tmp_path)


def test_a_scene_is_deleted_unless_it_is_being_mapped(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        add(store, "a.tif")
        running = store.take(0)
        assert running is not None
        assert not store.delete(running)
        done = store.finish(running)
        assert store.delete(done)
        assert store.list() == []
        assert not store.get_folder(done).exists()
