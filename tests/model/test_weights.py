"""Initial weights: encoder files, the Hugging Face hub, and warm starts from the checkpoint of another run."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fireseg.errors import FiresegError, SettingError
from fireseg.model import create_segmentation_model
from fireseg.model.encoders import spread_filters

RGB = ("B04", "B03", "B02")
BANDS7 = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")
HEAD = "network.segmentation_head."
FILE = "smp-hub/tiny.imagenet/resolve/" + "3f" * 20 + "/model.safetensors"

# Both run in a process of their own, because huggingface_hub reads its environment when it is imported.
FETCH_PROGRAM = """
import json, sys, time
import huggingface_hub
from fireseg.errors import FiresegError
from fireseg.model.weights import HubFile, fetch

start = time.monotonic()
try:
    answer = {"path": str(fetch(HubFile("smp-hub/tiny.imagenet", "3f" * 20, "model.safetensors")))}
except FiresegError as error:
    answer = {"error": str(error)}
print(json.dumps(answer | {"seconds": time.monotonic() - start}))
"""

CREATE_PROGRAM = """
import json, sys, time
from fireseg.model import create_segmentation_model

for line in sys.stdin:
    start = time.monotonic()
    model = create_segmentation_model(encoder="resnet18", weights="imagenet")
    answer = model.provenance | {"sum": model.network.encoder.conv1.weight.double().sum().item()}
    print(json.dumps(answer | {"seconds": time.monotonic() - start}), flush=True)
