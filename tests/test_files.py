"""Files are written completely or not at all, and checkpoints are read without running code."""

from __future__ import annotations

import errno
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fireseg.errors import FiresegError
from fireseg.files import atomic_write, build_once, check_readable, disk_error, load_tensors, read_error


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_write(path) as part:
            part.write_text("ne")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()

    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_finished_file_replaces_the_old_one(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    with atomic_write(path) as part:
        part.write_text("new")

    assert path.read_text() == "new"


def test_a_full_disk_is_reported_and_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    with pytest.raises(FiresegError, match=r"a\.txt: the disk is full"), atomic_write(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert path.read_text() == "old"


def test_a_missing_permission_is_reported():
    assert "cannot be written" in str(disk_error(Path("x"), PermissionError(errno.EACCES, "Permission denied")))


def test_tensors_are_read_back_unchanged(tmp_path: Path):
    with atomic_write(tmp_path / "a.pt") as part:
        torch.save({"x": torch.arange(3), "n": [1, "two"]}, part)

    content = load_tensors(tmp_path / "a.pt")

    assert content["n"] == [1, "two"]
    assert torch.equal(content["x"], torch.arange(3))


class Crafted:
    """Creates a file when it is unpickled."""

    def __init__(self, created: Path) -> None:
        self.created = created

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.created,)  # pyright: ignore[reportReturnType]


def test_a_file_with_code_is_rejected_without_running_it(tmp_path: Path):
    created = tmp_path / "created"
    torch.save({"model": Crafted(created)}, tmp_path / "a.pt", pickle_module=pickle)

    with pytest.raises(FiresegError, match="not a readable checkpoint"):
        load_tensors(tmp_path / "a.pt")

    assert not created.exists()


@pytest.mark.parametrize("length", [0, 10, 200])
def test_a_truncated_file_is_rejected(tmp_path: Path, length: int):
    torch.save({"x": torch.arange(1000)}, tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "b.pt").write_bytes(content[:length])

    with pytest.raises(FiresegError, match=r"b\.pt: not a readable checkpoint"):
        load_tensors(tmp_path / "b.pt")


def test_a_missing_file_is_reported(tmp_path: Path):
    with pytest.raises(FiresegError, match="no such file"):
        load_tensors(tmp_path / "none.pt")


def test_a_device_receives_the_content_and_stays_a_device():
    before = Path("/dev/null").stat()
    with atomic_write(Path("/dev/null")) as part:
        part.write_text("{}")
    assert Path("/dev/null").stat().st_rdev == before.st_rdev
    assert not list(Path("/dev").glob(".null.*"))


def test_a_pipe_receives_the_content(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with atomic_write(tmp_path / "pipe") as part:
        part.write_text("content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_redirected_stdout_receives_the_content_between_other_lines(tmp_path: Path):
    program = (
        "from pathlib import Path; from fireseg.files import atomic_write\n"
        "print('before')\n"
        "with atomic_write(Path('/dev/stdout')) as part: part.write_text('content\\n')\n"
        "print('after')"
    )
    with (tmp_path / "out.txt").open("w") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True)
    assert (tmp_path / "out.txt").read_text() == "before\ncontent\nafter\n"


def test_a_symbolic_link_stays_and_its_target_is_written(tmp_path: Path):
    (tmp_path / "other").mkdir()
    (tmp_path / "link.json").symlink_to("other/target.json")
    for text in ("first", "second"):  # the link dangles at first
        with atomic_write(tmp_path / "link.json") as part:
            part.write_text(text)
        assert (tmp_path / "link.json").is_symlink()
        assert (tmp_path / "other/target.json").read_text() == text
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["target.json"]


def test_sockets_and_folders_are_refused_as_outputs(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name, kind in (("socket", "a socket"), ("folder", "a folder")):
            with pytest.raises(FiresegError, match=rf"{name}: {kind}.*choose another"), atomic_write(tmp_path / name):
                pass


def test_a_circle_of_links_is_refused(tmp_path: Path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(FiresegError, match="a: cannot be written"), atomic_write(tmp_path / "a"):
        pass
    with pytest.raises(FiresegError, match="a: cannot be read"):
        load_tensors(tmp_path / "a")


def test_pipes_and_devices_are_refused_as_inputs_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(FiresegError, match=r"a\.pt: a pipe.*regular file"):
        load_tensors(tmp_path / "a.pt")
    with pytest.raises(FiresegError, match=r"/dev/zero: a device.*regular file"):
        load_tensors(Path("/dev/zero"))


def test_a_file_without_read_permission_is_not_called_damaged():
    error = read_error(Path("a.pt"), PermissionError(errno.EACCES, "Permission denied"))
    assert str(error).startswith("a.pt: no permission to read it; change its permissions")


def test_an_input_without_read_permission_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.geojson").write_text("{}")

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(FiresegError, match=r"a\.geojson: no permission to read it; change its permissions"):
        check_readable(tmp_path / "a.geojson")


def test_flipped_bits_in_a_tensor_are_refused(tmp_path: Path):
    path = tmp_path / "last.pt"
    torch.save({"model": {"weight": torch.arange(4096, dtype=torch.float32)}, "epoch": 3}, path)
    content = bytearray(path.read_bytes())
    start = content.find(torch.arange(100, 200, dtype=torch.float32).numpy().tobytes())
    for offset in range(0, 20, 4):
        content[start + offset] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["epoch"] == 3  # torch itself does not notice

    with pytest.raises(FiresegError, match=r"last\.pt: not a readable checkpoint: damaged"):
        load_tensors(path)


def test_a_damaged_header_is_refused_without_a_warning_of_torch(tmp_path: Path):
    path = tmp_path / "best.pt"
    torch.save({"epoch": 3}, path)
    content = bytearray(path.read_bytes())
    start = content.index(b"\x80\x02")  # of the pickle, with its protocol
    content[start + 1] = 191
    path.write_bytes(content)
    with pytest.raises(FiresegError, match=r"best\.pt: not a readable checkpoint: damaged"):
        load_tensors(path)  # a warning would be another exception


@pytest.mark.parametrize(
    "content",
    [b"\xff{", b'{"settings": {}}', b'{"settings": {"seed": 0}, "files": 3.5}', b'{"settings": 1, "files": {}}'],
)
def test_a_damaged_record_of_a_sample_is_named(tmp_path: Path, content: bytes):
    root = tmp_path / "sample"
    build_once(root, {"seed": 0}, lambda folder: (folder / "train").mkdir())
    (root / "sample.json").write_bytes(content)
    with pytest.raises(FiresegError, match=r"sample\.json: damaged; delete the folder"):
        build_once(root, {"seed": 0}, lambda folder: None)
