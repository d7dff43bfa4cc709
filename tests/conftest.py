"""Environment of all tests (one thread, no network) and a fixture that writes simulated patches."""

from __future__ import annotations

import os

# Set before torch is imported: on a busy machine, two threads make small tensors many times slower.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("fireseg", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("fireseg")

MakePatches = Callable[..., Path]

BANDS = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")


class CountingServer(ThreadingHTTPServer):
    """Serves a folder on the loopback interface, or nothing, and keeps the path of each request.

    Attributes:
        url: Address without a slash at its end.
        paths: Paths of all requests.
        folder: Folder to serve; None for answers of 404.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _make_handler(self))
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.paths: list[str] = []
        self.folder: Path | None = None


def _make_handler(server: CountingServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.paths.append(self.path)
            path = server.folder and server.folder / self.path.strip("/")
            content = path.read_bytes() if path and path.is_file() else b""
            self.send_response(200 if content else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            """Prints nothing."""

    return Handler


@pytest.fixture(autouse=True)
def restored_signals() -> Iterator[None]:
    """Checks that a test leaves no signal handler behind, which the processes of later tests would inherit."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingServer]:
    """A server on the loopback interface that keeps what was requested."""
    # GDAL may hold Python's lock while it opens a raster, so that this process cannot answer.
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "5")
    with CountingServer() as started:
        Thread(target=started.serve_forever, daemon=True).start()
        yield started
        started.shutdown()


@pytest.fixture(scope="session")
def created_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store created by `open_store`, which takes seconds, in a folder with a difficult name."""
    from fireseg.tracker.mlflow_store import open_store

    folder = tmp_path_factory.mktemp("store") / "fires of 50% in März"
    folder.mkdir()
    (folder / "mlflow.db").touch()
    (folder / "mlflow.db.part").write_bytes(b"half a store, of a process that was killed")
    open_store(f"sqlite:///{folder / 'mlflow.db'}")
    return folder / "mlflow.db"


# Files of tests that take a minute or more: begun first, they do not leave one of two processes idle at the end.
SLOW_FILES = (
    *("test_real_fires.py", "test_distributed.py", "test_search.py", "test_ray.py", "test_slurm.py", "test_kills.py"),
    *("test_workers.py", "test_page.py", "test_server.py", "test_limits.py"),
    *("test_resume.py", "test_journal.py", "test_mlflow.py", "test_pipeline.py", "test_run.py"),
    *("test_weights.py", "test_mlflow_store.py", "test_artifacts.py", "test_earlier_run.py", "test_report.py"),
    "test_cli.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the slow files first."""
    items.sort(key=lambda item: SLOW_FILES.index(name) if (name := item.path.name) in SLOW_FILES else len(SLOW_FILES))


def draw_patch(rng: np.random.Generator, size: int, channels: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws a patch whose burned pixels are dark in the near infrared, so a model learns it in a few steps."""
    mask = np.zeros((size, size), np.uint8)
    rows, cols = np.mgrid[:size, :size]
    centre, radius = rng.integers(0, size, 2), rng.integers(size // 6, size // 2)
    distance = np.hypot(rows - centre[0], cols - centre[1])
    mask[distance < radius] = rng.integers(1, num_classes)
    image = rng.uniform(0.05, 0.15, (size, size, channels)).astype(np.float32)
    image[..., channels // 2] += np.where(mask > 0, 0.0, 0.3).astype(np.float32)
    return image, mask


@pytest.fixture
def make_patches(tmp_path: Path) -> MakePatches:
    """Returns a function that writes simulated patches under `root/{train,val,test}` and returns the root."""

    def make(
        root: Path | None = None,
        *,
        train: int = 8,
        val: int = 4,
        test: int = 0,
        size: int = 32,
        channels: int = 7,
        num_classes: int = 2,
        seed: int = 0,
    ) -> Path:
        root = root or tmp_path / "patches"
        rng = np.random.default_rng(seed)
        for split, count, first in (("train", train, 0), ("val", val, 300), ("test", test, 600)):
            for number in range(first, first + count):
                folder = root / split
                folder.mkdir(parents=True, exist_ok=True)
                image, mask = draw_patch(rng, size, channels, num_classes)
                name = f"EMSR{100 + number:03d}_AOI01_01_r0_c{number * size}"
                np.save(folder / f"{name}_image.npy", image)
                np.save(folder / f"{name}_mask.npy", mask)
        return root

    return make


class SmallDisk:
    """A small file system in memory.

    Attributes:
        folder: Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / ".filler"

    def fill(self, left: int) -> None:
        """Fills the disk, but for some bytes."""
        free = os.statvfs(self.folder)
        self._filler.write_bytes(bytes(free.f_bavail * free.f_bsize - left))

    def make_room(self) -> None:
        """Removes what `fill` has written."""
        self._filler.unlink()


@pytest.fixture
def make_small_disk(tmp_path: Path) -> Iterator[Callable[..., SmallDisk]]:
    """Returns a function that mounts a small disk, with the options of tmpfs; skips where that is not allowed."""
    folder = tmp_path / "disk"
    mounted: list[Path] = []

    def mount(options: str = "size=64m") -> SmallDisk:
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return SmallDisk(folder)

    yield mount
    for each in mounted:
        subprocess.run(["umount", "--lazy", str(each)], check=True)  # even if a process of a failed test is in it


@pytest.fixture
def make_unlabelled(tmp_path: Path) -> MakePatches:
    """Returns a function that writes patches without labels, as `prepare --unlabelled` does, and returns the root."""

    def make(
        root: Path | None = None, *, num: int = 3, size: int = 32, seed: int = 9, first: int = 900, **manifest: object
    ) -> Path:
        root = root or tmp_path / "unlabelled"
        folder, rng = root / "train", np.random.default_rng(seed)
        folder.mkdir(parents=True)
        images = np.stack([draw_patch(rng, size, len(BANDS), 2)[0] for _ in range(num)])
        np.save(folder / "images.npy", np.rint(images * 10_000).astype(np.uint16))
        clear = np.ones((num, size, size), np.uint8)
        clear[:, 0] = 0
        for name, mask in (("del", np.full_like(clear, 255)), ("gra", np.full_like(clear, 255)), ("clear", clear)):
            np.save(folder / f"masks_{name}.npy", mask)
        names = [f"EMSR{first + number}_AOI01_01_r0_c0" for number in range(num)]
        (folder / "metadata.csv").write_text("\n".join(["patch_id", *names, ""]))
        content = {"format": 1, "layout": "packed", "bands": BANDS, "scale": 10_000, "patches": {"train": num}}
        (root / "manifest.json").write_text(json.dumps({**content, "options": {"unlabelled": True}, **manifest}))
        return root

    return make
