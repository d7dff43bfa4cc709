"""The segmentation model: normalisation, padding, checked input, and the predict methods."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fireseg.errors import FiresegError
from fireseg.model import FireSegmentationModel, create_segmentation_model, drop_auxiliary_head
from fireseg.task import NUM_AUXILIARY

BANDS = ("B04", "B12")


class Recorder(nn.Module):
    """Returns its input as logits and records it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.norm = nn.BatchNorm2d(2)
        self.image = torch.empty(0)

    def forward(self, image: Tensor) -> Tensor:
        self.image = image
        if self.norm.training:
            self.norm(image)
        return image * self.weight


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def model(recorder: Recorder) -> FireSegmentationModel:
    return FireSegmentationModel(recorder, bands=BANDS)


def test_forward_normalises_each_band(model: FireSegmentationModel) -> None:
    model.set_normalisation([0.25, 0.5], [0.5, 2.0])
    logits = model(torch.tensor([0.75, 1.5]).view(1, 2, 1, 1).expand(1, 2, 32, 32))
    assert logits.unique().tolist() == [0.5, 1.0]
    assert logits[0, :, 0, 0].tolist() == [1.0, 0.5]


def test_the_network_reads_indices_of_the_reflectance_after_the_normalised_bands_and_padded_alike() -> None:
    network = nn.Conv2d(3, 3, 1)
    nn.init.dirac_(network.weight)
    nn.init.zeros_(network.bias)  # pyright: ignore[reportArgumentType]
    model = FireSegmentationModel(network, bands=("B08", "B12"), indices=["NBR"])
    model.set_normalisation([0.25, 0.5], [0.5, 2.0])
    image = torch.tensor([0.75, 0.25]).view(1, 2, 1, 1).expand(1, 2, 33, 40)
    logits = model(image)
    assert logits.shape == (1, 3, 33, 40)
    # NBR is (0.75 - 0.25) / 1, and its constants are 0 and 0.3.
    assert logits[0, :, 32, 39].tolist() == pytest.approx([1.0, -0.125, 0.5 / 0.3])
    assert set(model.state_dict()) == {"mean", "std", "network.weight", "network.bias"}


def test_a_new_model_does_not_normalise(model: FireSegmentationModel) -> None:
    image = torch.rand(1, 2, 32, 32)
    assert torch.equal(model(image), image)
    assert not model.is_normalised


def test_normalisation_is_part_of_the_state_dict(model: FireSegmentationModel) -> None:
    model.set_normalisation([0.1, 0.2], [0.3, 0.4])
    other = FireSegmentationModel(Recorder(), bands=BANDS)
    other.load_state_dict(model.state_dict())
    assert other.is_normalised
    assert other.mean.tolist() == pytest.approx([0.1, 0.2])
    assert other.std.tolist() == pytest.approx([0.3, 0.4])


def test_set_normalisation_reports_every_fault_and_changes_nothing(model: FireSegmentationModel) -> None:
    with pytest.raises(FiresegError) as caught:
        model.set_normalisation([0.1, float("nan")], [0.0, 0.2, 0.3])
    assert len(caught.value.faults) == 3
    assert "mean of B12 is nan" in caught.value.faults[0]
    assert "3 numbers for std, but the model has 2 bands (B04 B12)" in caught.value.faults[1]
    assert "std of B04 is 0" in caught.value.faults[2]
    assert not model.is_normalised


@pytest.mark.parametrize(
    ("height", "width", "padded"),
    [(32, 32, (32, 32)), (33, 50, (64, 64)), (65, 97, (96, 128)), (63, 256, (64, 256)), (41, 64, (64, 64))],
)
def test_any_size_is_padded_to_32_and_cropped_back(
    model: FireSegmentationModel, recorder: Recorder, height: int, width: int, padded: tuple[int, int]
) -> None:
    image = torch.rand(2, 2, height, width)
    assert torch.equal(model(image), image)
    assert recorder.image.shape == (2, 2, *padded)


def test_padding_reflects_without_repeating_the_edge(model: FireSegmentationModel, recorder: Recorder) -> None:
    image = torch.rand(1, 2, 33, 33)
    model(image)
    assert torch.equal(recorder.image[:, :, 33:, :33], image.flip(2)[:, :, 1:32])
    assert torch.equal(recorder.image[:, :, :33, 33:], image.flip(3)[:, :, :, 1:32])


