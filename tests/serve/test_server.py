"""A real server on the loopback interface: maps, names, limits, tokens and crashes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import rasterio
import torch
from rasterio.io import MemoryFile

from fireseg.model import create_segmentation_model
from fireseg.predict.api import load
from tests.predict.builders import draw_image, write_run, write_scene
from tests.serve.builders import CLIENT, Server, serve, write_odd_scene, write_scenes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    write_run(folder / "run")
    write_scenes(folder / "scenes")
    (folder / "secret.tif").write_bytes((folder / "scenes" / "scene.tif").read_bytes())
    (folder / "scenes" / "link.tif").symlink_to(folder / "secret.tif")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    limits = ("--max-upload-mb", "2", "--max-megapixels", "0.5", "--root", str(folder / "scenes"))
    with serve(folder, *limits) as server:
        yield server


@pytest.fixture(scope="module")
def scene(server: Server, folder: Path) -> dict[str, Any]:
    """An uploaded scene whose map is done."""
    answer = server.upload(folder / "scenes" / "scene.tif")
    assert answer.status_code == 202, answer.text
    return server.wait(answer.json()["id"])


def get(server: Server, path: str, **options: Any) -> httpx.Response:
    return CLIENT.get(f"{server.url}{path}", **options)


def test_the_map_of_an_upload_is_that_of_predict(
    server: Server, scene: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    assert scene["state"] == "done", scene["faults"]
    mapped = load(folder / "run", device="cpu").predict_scene(folder / "scenes" / "scene.tif", tmp_path)
    for kind in ("classes", "fire"):
        answer = get(server, scene["files"][kind])
        assert f'filename="scene_{kind}.tif"' in answer.headers["content-disposition"]
        expected = rasterio.open(getattr(mapped.files, kind))
        with MemoryFile(answer.content) as file, file.open() as served, expected:
            np.testing.assert_array_equal(served.read(), expected.read())
            assert served.transform == expected.transform
    for key in ("has_fire", "max_probability", "burned_fraction", "burned_ha"):
        assert scene[key] == mapped.summary[key]
    assert scene["classes"][1]["ha"] == mapped.summary["burned_ha"]
    assert scene["flags"] == scene["summary"]["flags"]
    assert json.loads(get(server, scene["files"]["summary"]).content)["scene"] == "scene.tif"


def test_several_runs_map_as_one_model(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = write_run(tmp_path / "other", create_segmentation_model("unet", "tu-test_efficientnet", weights="none"))
    both = f"{folder / 'run'},{other}"
    with serve(tmp_path, run=Path(both)) as server:
        scene = server.wait(server.upload(folder / "scenes" / "scene.tif").json()["id"])
    assert scene["state"] == "done", scene["faults"]
    mapped = load(both, device="cpu").predict_scene(folder / "scenes" / "scene.tif", tmp_path)
    assert (scene["burned_ha"], scene["max_probability"]) == (
        mapped.summary["burned_ha"],
        mapped.summary["max_probability"],
    )
    assert [member["name"] for member in scene["summary"]["model"]["members"]] == ["run", "other"]


def test_areas_by_probability_add_up_to_the_known_ground(scene: dict[str, Any]) -> None:
    assert sum(scene["area_by_probability"]) == pytest.approx(sum(scene["summary"]["hectares"].values()), rel=1e-5)


def test_a_scene_below_the_root_is_listed_and_mapped(server: Server) -> None:
    assert get(server, "/root").json() == {"scenes": ["scene.tif"]}
    scene = server.wait(server.pick("scene.tif").json()["id"])
    assert (scene["state"], scene["name"]) == ("done", "scene.tif")
    assert scene["id"] in {one["id"] for one in get(server, "/scenes").json()}


@pytest.mark.parametrize(
    "path", ["../secret.tif", "link.tif", "/etc/passwd", "/vsicurl/http://127.0.0.1/a.tif", "http://127.0.0.1/a.tif"]
)
def test_nothing_outside_the_root_is_read(server: Server, path: str, folder: Path) -> None:
    for name in (path, str(folder / "secret.tif")):
        answer = server.pick(name)
        assert answer.status_code == 400
        assert answer.json()["faults"][0].startswith("path: no scene of that name below --root")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/scenes/..%2f..%2fsecret.tif",
        "/scenes/../run/config.json",
        "/scenes/{id}/files/..%2f..%2fjob.json",
        "/scenes/{id}/files/job.json",
        "/scenes/{id}/tiles/0/0/..%2f0.png",
    ],
)
def test_addresses_are_never_paths(server: Server, scene: dict[str, Any], path: str) -> None:
    request = httpx.Request("GET", server.url)
    request.url = httpx.URL(server.url).copy_with(raw_path=path.format(id=scene["id"]).encode())
    assert CLIENT.send(request).status_code in (404, 405, 422)


@pytest.mark.parametrize("name", ["../a.tif", "/etc/a.tif", "a.vrt", "item.json", "..", "/vsimem/a.tif"])
def test_an_upload_cannot_choose_its_place_or_name_other_files(server: Server, folder: Path, name: str) -> None:
    answer = server.upload(folder / "scenes" / "scene.tif", name=name)
    assert answer.status_code == 400
    assert answer.json()["faults"][0].startswith("name: ")


def test_an_upload_that_names_another_file_does_not_read_it(server: Server, folder: Path, tmp_path: Path) -> None:
    secret = folder / "secret.tif"
    (tmp_path / "a.tif").write_text(
        '<VRTDataset rasterXSize="128" rasterYSize="96"><VRTRasterBand dataType="Float32" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{secret}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    scene = server.wait(server.upload(tmp_path / "a.tif").json()["id"])
    assert scene["state"] == "failed"
    assert scene["faults"][0].startswith("a.tif")


def test_a_broken_upload_is_one_failed_scene_with_its_cause(server: Server, tmp_path: Path) -> None:
    (tmp_path / "broken.tif").write_bytes(b"II*\0" + b"x" * 1000)
    scene = server.wait(server.upload(tmp_path / "broken.tif").json()["id"])
    assert scene["state"] == "failed"
    assert scene["faults"][0].startswith("broken.tif: ")
    assert get(server, f"/scenes/{scene['id']}/files/classes").status_code == 404


def test_uploads_and_scenes_have_a_largest_size(server: Server, tmp_path: Path) -> None:
    (tmp_path / "large.tif").write_bytes(bytes(2_100_000))
    assert server.upload(tmp_path / "large.tif").status_code == 413

    def send() -> Iterator[bytes]:  # without a length that the server could look at
        for _ in range(30):
            yield bytes(100_000)

    headers = {"Content-Type": "application/octet-stream"}
    answer = httpx.post(f"{server.url}/scenes?name=large.tif", content=send(), headers=headers)
    assert answer.status_code == 413
    write_scene(tmp_path / "wide.tif", np.zeros((7, 200, 2600), np.uint8), compress="deflate")
    scene = server.wait(server.upload(tmp_path / "wide.tif").json()["id"])
    assert scene["state"] == "failed"
    assert "200 x 2,600 pixels" in scene["faults"][0]


def test_options_of_a_map_are_used_and_checked(server: Server, folder: Path) -> None:
    scene = server.wait(server.upload(folder / "scenes" / "scene.tif", threshold=0.9).json()["id"])
    assert scene["summary"]["threshold"] == 0.9
    assert server.upload(folder / "scenes" / "scene.tif", threshold=1.5).status_code == 422
    scene = server.wait(server.upload(folder / "scenes" / "scene.tif", offset=-5).json()["id"])
    assert scene["faults"] == ["--offset: -5, but it must be in digital numbers, 0 to 9999, such as 1000"]


def test_a_map_of_odd_values_is_refused_or_has_its_flags_everywhere(server: Server, tmp_path: Path) -> None:
    path = write_odd_scene(tmp_path / "odd.tif")
    refused = server.wait(server.upload(path).json()["id"])
    assert refused["state"] == "failed"
    assert "--offset" in refused["faults"][0]
    scene = server.wait(server.upload(path, trust_values=True).json()["id"])
    assert "odd.tif" in scene["flags"][0]
    assert scene["flags"] == scene["summary"]["flags"]
    listed = {one["id"]: one for one in get(server, "/scenes").json()}
    assert listed[scene["id"]]["flags"] == scene["flags"]


def test_a_repeated_request_with_its_key_adds_nothing(server: Server, folder: Path) -> None:
    headers = {"Idempotency-Key": "one"}
    first, second = (server.upload(folder / "scenes" / "scene.tif", headers=headers).json() for _ in range(2))
    assert first["id"] == second["id"]


def test_other_sites_cannot_use_the_server(server: Server, folder: Path) -> None:
    assert get(server, "/scenes", headers={"Host": "evil.example"}).status_code == 403
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        assert server.upload(folder / "scenes" / "scene.tif", headers=headers).status_code == 403
    assert server.pick("scene.tif", headers={"Origin": server.url}).status_code == 202


def test_every_answer_forbids_the_page_all_but_the_server(server: Server) -> None:
    for path in ("/", "/docs", "/static/app.js", "/scenes", "/missing"):
        policy = get(server, path).headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;")


def test_the_interface_is_described(server: Server) -> None:
    paths = get(server, "/openapi.json").json()["paths"]
    assert {"/scenes", "/scenes/{scene_id}", "/scenes/{scene_id}/tiles/{z}/{x}/{y}.png", "/health"} <= set(paths)
    assert get(server, "/health").json()["status"] == "ready"
    assert "faults" in get(server, "/missing").json()


def test_a_scene_and_its_map_are_deleted(server: Server, folder: Path) -> None:
    scene = server.wait(server.pick("scene.tif").json()["id"])
    assert httpx.delete(f"{server.url}/scenes/{scene['id']}").status_code == 204
    assert get(server, f"/scenes/{scene['id']}").status_code == 404
    assert not (folder / "served" / "scenes" / scene["id"]).exists()


def test_a_scene_that_became_a_link_while_it_waited_is_not_read(server: Server, folder: Path, tmp_path: Path) -> None:
    path = write_scene(tmp_path / "first.tif", (draw_image(700, 700) * 100).astype(np.uint8), compress="deflate")
    server.upload(path, scale=0.01)  # keeps the server busy
    (folder / "scenes" / "later.tif").write_bytes((folder / "secret.tif").read_bytes())
    waiting = server.pick("later.tif").json()["id"]
    (folder / "scenes" / "later.tif").unlink()
    (folder / "scenes" / "later.tif").symlink_to(folder / "secret.tif")
    assert server.wait(waiting)["faults"][0].startswith("path: no scene of that name")


def test_a_crash_of_the_process_that_maps_costs_one_scene(server: Server, folder: Path, tmp_path: Path) -> None:
    # Large enough that the process is killed while it maps it, within the limits of this server.
    path = write_scene(tmp_path / "large.tif", (draw_image(700, 700) * 100).astype(np.uint8), compress="deflate")
    killed = server.upload(path, scale=0.01).json()["id"]
    next_one = server.upload(folder / "scenes" / "scene.tif").json()["id"]
    while get(server, f"/scenes/{killed}").json()["state"] == "queued":
        time.sleep(0.01)
    children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    (pid,) = {int(text) for path in children for text in path.read_text().split()}
    os.kill(pid, signal.SIGKILL)
    scene = server.wait(killed)
    assert scene["state"] == "failed"
    assert "large.tif: the process that maps it was ended by SIGKILL" in scene["faults"][0]
    assert server.wait(next_one)["state"] == "done"
