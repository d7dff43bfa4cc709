"""A server on 127.0.0.1 that answers as the Hugging Face hub does: a list of files, redirects, ranges, and faults."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REVISION = "5f8f255" + "0" * 33


class LookAlikeHub:
    """Serves files of one data set; what it is told to do wrong, it does.

    Args:
        files: Their content by path.

    Attributes:
        sent: Bytes of content that went out, by path.
        corrupt: How many of the next answers for a path have one byte changed.
        stop_at: Byte of a path at which the connection closes, always.
        break_once: Byte of a path at which the connection closes the next time.
        claims: Sizes that the list of files gives, where they are not the true ones.
        answers: A status that a path is answered with instead of content.
        without_ranges: Paths that are always answered from their first byte.
        slow: Seconds between two pieces of 32 kB.
        tokens: What the store of contents was shown as Authorization.
    """

    def __init__(self, files: dict[str, bytes], *, repo: str = "links-ads/wildfires-cems") -> None:
        self.files, self.repo, self.licence = files, repo, "cc-by-4.0"
        self.sent: Counter[str] = Counter()
        self.corrupt: Counter[str] = Counter()
        self.stop_at: dict[str, int] = {}
        self.break_once: dict[str, int] = {}
        self.claims: dict[str, int] = {}
        self.answers: dict[str, int] = {}
        self.without_ranges: set[str] = set()
        self.slow = 0.0
        self.tokens: set[str | None] = set()
        self.requests: list[str] = []
        # The store of contents is another host, as the hub's is: another port.
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), self._handler()) for _ in range(2)]
        self.address, self.store = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def describe(self) -> dict:
        siblings = [
            {
                "rfilename": path,
                "size": self.claims.get(path, len(content)),
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
                    self.answer(200, json.dumps(hub.describe()).encode())
                elif path.startswith(resolved := f"/datasets/{hub.repo}/resolve/{REVISION}/"):
                    self.redirect(path.removeprefix(resolved))
                elif path.startswith("/store/"):
                    self.send_content(path.removeprefix("/store/"))
                else:
                    self.answer(404, b'{"error": "not found"}')

            def redirect(self, path: str) -> None:
                if status := hub.answers.get(path):
                    self.answer(status, b"")
                    return
                content = hub.files[path]
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                headers = {"X-Repo-Commit": REVISION, "X-Linked-Size": str(len(content)), "X-Linked-ETag": etag}
                self.answer(302, b"", headers | {"ETag": etag, "Location": f"{hub.store}/store/{path}?signed=1"})

            def send_content(self, path: str) -> None:
                hub.tokens.add(self.headers.get("Authorization"))
                content, first = hub.files[path], 0
                wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                if wanted and path not in hub.without_ranges:
                    first = int(wanted[1])
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
                    piece = content[start : min(start + (1 << 15), last)]
                    self.wfile.write(piece)
                    hub.sent[path] += len(piece)
                    time.sleep(hub.slow)
                self.close_connection = last < len(content)

            def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def handle(self) -> None:
                with suppress(ConnectionError):  # the other side was killed
                    super().handle()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
