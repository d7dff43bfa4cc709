"""Losses: formulas by hand, unlabelled pixels, and validation of settings."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from fireseg.errors import FiresegError, SettingError
from fireseg.loss import CombinedLoss, DiceLoss, FocalLoss, create_loss

INTEGER_DTYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.bool)
UNLABELLED_LOGITS = (math.nan, math.inf, -math.inf, 1e30, 3.0)


def total(loss: nn.Module, logits: Tensor, targets: Tensor) -> Tensor:
    value = loss(logits, targets)
    return value[0] if isinstance(value, tuple) else value


def every_loss(num_classes: int) -> list[nn.Module]:
    weights = [1.0 + number for number in range(num_classes)]
    return [
        CombinedLoss(),
        CombinedLoss(0.3, 2.0, class_weights=weights, gamma=2.0, absent="skipped"),
        DiceLoss(),
        DiceLoss(absent="skipped"),
        FocalLoss(),
        FocalLoss(gamma=0.0, class_weights=weights),
        FocalLoss(gamma=0.5),
        CombinedLoss(1.0, 0.0, class_weights=weights, label_smoothing=0.1, soft_labels=1.0, gamma=2.0),
        CombinedLoss(0.0, 0.0, tversky_weight=1.0),
        CombinedLoss(0.5, 0.5, tversky_weight=1.0, tversky_gamma=0.75, absent="skipped"),
        CombinedLoss(0.0, 0.5, ordinal_weight=0.5, class_weights=weights),
    ]


def boundary_loss() -> CombinedLoss:
    """Is not one of `every_loss`, because it depends on the places of pixels and computes on the CPU."""
    return CombinedLoss(0.5, 0.5, ordinal_weight=0.2, boundary_weight=0.1)


def draw(seed: int, num_classes: int, *, share_unlabelled: float = 0.3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, num_classes, 5, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, num_classes, (2, 5, 4), generator=generator)
    targets[torch.rand(2, 5, 4, generator=generator) < share_unlabelled] = 255
    return logits, targets


def logits_of(probabilities: list[float]) -> Tensor:
    """Logits `(1, 2, 1, W)` whose softmax gives these probabilities of fire."""
    fire = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([1 - fire, fire]).log()[None, :, None]


# By hand: fire probabilities 0.8 where it burns, 0.4 where it does not.
BY_HAND = logits_of([0.8, 0.4])
TRUTH = torch.tensor([[[1, 0]]])
DICE_BY_HAND = 1 - (2 * 0.8 / (1.2 + 1) + 2 * 0.6 / (0.8 + 1)) / 2


def test_cross_entropy_is_the_mean_of_minus_log_p() -> None:
    value = FocalLoss(gamma=0.0)(BY_HAND, TRUTH)
    assert value.item() == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2, abs=1e-12)


def test_focal_loss_weights_pixels_by_one_minus_p_to_the_gamma() -> None:
    value = FocalLoss(gamma=2.0)(BY_HAND, TRUTH)
    assert value.item() == pytest.approx(-(0.2**2 * math.log(0.8) + 0.4**2 * math.log(0.6)) / 2, abs=1e-12)


def test_focal_loss_is_normalised_by_the_sum_of_the_weights() -> None:
    value = FocalLoss(gamma=2.0, class_weights=[0.5, 1.5])(BY_HAND, TRUTH)
    assert value.item() == pytest.approx(-(1.5 * 0.2**2 * math.log(0.8) + 0.5 * 0.4**2 * math.log(0.6)) / 2, abs=1e-7)


def test_dice_loss_is_one_minus_the_mean_dice_of_the_classes() -> None:
    assert DiceLoss()(BY_HAND, TRUTH).item() == pytest.approx(DICE_BY_HAND, abs=1e-6)


def test_dice_loss_sums_over_the_batch_not_per_image() -> None:
    side_by_side = DiceLoss()(BY_HAND, TRUTH)
    batch = DiceLoss()(torch.cat(BY_HAND.split(1, dim=3)), torch.cat(TRUTH.split(1, dim=2)))
    assert batch.item() == pytest.approx(side_by_side.item(), abs=1e-12)


def test_combined_loss_is_the_mean_of_both_and_returns_both() -> None:
    value, parts = CombinedLoss()(BY_HAND, TRUTH)
    ce = -(math.log(0.8) + math.log(0.6)) / 2
    assert value.item() == pytest.approx(0.5 * ce + 0.5 * DICE_BY_HAND, abs=1e-6)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(
        {"ce_loss": ce, "dice_loss": DICE_BY_HAND}, abs=1e-6
    )
    assert not any(part.requires_grad for part in parts.values())


def test_a_part_of_weight_0_is_left_out_of_the_sum_even_if_infinite() -> None:
    surely_wrong = torch.tensor([[[[0.0]], [[-math.inf]]]])
    value, parts = CombinedLoss(0.0, 1.0)(surely_wrong, torch.ones(1, 1, 1, dtype=torch.long))
    assert parts["ce_loss"].item() == math.inf
    assert value.item() == pytest.approx(1.0, abs=1e-5)


def test_an_absent_class_adds_to_dice_loss_if_counted_but_not_if_skipped() -> None:
    logits, unburned = logits_of([3e-4] * 100), torch.zeros(1, 1, 100, dtype=torch.long)
    assert DiceLoss(absent="counted")(logits, unburned).item() == pytest.approx(0.5, abs=1e-3)
    assert DiceLoss(absent="skipped")(logits, unburned).item() == pytest.approx(1 - 2 * 0.9997 / 1.9997, abs=1e-6)


@pytest.mark.parametrize("absent", ["counted", "skipped"])
def test_a_perfect_prediction_has_loss_0(absent: Any) -> None:
    targets = torch.tensor([[[0, 1, 255, 1]]])
    logits = 1000 * torch.nn.functional.one_hot(targets.clamp(max=1), 2).movedim(-1, 1).float()
    value, _ = CombinedLoss(absent=absent)(logits, targets)
    assert value.item() == pytest.approx(0.0, abs=1e-6)


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 5))
def test_cross_entropy_agrees_with_torch_on_the_labelled_pixels(seed: int, num_classes: int) -> None:
    logits, targets = draw(seed, num_classes, share_unlabelled=0.2)
    weights = torch.arange(1.0, num_classes + 1)
    expected = nn.functional.cross_entropy(logits, targets, weights.double(), ignore_index=255)
    assert FocalLoss(gamma=0.0, class_weights=weights)(logits, targets).item() == pytest.approx(expected.item())


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 5))
def test_dice_loss_agrees_with_the_formula_on_the_labelled_pixels(seed: int, num_classes: int) -> None:
    logits, targets = draw(seed, num_classes, share_unlabelled=0.2)
    p = logits.softmax(1).movedim(1, -1)[targets != 255]
    o = nn.functional.one_hot(targets[targets != 255], num_classes)
    dice = (2 * (p * o).sum(0) + 1e-6) / (p.sum(0) + o.sum(0) + 1e-6)
    assert DiceLoss()(logits, targets).item() == pytest.approx(1 - dice.mean().item())
    assert DiceLoss(absent="skipped")(logits, targets).item() == pytest.approx(1 - dice[o.sum(0) > 0].mean().item())


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 5), value=st.sampled_from(UNLABELLED_LOGITS))
def test_logits_of_unlabelled_pixels_change_neither_loss_nor_gradient(
    seed: int, num_classes: int, value: float
) -> None:
    logits, targets = draw(seed, num_classes)
    unlabelled = (targets == 255).unsqueeze(1).expand_as(logits)
    for loss in [*every_loss(num_classes), boundary_loss()]:
        before, after = (part.requires_grad_() for part in (logits.clone(), logits.masked_fill(unlabelled, value)))
        costs = [total(loss, part, targets) for part in (before, after)]
        for cost in costs:
            cost.backward()
        assert costs[0].item() == costs[1].item()
        assert before.grad is not None
        assert after.grad is not None
        assert torch.equal(before.grad, after.grad)
        assert not after.grad[unlabelled].any()


@pytest.mark.parametrize("value", [0.0, *UNLABELLED_LOGITS])
def test_an_unlabelled_batch_has_loss_0_and_gradient_0(value: float) -> None:
    for loss in [*every_loss(2), boundary_loss()]:
        logits = torch.full((2, 2, 4, 4), value, requires_grad=True)
        cost = total(loss, logits, torch.full((2, 4, 4), 255, dtype=torch.uint8))
        cost.backward()
        assert cost.item() == 0.0
        assert logits.grad is not None
        assert torch.equal(logits.grad, torch.zeros_like(logits))


@given(seed=st.integers(0, 10**6), where=st.integers(0, 39), value=st.sampled_from([math.nan, math.inf]))
def test_nan_in_a_labelled_pixel_propagates(seed: int, where: int, value: float) -> None:
    logits, targets = draw(seed, 3)
    targets.view(-1)[where] = 1
    for channel in range(3):
        changed = logits.clone()
        changed[where // 20, channel, where % 20 // 4, where % 4] = value
        assert all(total(loss, changed, targets).isnan() for loss in [*every_loss(3), boundary_loss()])


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 4))
def test_the_order_of_pixels_and_images_does_not_matter(seed: int, num_classes: int) -> None:
    logits, targets = draw(seed, num_classes)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    shuffled = logits.movedim(1, 0).flatten(1)[:, order].view(num_classes, 4, 5, 2).movedim(0, 1)
    for loss in every_loss(num_classes):
        other = total(loss, shuffled, targets.flatten()[order].view(4, 5, 2))
        assert other.item() == pytest.approx(total(loss, logits, targets).item(), rel=1e-9)


@given(seed=st.integers(0, 10**6), shift=st.floats(-50, 50))
def test_a_constant_added_to_all_logits_of_a_pixel_changes_nothing(seed: int, shift: float) -> None:
    logits, targets = draw(seed, 3)
    for loss in every_loss(3):
        assert total(loss, logits + shift, targets).item() == pytest.approx(total(loss, logits, targets).item())


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 5), scale=st.floats(0, 200))
def test_losses_are_not_negative_and_dice_loss_is_at_most_1(seed: int, num_classes: int, scale: float) -> None:
    logits, targets = draw(seed, num_classes)
    for loss in every_loss(num_classes):
        cost = total(loss, scale * logits, targets).item()
        assert cost >= -1e-9
        assert cost <= 1 + 1e-9 or not isinstance(loss, DiceLoss)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_gradients_agree_with_finite_differences(num_classes: int) -> None:
    logits, targets = draw(1, num_classes)
    for loss in [*every_loss(num_classes), boundary_loss()]:
        cost = partial(total, loss, targets=targets)
        assert torch.autograd.gradcheck(cost, (logits.clone().requires_grad_(),))


@pytest.mark.parametrize("gamma", [0.01, 0.5, 1.0, 2.0, 5.0])
def test_focal_gradients_are_finite_for_confident_pixels(gamma: float) -> None:
    logits = torch.tensor([[[[100.0, -100.0]], [[-100.0, 100.0]]]], requires_grad=True)
    FocalLoss(gamma=gamma)(logits, torch.tensor([[[0, 0]]])).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", INTEGER_DTYPES)
def test_targets_may_be_of_any_integer_dtype(dtype: torch.dtype) -> None:
    value, _ = CombinedLoss()(BY_HAND, TRUTH.to(dtype))
    assert value.item() == CombinedLoss()(BY_HAND, TRUTH)[0].item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_over_a_million_half_precision_pixels_do_not_overflow(dtype: torch.dtype) -> None:
    logits = torch.zeros(4, 2, 512, 512, dtype=dtype, requires_grad=True)
    loss = CombinedLoss(0.5, 0.5, tversky_weight=0.5, boundary_weight=0.1, gamma=2.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, parts = loss(logits, torch.ones(4, 512, 512, dtype=torch.uint8))
    value.backward()
    assert value.dtype == torch.float32
    assert parts["ce_loss"].item() == pytest.approx(0.25 * math.log(2), rel=1e-5)
    assert parts["dice_loss"].item() == pytest.approx(1 - (2 * 0.5 / 1.5) / 2, rel=1e-5)
    assert parts["tversky_loss"].item() == pytest.approx(1 - 0.5 / (0.5 + 0.7 * 0.5), rel=1e-5)
    assert parts["boundary_loss"].item() == 0  # wholly burned images have no boundary
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    assert logits.grad.isfinite().all()


def test_autocast_leaves_the_loss_of_float32_logits_as_it_is() -> None:
    logits, targets = draw(3, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = CombinedLoss()(logits.float(), targets)[0]
    assert inside.item() == CombinedLoss()(logits.float(), targets)[0].item()


def test_float64_logits_keep_their_precision() -> None:
    assert CombinedLoss()(BY_HAND, TRUTH)[0].dtype == torch.float64


def test_memory_format_does_not_matter() -> None:
    logits, targets = draw(5, 3)
    turned = logits.contiguous(memory_format=torch.channels_last)
    assert CombinedLoss()(turned, targets)[0].item() == pytest.approx(CombinedLoss()(logits, targets)[0].item())


def test_no_loss_reads_values_from_the_device() -> None:
    # A meta tensor has no values: whatever asks for one raises.
    logits = torch.zeros(2, 3, 8, 8, device="meta", requires_grad=True)
    targets = torch.zeros(2, 8, 8, dtype=torch.uint8, device="meta")
    for loss in every_loss(3):
        total(loss.to("meta"), logits, targets).backward()


@pytest.mark.parametrize("value", [-1, 2, 7, 254])
def test_a_label_outside_the_classes_is_an_error(value: int) -> None:
    for loss in every_loss(2):
        with pytest.raises(FiresegError, match=f"targets: value {value}, but the classes are 0 to 1"):
            loss(BY_HAND, torch.tensor([[[value, 0]]]))


def test_another_ignore_index() -> None:
    logits = logits_of([0.8, 0.4, 0.9])
    value = FocalLoss(gamma=0.0, ignore_index=-100)(logits, torch.tensor([[[1, 0, -100]]]))
    assert value.item() == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2, abs=1e-12)


@pytest.mark.parametrize(
    "targets", [torch.zeros(1, 1, 1).long(), torch.zeros(1, 1, 1, 2).long(), torch.zeros(1, 1, 2)], ids=str
)
def test_targets_of_another_shape_or_float_type_are_an_error(targets: Tensor) -> None:
    with pytest.raises(ValueError, match="expected logits"):
        CombinedLoss()(BY_HAND, targets)


def test_another_number_of_class_weights_is_an_error() -> None:
    with pytest.raises(ValueError, match="class_weights: 3, but 2 classes"):
        CombinedLoss(class_weights=[1.0, 1.0, 1.0])(BY_HAND, TRUTH)


def test_class_weights_are_copied_to_a_buffer() -> None:
    weights = torch.tensor([1.0, 2.0])
    loss = CombinedLoss(class_weights=weights)
    weights.zero_()
    assert {name: value.tolist() for name, value in loss.named_buffers()} == {"class_weights": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"ce_weight": 0.0, "dice_weight": 0.0}, "all 0"),
        ({"label_smoothing": 1.0}, "loss.label_smoothing: 1.0, expected less than 1"),
        ({"soft_labels": -1.0}, "loss.soft_labels: -1.0"),
        ({"tversky_alpha": 0.0, "tversky_beta": 0.0}, "loss.tversky_alpha, loss.tversky_beta: both 0"),
        ({"tversky_gamma": 0.0}, "loss.tversky_gamma: 0"),
        ({"ce_weight": -1.0}, "loss.ce_weight: -1.0"),
        ({"gamma": math.nan}, "loss.gamma: nan"),
        ({"smooth": 0.0}, "loss.smooth: 0"),
        ({"absent": "skiped"}, "did you mean 'skipped'"),
        ({"class_weights": [1.0, -1.0]}, "class_weights"),
        ({"class_weights": [0.0, 0.0]}, "not all 0"),
        ({"class_weights": [1.0, math.inf]}, "class_weights"),
    ],
)
def test_settings_out_of_range_are_an_error(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        CombinedLoss(**arguments)


def test_all_invalid_settings_are_reported_at_once() -> None:
    with pytest.raises(SettingError) as caught:
        CombinedLoss(ce_weight=-1.0, gamma=-2.0)
    assert len(caught.value.faults) == 2


def test_create_loss_weights_classes_by_inverse_frequency() -> None:
    loss = create_loss(class_counts=(90, 30, 0), gamma=2.0, absent="skipped", ignore_index=9)
    assert loss.class_weights is not None
    assert loss.class_weights.tolist() == [0.5, 1.5, 1.0]
    assert (loss.gamma, loss.absent, loss.ignore_index) == (2.0, "skipped", 9)


def test_create_loss_passes_the_settings_of_every_part() -> None:
    settings: dict[str, Any] = {
        "tversky_weight": 0.1,
        "boundary_weight": 0.2,
        "ordinal_weight": 0.3,
        "label_smoothing": 0.4,
    }
    settings |= {"soft_labels": 0.5, "tversky_alpha": 0.6, "tversky_beta": 0.8, "tversky_gamma": 0.9}
    loss = create_loss(class_counts=(5, 5, 5), **settings)
    assert {name: getattr(loss, name) for name in settings} == settings


@pytest.mark.parametrize("name", ["ordinal_weight", "soft_labels"])
def test_create_loss_refuses_an_order_of_two_classes(name: str) -> None:
    settings: dict[str, Any] = {name: 0.5}
    with pytest.raises(SettingError, match=f"loss.{name}: 0.5, .*use task=gra"):
        create_loss(class_counts=(5, 5), **settings)


def test_create_loss_caps_the_ratio_of_the_weights() -> None:
    loss = create_loss(class_counts=(10**6, 1), weight_cap=3.0)
    assert loss.class_weights is not None
    assert loss.class_weights.tolist() == [0.5, 1.5]


def test_create_loss_without_class_weights() -> None:
    assert create_loss(class_counts=(90, 30), class_weights=False).class_weights is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("ce_weight", -0.1), ("dice_weight", math.inf), ("weight_cap", 0.9), ("gamma", math.nan), ("absent", "skip")],
)
def test_annotations_reject_values_out_of_range(name: str, value: Any) -> None:
    hints = get_type_hints(create_loss, include_extras=True)
    with pytest.raises(ValidationError):
        TypeAdapter(hints[name]).validate_python(value)


@pytest.mark.parametrize("loss", [each for each in [*every_loss(3), boundary_loss()] if isinstance(each, CombinedLoss)])
def test_the_sums_of_the_parts_of_a_batch_give_the_loss_of_the_batch(loss: CombinedLoss) -> None:
    logits, targets = draw(0, 3)
    targets[0] = 1
    parts = [loss.compute_sums(logits[part], targets[part]) for part in (slice(0, 1), slice(1, 2))]

    value, _ = loss.combine(parts[0] + parts[1])

    assert value.item() == pytest.approx(loss(logits, targets)[0].item(), rel=1e-12)
    mean = (loss(logits[:1], targets[:1])[0] + loss(logits[1:], targets[1:])[0]) / 2
    assert abs(mean.item() - value.item()) > 0.001  # the mean of the losses of the parts is another number


def test_the_loss_and_its_gradient_equal_those_of_the_direct_formula_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 64, 64, generator=generator).requires_grad_()
    targets = torch.randint(0, 2, (3, 64, 64), generator=generator)
    targets[0, :20] = 255
    weights = torch.tensor([0.5, 1.5])
    is_labelled = (targets != 255).float()
    classes = targets.masked_fill(targets == 255, 0)
    log_p = logits.masked_fill((targets == 255)[:, None], 0.0).log_softmax(1)
    pixel_weights = is_labelled * weights[classes]
    cost = -log_p.gather(1, classes[:, None]).squeeze(1)
    ce = (pixel_weights * cost).sum() / pixel_weights.sum()
    truth = torch.zeros_like(log_p).scatter(1, classes[:, None], is_labelled[:, None])
    p = log_p.exp() * is_labelled[:, None]
    overlap, size = (p * truth).sum((0, 2, 3)), p.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    expected = torch.stack([0.5 * ce, 0.5 * (1 - (2 * overlap + 1e-6) / (size + 1e-6)).mean()]).sum()
    (expected_gradient,) = torch.autograd.grad(expected, logits)

    value, _ = CombinedLoss(class_weights=weights)(logits, targets)
    (gradient,) = torch.autograd.grad(value, logits)

    assert torch.equal(value, expected)
    assert torch.equal(gradient, expected_gradient)