def test_a_wrong_number_of_channels_is_rejected_with_the_bands(model: FireSegmentationModel) -> None:
    with pytest.raises(FiresegError, match="image: 3 channels, but the model takes 2: B04 B12"):
        model(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(("height", "width"), [(31, 64), (64, 31), (1, 1)])
def test_less_than_32_px_is_rejected(model: FireSegmentationModel, height: int, width: int) -> None:
    with pytest.raises(FiresegError, match=f"image: {height} x {width} px, .*larger window"):
        model(torch.rand(1, 2, height, width))


def test_an_image_without_batch_dimension_is_rejected(model: FireSegmentationModel) -> None:
    with pytest.raises(FiresegError, match=r"shape \(2, 32, 32\), but the model takes \(B, C, H, W\)"):
        model(torch.rand(2, 32, 32))


def test_the_predict_methods_on_a_patch_that_burned_in_a_quarter_and_one_that_did_not(
    model: FireSegmentationModel,
) -> None:
    image = torch.zeros(2, 2, 32, 32)
    image[:, 0] = 1.0
    image[0, 1, :16, :16] = 3.0
    assert model(image).shape == (2, 2, 32, 32)
    assert model.predict_segmentation(image).sum((1, 2)).tolist() == [256, 0]
    assert model.predict_probabilities(image)[0, :, 0, 0].tolist() == pytest.approx([0.119203, 0.880797], abs=1e-6)
    assert model.predict_fire_detection(image).tolist() == [True, False]
    assert model.predict_fire_confidence(image).tolist() == pytest.approx([0.880797, 0.268941], abs=1e-6)
    assert model.predict_fire_fraction(image).tolist() == [0.25, 0.0]


class FixedLogits(nn.Module):
    """Returns the same logits for any image."""

    def __init__(self, logits: list) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, image: Tensor) -> Tensor:
        return self.logits


def test_confidence_can_be_high_where_no_single_fire_class_is_the_likeliest() -> None:
    logits = [[[[0.1]], [[0.0]], [[0.0]], [[0.0]], [[0.0]]]]
    model = FireSegmentationModel(FixedLogits(logits), bands=BANDS)
    image = torch.zeros(1, 2, 32, 32)
    assert not model.predict_fire_detection(image)
    assert model.predict_fire_confidence(image).item() == pytest.approx(4 / (math.exp(0.1) + 4))


def test_a_tie_with_class_0_is_unburned() -> None:
    model = FireSegmentationModel(FixedLogits([[[[5.0, 0.0]], [[5.0, 1.0]], [[0.0, 3.0]]]]), bands=BANDS)
    image = torch.zeros(1, 2, 32, 32)
    assert model.predict_segmentation(image).tolist() == [[[0, 2]]]
    assert model.predict_fire_fraction(image).tolist() == [0.5]


@pytest.mark.parametrize(
    "method",
    [
        "predict_segmentation",
        "predict_probabilities",
        "predict_fire_detection",
        "predict_fire_confidence",
        "predict_fire_fraction",
    ],
)
def test_prediction_has_no_gradient_and_leaves_every_module_in_its_mode(
    model: FireSegmentationModel, recorder: Recorder, method: str
) -> None:
    model.train()
    recorder.norm.eval()
    assert not getattr(model, method)(torch.rand(1, 2, 32, 32)).requires_grad
    assert model.training
    assert recorder.training
    assert not recorder.norm.training
    recorder.norm.train()
    getattr(model, method)(torch.rand(1, 2, 32, 32))
    assert recorder.norm.training
    assert recorder.norm.num_batches_tracked == 0
    assert model(torch.rand(1, 2, 32, 32)).requires_grad


def test_a_rejected_image_leaves_the_training_mode_unchanged(model: FireSegmentationModel) -> None:
    with pytest.raises(FiresegError):
        model.predict_segmentation(torch.rand(1, 3, 32, 32))
    assert model.training


def make_model_with_auxiliary(auxiliary: Any = "landcover", **settings: Any) -> FireSegmentationModel:
    return create_segmentation_model(encoder="tu-test_efficientnet", weights="none", auxiliary=auxiliary, **settings)


def test_only_training_sees_the_logits_of_an_auxiliary_task() -> None:
    model, image = make_model_with_auxiliary(), torch.rand(2, 7, 40, 32)
    assert model(image).shape == (2, 2 + NUM_AUXILIARY, 40, 32)
    assert model.predict_probabilities(image).shape == (2, 2, 40, 32)
    assert model.training


def test_a_model_without_the_auxiliary_head_predicts_the_same() -> None:
    model, image = make_model_with_auxiliary(num_classes=5), torch.rand(1, 7, 32, 32)
    deployed = make_model_with_auxiliary(None, num_classes=5)
    state = drop_auxiliary_head(model.state_dict(), 5)
    deployed.load_state_dict(state)
    torch.testing.assert_close(deployed.predict_probabilities(image), model.predict_probabilities(image))
    assert drop_auxiliary_head(state, 5).keys() == deployed.state_dict().keys()


def test_the_auxiliary_head_stays_where_the_loaded_tensors_lack_it() -> None:
    model, other = make_model_with_auxiliary(), make_model_with_auxiliary(None)
    before = model.state_dict()["network.segmentation_head.0.weight"].clone()
    model.load_task_state(other.state_dict())
    after = model.state_dict()["network.segmentation_head.0.weight"]
    assert torch.equal(after[:2], other.state_dict()["network.segmentation_head.0.weight"])
    assert torch.equal(after[2:], before[2:])
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_task_state(model.state_dict())


def test_a_head_of_other_classes_is_not_cut() -> None:
    state = make_model_with_auxiliary(None, num_classes=5).state_dict()
    assert len(drop_auxiliary_head(state, 2)["network.segmentation_head.0.weight"]) == 5
