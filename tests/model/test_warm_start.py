"""A model that starts from another run: whole, with a new head, or refused with the differences."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from fireseg.errors import FiresegError
from fireseg.model import create_segmentation_model

HEAD = "network.segmentation_head."


def test_a_checkpoint_gives_the_whole_model_with_its_normalisation(save_checkpoint: Any) -> None:
    old, path = save_checkpoint()
    new = create_segmentation_model(encoder="resnet18", weights=str(path))
    state = new.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in old.state_dict().items())
    assert new.is_normalised
    assert new.provenance["source"] == str(path)
    assert len(new.provenance["sha256"]) == 64
    assert new.provenance["note"] == "warm start of the whole model"


def test_a_run_folder_means_its_best_checkpoint(save_checkpoint: Any) -> None:
    save_checkpoint("last.pt")
    save_checkpoint("final_model.pt")
    best, path = save_checkpoint("best_model.pt")
    new = create_segmentation_model(encoder="resnet18", weights=path.parents[1])
    assert torch.equal(new.state_dict()[HEAD + "0.weight"], best.state_dict()[HEAD + "0.weight"])
    assert new.provenance["source"] == str(path)


@pytest.mark.parametrize("name", ["final_model.pt", "last.pt"])
def test_a_run_folder_without_a_best_checkpoint_means_the_next(name: str, save_checkpoint: Any) -> None:
    _, path = save_checkpoint(name)
    new = create_segmentation_model(encoder="resnet18", weights=str(path.parents[1]))
    assert new.provenance["source"] == str(path)


def test_a_head_for_other_classes_is_new_and_that_is_said(
    save_checkpoint: Any, caplog: pytest.LogCaptureFixture
) -> None:
    old, path = save_checkpoint()
    with caplog.at_level(logging.WARNING):
        new = create_segmentation_model(encoder="resnet18", weights=str(path), num_classes=5)
    said = "its head has 2 classes, so a new one for 5 starts from random weights"
    assert said in new.provenance["note"]
    assert said in caplog.text
    state = new.state_dict()
    body = {key: tensor for key, tensor in old.state_dict().items() if not key.startswith(HEAD)}
    assert all(torch.equal(tensor, state[key]) for key, tensor in body.items())
    assert state[HEAD + "0.weight"].shape[0] == 5
    assert new.predict_segmentation(torch.rand(1, 7, 32, 32)).shape == (1, 32, 32)


def test_another_arch_encoder_and_bands_are_refused_together(save_checkpoint: Any) -> None:
    _, path = save_checkpoint()
    with pytest.raises(FiresegError) as caught:
        create_segmentation_model(
            "unetplusplus", "resnet34", weights=str(path), in_channels=2, bands=("B08", "B12"), num_classes=5
        )
    first = f"model.weights: {path} was made with arch=unet, but arch=unetplusplus is asked for"
    assert caught.value.faults[0].startswith(first)
    assert "encoder=resnet18, but encoder=resnet34" in caught.value.faults[1]
    assert "bands=[B02,B03,B04,B08,B8A,B11,B12], but bands=[B08,B12]" in caught.value.faults[2]


def test_the_same_bands_in_another_order_are_refused(save_checkpoint: Any) -> None:
    _, path = save_checkpoint(in_channels=2, bands=("B08", "B12"))
    with pytest.raises(FiresegError, match=r"bands=\[B08,B12\], but bands=\[B12,B08\]"):
        create_segmentation_model(encoder="resnet18", weights=str(path), in_channels=2, bands=("B12", "B08"))


def test_a_folder_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"checkpoints: holds no checkpoint \(best_model.pt, final_model.pt"):
        create_segmentation_model(weights=str(tmp_path))


def test_a_checkpoint_that_does_not_say_what_it_is_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best_model.pt"
    torch.save({"model": {}, "config": {"model": {"arch": "unet"}}}, path)
    with pytest.raises(FiresegError, match="its config says nothing of 'encoder'"):
        create_segmentation_model(weights=str(path))


def test_a_checkpoint_that_is_not_what_it_says_is_refused(save_checkpoint: Any) -> None:
    _, path = save_checkpoint()
    content = torch.load(path, weights_only=True)
    del content["model"]["network.encoder.conv1.weight"]
    torch.save(content, path)
    with pytest.raises(FiresegError, match=r"not the weights of its own config .*network.encoder.conv1.weight"):
        create_segmentation_model(encoder="resnet18", weights=str(path))
