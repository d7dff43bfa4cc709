"""What a prepared data set says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fireseg.data.format import read_manifest
from fireseg.data.reader import find_sources, open_source
from fireseg.errors import FiresegError


def test_patches_of_others_have_none(make_patches) -> None:
    assert read_manifest(make_patches()) is None


def test_a_file_of_this_name_that_others_wrote_is_nobodys_business(make_patches) -> None:
    root = make_patches()
    (root / "manifest.json").write_text('{"manifest_version": 3}')
    assert read_manifest(root) is None
    assert find_sources(root, "del")[1] is None


def test_what_it_says_is_read_and_what_else_it_says_is_not(make_store) -> None:
    found = read_manifest(make_store(bands=("B02", "B12"), leaks=["a | b"], weather="fair"))
    assert found is not None
    assert (found.layout, found.task, found.bands, found.leaks) == ("packed", None, ("B02", "B12"), ("a | b",))
    assert found.patches == {"train": 9, "val": 5}


@pytest.mark.parametrize("number", [2, "two", None])
def test_a_newer_format_is_refused(make_store, number: object) -> None:
    with pytest.raises(FiresegError, match=rf"format {number}, but this version .* up to 1; update fireseg"):
        read_manifest(make_store(format=number))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layout": "zipped"}, "layout: Input should be 'packed' or 'files'"),
        ({"scale": 1000}, "scale: Input should be 10000"),
        ({"bands": ["B02", "B99"]}, "bands: Value error, no band 'B99'"),
        ({"patches": {"train": -1}}, "patches.train"),
        ({"patches": None}, "patches: "),
    ],
)
def test_what_cannot_be_understood_is_named(make_store, changes: dict[str, object], says: str) -> None:
    path: Path = make_store() / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(FiresegError, match=says) as caught:
        read_manifest(path.parent)
    assert "manifest.json: " in str(caught.value)


def test_half_a_manifest_is_no_manifest(make_store) -> None:
    path: Path = make_store() / "manifest.json"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(FiresegError, match=r"truncated or no JSON; run python -m fireseg.prepare again"):
        read_manifest(path.parent)


@pytest.mark.parametrize("is_packed", [True, False])
def test_patches_of_ours_without_a_manifest_are_not_whole_yet(make_store, make_patches, is_packed: bool) -> None:
    root = make_store() if is_packed else make_patches()
    (root / "manifest.json").unlink(missing_ok=True)
    if not is_packed:
        (root / "tiles.jsonl").write_text("{}\n")
    for look in (lambda: find_sources(root, "del"), lambda: open_source(root / "train")):
        with pytest.raises(FiresegError, match=r"but no manifest\.json: not whole yet"):
            look()


def test_files_made_for_another_task_are_refused_once(make_store, make_twin) -> None:
    root = make_twin(make_store(), "del")
    with pytest.raises(FiresegError, match="made with --task del, but the task is gra") as caught:
        find_sources(root, "gra")
    assert len(caught.value.faults) == 1
    assert open_source(root / "train").bands is not None
