"""A server that is killed again and again loses no scene and maps none twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.predict.builders import draw_image, write_run, write_scene
from tests.serve.builders import CLIENT, Server

NUM_CLIENTS, NUM_REQUESTS, NUM_SCENES = 8, 25, 2


class Client:
    """A client that tries each request until it is answered, a scene with the same key."""

    def __init__(self, number: int, url: str, content: bytes) -> None:
        self.number, self.url, self.content = number, url, content
        self.accepted: list[str] = []
        self.num_broken = 0

    def run(self) -> None:
        for request in range(NUM_REQUESTS):
            if request % (NUM_REQUESTS // NUM_SCENES + 1) == 0:
                key = f"{self.number}-{request}"
                headers = {"Idempotency-Key": key, "Content-Type": "application/octet-stream"}
                name = f"scene_{key}.tif"
                answer = self._repeat(
                    lambda: CLIENT.post(
                        f"{self.url}/scenes?name={name}",  # noqa: B023 - called at once
                        headers=headers,  # noqa: B023
                        content=self.content,
                        timeout=20,
                    )
                )
                assert answer.status_code == 202, answer.text
                self.accepted.append(answer.json()["id"])
            else:
                path = ("/scenes", f"/scenes/{self.accepted[-1]}", "/health")[request % 3]
                answer = self._repeat(lambda: CLIENT.get(f"{self.url}{path}", timeout=20))  # noqa: B023
                assert answer.status_code == 200, answer.text
            time.sleep(0.2)

    def _repeat(self, request: Callable[[], httpx.Response]) -> httpx.Response:
        for _ in range(600):
            try:
                return request()
            except httpx.TransportError:
                self.num_broken += 1
                time.sleep(0.2)
        raise AssertionError("no answer")


def count_done(server: Server) -> int:
    return sum(scene["state"] == "done" for scene in CLIENT.get(f"{server.url}/scenes", timeout=20).json())


def test_no_scene_is_lost_or_mapped_twice_when_the_server_is_killed_three_times(tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run"), tmp_path / "served"
    content = write_scene(tmp_path / "scene.tif", draw_image(64, 64)).read_bytes()
    server = Server(run, out, log=tmp_path / "log0")
    clients = [Client(number, server.url, content) for number in range(NUM_CLIENTS)]
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        running = [pool.submit(client.run) for client in clients]
        # While scenes arrive and the model is loaded; while the first is mapped; and in the middle of the queue.
        for kill, num_done in enumerate((0, 1, 4), 1):
            while count_done(server) < num_done or not CLIENT.get(f"{server.url}/scenes", timeout=20).json():
                time.sleep(0.02)
            server.kill()
            server = Server(run, out, log=tmp_path / f"log{kill}", port=server.port)
        for client in running:
            client.result()
    accepted = [scene_id for client in clients for scene_id in client.accepted]
    try:
        results = [server.wait(scene_id) for scene_id in accepted]
        scenes = CLIENT.get(f"{server.url}/scenes").json()
    finally:
        server.process.terminate()
        server.process.wait(timeout=30)
    assert len(set(accepted)) == NUM_CLIENTS * NUM_SCENES
    assert {scene["id"] for scene in scenes} == set(accepted)
    assert {result["state"] for result in results} == {"done"}
    # The process that maps notes each whole map.
    logs = [(out / "scenes" / scene_id / "log.txt").read_text() for scene_id in accepted]
    assert set(logs) == {"mapped\n"}
    assert sum(client.num_broken for client in clients) > 0  # the kills were felt