"""


@pytest.fixture(scope="module")
def resnet18() -> dict[str, Tensor]:
    """Random weights of an encoder for red, green and blue."""
    torch.manual_seed(0)
    model = create_segmentation_model(encoder="resnet18", weights="none", in_channels=3, bands=RGB)
    return dict(get_encoder(model).state_dict())


def get_encoder(model: Any) -> Any:
    return model.network.encoder


def save(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.pth", "encoder.pt", "a copy without suffix"])
def test_every_tensor_of_a_file_is_in_the_model(name: str, resnet18: dict[str, Tensor], tmp_path: Path) -> None:
    path = save(resnet18, tmp_path / name)
    model = create_segmentation_model(encoder="resnet18", weights=str(path), num_classes=5)
    loaded = get_encoder(model).state_dict()
    assert torch.equal(loaded.pop("conv1.weight"), spread_filters(resnet18["conv1.weight"], BANDS7))
    assert all(torch.equal(tensor, resnet18[key]) for key, tensor in loaded.items())
    assert model.provenance == {
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "note": "",
    }
    assert model.predict_segmentation(torch.rand(1, 7, 32, 32)).shape == (1, 32, 32)


def test_stem_smp_repeats_red_green_blue_in_order(resnet18: dict[str, Tensor], tmp_path: Path) -> None:
    path = save(resnet18, tmp_path / "encoder.pth")
    model = create_segmentation_model(encoder="resnet18", weights=str(path), stem="smp")
    red, green, blue = resnet18["conv1.weight"].unbind(1)
    expected = torch.stack([red, green, blue, red, green, blue, red], 1) * 3 / 7
    torch.testing.assert_close(get_encoder(model).conv1.weight.detach(), expected)


def test_an_imagenet_file_with_its_classifier_loads(resnet18: dict[str, Tensor], tmp_path: Path) -> None:
    classifier = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    path = save(resnet18 | classifier, tmp_path / "resnet18.pth")
    create_segmentation_model(encoder="resnet18", weights=path)


def test_tensors_that_are_missing_unexpected_or_of_another_shape_are_named(
    resnet18: dict[str, Tensor], tmp_path: Path
) -> None:
    tensors = dict(resnet18)
    tensors["bn_one.weight"] = tensors.pop("bn1.weight")
    tensors["conv1.weight"] = torch.zeros(64, 7, 7, 7)
    path = save(tensors, tmp_path / "encoder.pth")
    with pytest.raises(FiresegError) as caught:
        create_segmentation_model(encoder="resnet18", weights=str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: 1 tensor missing (bn1.weight); 1 tensor unexpected (bn_one.weight); ")
    assert "1 tensor of another shape (conv1.weight (64, 7, 7, 7) for (64, 3, 7, 7))" in message


def test_weights_of_another_encoder_are_rejected(resnet18: dict[str, Tensor], tmp_path: Path) -> None:
    path = save(resnet18, tmp_path / "encoder.pth")
    with pytest.raises(FiresegError, match=r"tensors missing \(layer1.2.conv1.weight, .*, …\)"):
        create_segmentation_model(encoder="resnet34", weights=str(path))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("encoder.pth", b"", "not a readable checkpoint"),
        ("encoder.pth", b"no weights at all", "not a readable checkpoint"),
        ("encoder.safetensors", b"no weights at all", "not a readable safetensors file"),
        ("encoder", b"\x10\0\0\0\0\0\0\0{ no header", "not a readable safetensors file"),
    ],
)
def test_a_broken_file_is_rejected(name: str, content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FiresegError, match=complaint):
        create_segmentation_model(encoder="resnet18", weights=str(path))


def test_a_file_with_other_content_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "encoder.pt"
    torch.save({"epoch": 3, "state_dict": {}}, path)
    with pytest.raises(FiresegError, match="epoch is not a tensor; state_dict is not a tensor"):
        create_segmentation_model(encoder="resnet18", weights=str(path))


def test_a_missing_path_is_rejected_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"model.weights: .*nowhere.pth"):
        create_segmentation_model(weights=str(tmp_path / "nowhere.pth"))


def test_random_weights_are_recorded_as_such() -> None:
    model = create_segmentation_model(encoder="resnet18", weights="none")
    assert model.provenance == {"source": "none: random", "sha256": "", "note": ""}


def test_imagenet_without_a_network_is_an_error_not_a_random_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(FiresegError) as caught:
        create_segmentation_model(encoder="resnet34", weights="imagenet")
    assert time.monotonic() - start < 5
    message = str(caught.value)
    assert "model.safetensors of smp-hub/resnet34.imagenet (revision 7a57b34f72" in message
    assert str(tmp_path) in message


def test_an_encoder_without_imagenet_weights_is_reported_with_those_that_exist() -> None:
    with pytest.raises(SettingError, match="resnext101_32x16d, only instagram, ssl, swsl"):
        create_segmentation_model(encoder="resnext101_32x16d", weights="imagenet")


def test_imagenet_weights_come_from_the_hub_and_then_from_the_cache(
    hub: Any, resnet18: dict[str, Tensor], tmp_path: Path
) -> None:
    import segmentation_models_pytorch as smp

    settings = smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]
    content = save(resnet18, tmp_path / "model.safetensors").read_bytes()
    name = f"{settings['repo_id']}/resolve/{settings['revision']}/model.safetensors"
    hub.files[name] = content
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environ |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    program = [sys.executable, "-c", CREATE_PROGRAM]
    with subprocess.Popen(program, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write("with the hub\n")
        process.stdin.flush()
        first = json.loads(process.stdout.readline())
        # Only this file is requested: no config, no telemetry.
        assert {line.split()[1] for line in hub.requests} == {f"/{name}"}
        hub.server.shutdown()
        hub.server.server_close()
        process.stdin.write("without\n")
        process.stdin.close()
        second = json.loads(process.stdout.readline())
    expected = spread_filters(resnet18["conv1.weight"], BANDS7).double().sum().item()
    for answer in (first, second):
        assert answer["source"] == f"smp-hub/resnet18.imagenet@{settings['revision']}/model.safetensors"
        assert answer["sha256"] == hashlib.sha256(content).hexdigest()
        assert answer["sum"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.real
def test_real_imagenet_weights_of_mobilenet_v2_load_and_respond_to_edges() -> None:
    root = os.environ.get("FIRESEG_REAL_DATA")
    if not root:
        pytest.skip("FIRESEG_REAL_DATA is not set")
    path = Path(root) / "weights" / "mobilenet_v2.imagenet.safetensors"
    model = create_segmentation_model(encoder="mobilenet_v2", weights=str(path))
    assert model.provenance["sha256"] == "fe741b9dacb419dd76dc5c3c09324091156dedced44263a5fbcfa8d90926260f"
    assert get_encoder(model).features[0][0].weight.shape == (32, 7, 3, 3)
    model.eval()
    with torch.no_grad():
        flat = get_encoder(model)(torch.zeros(1, 7, 64, 64))[-1]
        noisy = get_encoder(model)(torch.randn(1, 7, 64, 64, generator=torch.Generator().manual_seed(0)))[-1]
    assert noisy.abs().mean() > flat.abs().mean() > 0


def fetch_in_subprocess(endpoint: str, home: Path, **environ: str) -> dict:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONWARNINGS": "error"} | environ
    answer = subprocess.run(
        [sys.executable, "-c", FETCH_PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=240
    )
    return json.loads(answer.stdout) | {"stderr": answer.stderr}


def assert_not_available(answer: dict, endpoint: str, home: Path) -> None:
    assert answer["seconds"] < 5
    message = answer["error"]
    assert message.startswith("model.weights: model.safetensors of smp-hub/tiny.imagenet (revision 3f3f")
    assert f"{home}/hub" in message
    assert endpoint in message
    assert "models--smp-hub--tiny.imagenet" in message
    assert "model.weights=/path/to" in message
    assert "model.weights=none" in message
    assert answer["stderr"] == ""


@pytest.fixture
def silent_endpoint() -> Iterator[str]:
    """A server that accepts a connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def hanging_endpoint() -> Iterator[str]:
    """A server whose queue is full, so that connecting hangs, as behind a firewall that drops packets."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_file_is_fetched_once_and_then_comes_from_the_cache(hub: Any, tmp_path: Path) -> None:
    hub.files[FILE] = b"weights" * 1000
    first = fetch_in_subprocess(hub.endpoint, tmp_path)
    assert Path(first["path"]).read_bytes() == hub.files[FILE]
    assert {path for _, path in (line.split() for line in hub.requests)} == {f"/{FILE}"}
    hub.requests.clear()
    assert fetch_in_subprocess(hub.endpoint, tmp_path)["path"] == first["path"]
    assert hub.requests == []


def test_a_file_that_the_hub_does_not_have_is_reported_at_once(hub: Any, tmp_path: Path) -> None:
    answer = fetch_in_subprocess(hub.endpoint, tmp_path)
    assert_not_available(answer, hub.endpoint, tmp_path)
    assert "RevisionNotFoundError" in answer["error"]


def test_a_refused_connection_is_reported_within_5_seconds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
    assert_not_available(fetch_in_subprocess(endpoint, tmp_path), endpoint, tmp_path)


def test_a_server_that_never_answers_is_reported_within_5_seconds(silent_endpoint: str, tmp_path: Path) -> None:
    answer = fetch_in_subprocess(silent_endpoint, tmp_path)
    assert_not_available(answer, silent_endpoint, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels refuse where Linux lets a full queue hang")
def test_a_connection_that_hangs_is_reported_within_5_seconds(hanging_endpoint: str, tmp_path: Path) -> None:
    answer = fetch_in_subprocess(hanging_endpoint, tmp_path)
    assert_not_available(answer, hanging_endpoint, tmp_path)


def test_a_blocked_storage_of_large_files_is_reported_within_5_seconds(
    hub: Any, silent_endpoint: str, tmp_path: Path
) -> None:
    hub.files[FILE] = b"weights"
    hub.storage = silent_endpoint
    assert_not_available(fetch_in_subprocess(hub.endpoint, tmp_path), hub.endpoint, tmp_path)
    assert hub.requests == [f"HEAD /{FILE}"]


def test_a_large_file_comes_from_the_storage(hub: Any, storage: Any, tmp_path: Path) -> None:
    hub.files[FILE] = storage.files[FILE] = b"weights" * 1000
    hub.storage = storage.endpoint
    answer = fetch_in_subprocess(hub.endpoint, tmp_path)
    assert Path(answer["path"]).read_bytes() == hub.files[FILE]


def test_offline_mode_sends_no_request(hub: Any, tmp_path: Path) -> None:
    answer = fetch_in_subprocess(hub.endpoint, tmp_path, HF_HUB_OFFLINE="1")
    assert_not_available(answer, hub.endpoint, tmp_path)
    assert "HF_HUB_OFFLINE" in answer["error"]
    assert hub.requests == []


def test_a_checkpoint_initialises_the_whole_model_with_its_normalisation(save_checkpoint: Any) -> None:
    old, path = save_checkpoint()
    new = create_segmentation_model(encoder="resnet18", weights=str(path))
    state = new.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in old.state_dict().items())
    assert new.is_normalised
    assert new.provenance["source"] == str(path)
    assert len(new.provenance["sha256"]) == 64
    assert new.provenance["note"] == "warm start of the whole model"


def test_a_run_folder_stands_for_its_best_checkpoint(save_checkpoint: Any) -> None:
    save_checkpoint("last.pt")
    save_checkpoint("final_model.pt")
    best, path = save_checkpoint("best_model.pt")
    new = create_segmentation_model(encoder="resnet18", weights=path.parents[1])
    assert torch.equal(new.state_dict()[HEAD + "0.weight"], best.state_dict()[HEAD + "0.weight"])
    assert new.provenance["source"] == str(path)


@pytest.mark.parametrize("name", ["final_model.pt", "last.pt"])
def test_a_run_folder_without_a_best_checkpoint_stands_for_the_next(name: str, save_checkpoint: Any) -> None:
    _, path = save_checkpoint(name)
    new = create_segmentation_model(encoder="resnet18", weights=str(path.parents[1]))
    assert new.provenance["source"] == str(path)


def test_a_head_for_other_classes_is_random_and_a_warning_is_logged(
    save_checkpoint: Any, caplog: pytest.LogCaptureFixture
) -> None:
    old, path = save_checkpoint()
    with caplog.at_level(logging.WARNING):
        new = create_segmentation_model(encoder="resnet18", weights=str(path), num_classes=5)
    assert "2 classes" in new.provenance["note"]
    assert new.provenance["note"] in caplog.text
    state = new.state_dict()
    body = {key: tensor for key, tensor in old.state_dict().items() if not key.startswith(HEAD)}
    assert all(torch.equal(tensor, state[key]) for key, tensor in body.items())
    assert state[HEAD + "0.weight"].shape[0] == 5
    assert new.predict_segmentation(torch.rand(1, 7, 32, 32)).shape == (1, 32, 32)


def test_another_arch_encoder_and_bands_are_reported_together(save_checkpoint: Any) -> None:
    _, path = save_checkpoint()
    with pytest.raises(FiresegError) as caught:
        create_segmentation_model(
            "unetplusplus", "resnet34", weights=str(path), in_channels=2, bands=("B08", "B12"), num_classes=5
        )
    pairs = [
        ("arch=unet,", "arch=unetplusplus;"),
        ("encoder=resnet18,", "encoder=resnet34;"),
        ("bands=[B02,B03,B04,B08,B8A,B11,B12],", "bands=[B08,B12];"),
    ]
    for fault, (saved, requested) in zip(caught.value.faults, pairs, strict=True):
        assert fault.startswith(f"model.weights: {path}")
        assert saved in fault
        assert requested in fault


def test_other_indices_are_rejected_and_a_checkpoint_of_an_earlier_version_has_none(save_checkpoint: Any) -> None:
    _, path = save_checkpoint()  # its settings do not name indices
    assert create_segmentation_model(encoder="resnet18", weights=str(path)).indices == ()
    with pytest.raises(FiresegError, match=r"has indices=\[\], but the model has indices=\[NBR\]; set the same"):
        create_segmentation_model(encoder="resnet18", weights=str(path), indices=("NBR",))
    _, path = save_checkpoint(indices=("NBR", "NDVI"))
    model = create_segmentation_model(encoder="resnet18", weights=str(path), indices=("NBR", "NDVI"))
    assert model.provenance["note"] == "warm start of the whole model"
    with pytest.raises(FiresegError, match=r"indices=\[NBR,NDVI\], .*indices=\[NDVI,NBR\]"):
        create_segmentation_model(encoder="resnet18", weights=str(path), indices=("NDVI", "NBR"))


def test_the_same_bands_in_another_order_are_rejected(save_checkpoint: Any) -> None:
    _, path = save_checkpoint(in_channels=2, bands=("B08", "B12"))
    with pytest.raises(FiresegError, match=r"bands=\[B08,B12\], .*bands=\[B12,B08\]"):
        create_segmentation_model(encoder="resnet18", weights=str(path), in_channels=2, bands=("B12", "B08"))


def test_a_folder_without_checkpoints_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"no checkpoint \(best_model.pt, final_model.pt"):
        create_segmentation_model(weights=str(tmp_path))


def test_a_checkpoint_without_model_settings_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "best_model.pt"
    torch.save({"model": {}, "config": {"model": {"arch": "unet"}}}, path)
    with pytest.raises(FiresegError, match="lack 'encoder'"):
        create_segmentation_model(weights=str(path))


def test_a_checkpoint_that_does_not_match_its_settings_is_rejected(save_checkpoint: Any) -> None:
    _, path = save_checkpoint()
    content = torch.load(path, weights_only=True)
    del content["model"]["network.encoder.conv1.weight"]
    torch.save(content, path)
    with pytest.raises(FiresegError, match=r"do not match its settings .*network.encoder.conv1.weight"):
        create_segmentation_model(encoder="resnet18", weights=str(path))
