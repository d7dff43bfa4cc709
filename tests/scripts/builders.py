"""Synthetic CEMS archives, split like the published ones, and a server that behaves like the Hugging Face hub."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np

ROOT = Path(__file__).parents[2]

REVISION = "5f8f255" + "0" * 33

TRAIN = [f"data/train/train.tar.{number:04d}.gz.part" for number in range(4)]
VAL = [f"data/val/val.tar.{number:02d}.gz.part" for number in range(2)]
TEST = [f"data/test/test.tar.{number:04d}.gz.part" for number in range(2)]


def make_tiles(split: str, count: int, *, kilobytes: int = 100) -> dict[str, bytes]:
    """Files of a split by path in its folder; the first tile has no GRA."""
    rng = np.random.default_rng(len(split))
    files = {}
    for number in range(count):
        name = f"EMSR{200 + number}_AOI01_01"
        kinds = ["S2L2A.tif", "DEL.tif", "CM.tif", "S2L2A.json"] + (["GRA.tif"] if number else [])
        for kind in kinds:
            size = kilobytes * 1000 if kind == "S2L2A.tif" else 500
            files[f"EMSR{200 + number}/AOI01/{name}/{name}_{kind}"] = rng.bytes(size)
    return files


def pack_tar(files: dict[str, bytes], *, prefix: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, value in files.items():
            member = tarfile.TarInfo(f"{prefix}{name}")
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
    return content.getvalue()


def split_archive(content: bytes, paths: list[str]) -> dict[str, bytes]:
    """Splits an archive like the publishers: equal parts and a shorter last one."""
    step = len(content) // len(paths) + 1
    return {path: content[number * step : (number + 1) * step] for number, path in enumerate(paths)}


TILES = {"train": make_tiles("train", 4), "val": make_tiles("val", 2), "test": make_tiles("test", 1)}
PARTS = {
    path: content
    for (split, tiles), paths in zip(TILES.items(), (TRAIN, VAL, TEST), strict=True)
    for path, content in split_archive(pack_tar(tiles, prefix=f"{split}/"), paths).items()
}
SIZES = {path: len(content) for path, content in PARTS.items()}


def read_files(folder: Path) -> dict[str, bytes]:
    """Contents of all files by path, without the record of the download."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "download.json"
    }


class FakeHub:
    """Serves files of one data set on 127.0.0.1 like the Hugging Face hub, with configurable faults.

    Args:
        files: File contents by path.
        repo: Name of the data set.

    Attributes:
        sent: Number of content bytes sent, by path.
        corrupt: Number of next responses with one wrong byte, by path.
        stop_at: Byte at which every connection closes, by path.
        break_once: Byte at which the next connection closes, by path.
        sizes: Wrong sizes in the list of files, by path.
        statuses: Error status returned instead of content, by path.
        without_ranges: Paths without support for range requests.
        delay_seconds: Delay between two chunks of 32 kB.
        tokens: Authorization headers received by the content server.
    """

    def __init__(self, files: dict[str, bytes], *, repo: str = "links-ads/wildfires-cems") -> None:
        self.files, self.repo, self.licence = files, repo, "cc-by-4.0"
        self.sent: Counter[str] = Counter()
        self.corrupt: Counter[str] = Counter()
        self.stop_at: dict[str, int] = {}
        self.break_once: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        self.statuses: dict[str, int] = {}
        self.without_ranges: set[str] = set()
        self.delay_seconds = 0.0
        self.tokens: set[str | None] = set()
        self.requests: list[str] = []
        # Content is on another host, as with the real hub; here another port.
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), self._handler()) for _ in range(2)]
        self.address, self.store = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def list_files(self) -> dict:
        siblings = [
            {
                "rfilename": path,
                "size": self.sizes.get(path, len(content)),
                "blobId": "0" * 40,
                "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 135},
            }
            for path, content in self.files.items()
        ]
        siblings.append({"rfilename": "README.md", "size": 5298, "blobId": "1" * 40})
        return {
            "id": self.repo,
            "sha": REVISION,
            "private": False,
            "tags": [f"license:{self.licence}"],
            "cardData": {"license": self.licence},
            "siblings": siblings,
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.requests.append(path)
                if path == f"/api/datasets/{hub.repo}":
                    self.respond(200, json.dumps(hub.list_files()).encode())
                elif path.startswith(resolved := f"/datasets/{hub.repo}/resolve/{REVISION}/"):
                    self.redirect(path.removeprefix(resolved))
                elif path.startswith("/store/"):
                    self.send_content(path.removeprefix("/store/"))
                else:
                    self.respond(404, b'{"error": "not found"}')

            def redirect(self, path: str) -> None:
                if status := hub.statuses.get(path):
                    self.respond(status, b"")
                    return
                content = hub.files[path]
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                headers = {"X-Repo-Commit": REVISION, "X-Linked-Size": str(len(content)), "X-Linked-ETag": etag}
                self.respond(302, b"", headers | {"ETag": etag, "Location": f"{hub.store}/store/{path}?signed=1"})

            def send_content(self, path: str) -> None:
                hub.tokens.add(self.headers.get("Authorization"))
                content, first = hub.files[path], 0
                requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                if requested and path not in hub.without_ranges:
                    first = int(requested[1])
                if hub.corrupt[path] > 0:
                    hub.corrupt[path] -= 1
                    content = content[:-1] + bytes([content[-1] ^ 1])
                self.send_response(206 if first else 200)
                if first:
                    self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - first))
                self.end_headers()
                ends = (hub.stop_at.get(path, len(content)), hub.break_once.pop(path, len(content)))
                last = min(len(content), *ends)
                for start in range(first, last, 1 << 15):
                    chunk = content[start : min(start + (1 << 15), last)]
                    self.wfile.write(chunk)
                    hub.sent[path] += len(chunk)
                    time.sleep(hub.delay_seconds)
                self.close_connection = last < len(content)

            def respond(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def handle(self) -> None:
                with suppress(ConnectionError):  # the client was killed
                    super().handle()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
