"""Split archives: order of parts, formats, and paths that must not be unpacked."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.errors import FiresegError
from scripts import split_archives
from scripts.split_archives import JoinedFile, group_parts, unpack

FILES = {"EMSR1/a_S2L2A.tif": bytes(range(256)) * 40, "EMSR1/a_DEL.tif": b"\x01" * 3000}


def make_tar(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, value in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
    return content.getvalue()


def make_zip(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, value in files.items():
            archive.writestr(name, value)
    return content.getvalue()


def write_parts(folder: Path, content: bytes, size: int = 1000) -> list[Path]:
    paths = []
    for number, start in enumerate(range(0, len(content), size)):
        paths.append(folder / f"x.tar.{number:03d}.part")
        paths[-1].write_bytes(content[start : start + size])
    return paths


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ignore(count: int) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("data/val/val.tar.gz", ["data/val/val.tar.00.gz.part", "data/val/val.tar.01.gz.part"]),
        ("train.tar.gz", [f"train.tar.{number:04d}.gz.part" for number in range(12)]),
        ("train.tar.gz", ["train.tar.gz.aa", "train.tar.gz.ab", "train.tar.gz.ac"]),
        ("train.tar.gz", ["train.tar.gz.part-aa", "train.tar.gz.part-ab"]),
        ("train.tar.gz", ["train.tar.gz.part1", "train.tar.gz.part2"]),
        ("train.tar", ["train.tar.9", "train.tar.10", *(f"train.tar.{number}" for number in range(1, 9))]),
        ("train.zip", ["train.zip.001", "train.zip.002"]),
        ("train.tgz", ["train.tgz"]),
    ],
)
def test_parts_are_grouped_by_name_and_sorted(name: str, parts: list[str]) -> None:
    in_order = sorted(parts, key=lambda part: (len(part), part))
    assert group_parts([*reversed(parts), "README.md", ".gitattributes", "x.tif"]) == {name: tuple(in_order)}


def test_separate_archives_are_not_parts() -> None:
    paths = ["train-0.tar.gz", "train-1.tar.gz"]
    assert group_parts(paths) == {path: (path,) for path in paths}


@pytest.mark.parametrize(("parts", "gap"), [(["x.tar.gz.aa", "x.tar.gz.ac"], "1"), (["x.tar.02", "x.tar.03"], "1")])
def test_a_missing_part_is_an_error(parts: list[str], gap: str) -> None:
    with pytest.raises(FiresegError, match=f"part {gap} is missing"):
        group_parts(parts)


@given(content=st.binary(min_size=1, max_size=300), size=st.integers(1, 80), offset=st.integers(0, 300))
def test_joined_parts_are_read_from_any_offset(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, size: int, offset: int
) -> None:
    parts = write_parts(tmp_path_factory.mktemp("parts"), content, size)
    with JoinedFile(parts, ignore) as joined:
        assert joined.read() == content
        joined.seek(offset)
        assert joined.read() == content[offset:]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_of_any_compression_is_unpacked(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    counts: list[int] = []
    content = pack(make_tar(FILES))
    unpack(write_parts(tmp_path, content), tmp_path / "out", advance=counts.append)
    assert read_files(tmp_path / "out") == FILES
    assert sum(counts) == len(content)


def test_a_zip_is_unpacked(tmp_path: Path) -> None:
    unpack(write_parts(tmp_path, make_zip(FILES)), tmp_path / "out", advance=ignore)
    assert read_files(tmp_path / "out") == FILES


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_concatenated_tars_are_unpacked(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    content = b"".join(pack(make_tar({name: value})) for name, value in FILES.items())
    unpack(write_parts(tmp_path, content), tmp_path / "out", advance=ignore)
    assert read_files(tmp_path / "out") == FILES


@pytest.mark.parametrize("pack", [make_tar, make_zip])
def test_a_path_outside_the_folder_is_an_error(pack: Callable[[dict], bytes], tmp_path: Path) -> None:
    parts = write_parts(tmp_path, pack({"EMSR1/../../evil.tif": b"x"}))
    with pytest.raises(FiresegError, match="evil"):
        unpack(parts, tmp_path / "out", advance=ignore)
    assert not (tmp_path / "evil.tif").exists()


def test_a_link_to_outside_the_folder_is_an_error(tmp_path: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(member)
    with pytest.raises(FiresegError, match="link"):
        unpack(write_parts(tmp_path, content.getvalue()), tmp_path / "out", advance=ignore)


@pytest.mark.parametrize(("offset", "value", "reason"), [(6, 1, "encrypted"), (8, 99, "not supported")])
def test_an_encrypted_zip_or_an_unknown_method_is_an_error(
    offset: int, value: int, reason: str, tmp_path: Path
) -> None:
    content = bytearray(make_zip({"a.tif": b"abc"}))
    content[offset] = value  # flags and method in the header of the file, and two bytes later in the directory
    content[content.index(b"PK\x01\x02") + offset + 2] = value
    with pytest.raises(FiresegError, match=rf"x\.tar\.000\.part: unpacking stopped: .*{reason}.*publishers"):
        unpack(write_parts(tmp_path, bytes(content)), tmp_path / "out", advance=ignore)


@pytest.mark.parametrize("is_zip", [True, False])
def test_an_archive_that_unpacks_to_far_more_than_its_size_is_stopped(
    is_zip: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_archives, "_MIN_BUDGET", 50_000)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("small.tif", bytes(10))
        archive.writestr("bomb.tif", bytes(1_000_000))
    files = {"small.tif": bytes(10), "bomb.tif": bytes(1_000_000)}
    packed = content.getvalue() if is_zip else gzip.compress(make_tar(files))
    with pytest.raises(FiresegError, match=r"unpacking stopped: more than 0\.\d GB"):
        unpack(write_parts(tmp_path, packed, 10_000), tmp_path / "out", advance=ignore)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["small.tif"]


@pytest.mark.parametrize("pack", [make_tar, make_zip])
def test_metadata_files_of_macos_are_not_unpacked(pack: Callable[[dict], bytes], tmp_path: Path) -> None:
    metadata = {"EMSR1/._a_S2L2A.tif": b"x", "__MACOSX/EMSR1/a_S2L2A.tif": b"x", "EMSR1/.DS_Store": b"x"}
    unpack(write_parts(tmp_path, pack({**FILES, **metadata})), tmp_path / "out", advance=ignore)
    assert read_files(tmp_path / "out") == FILES


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize(
    "fault", [lambda content: content[:-20], lambda content: content[:90] + b"xxxx" + content[94:]]
)
def test_a_broken_archive_is_an_error(
    pack: Callable[[bytes], bytes], fault: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    parts = write_parts(tmp_path, fault(pack(make_tar(FILES))))
    with pytest.raises(FiresegError, match=r"x\.tar\.000\.part: not a complete archive"):
        unpack(parts, tmp_path / "out", advance=ignore)
