"""Gradient accumulation: the loss and its gradient are those of one large batch."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fireseg.batch import Batch
from fireseg.engine.accumulate import forward_in_parts, group_batches
from fireseg.loss import CombinedLoss


def make_batch() -> tuple[Tensor, Tensor]:
    """Returns six images and masks; the first ones are mostly unlabelled, so that a mean of losses differs."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(6, 3, 8, 8, generator=generator)
    mask = (image[:, 0] > 0.7).to(torch.uint8)
    mask[:2, :6] = 255
    return image, mask


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_loss_and_gradient_in_parts_are_those_of_the_whole_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    whole = copy.deepcopy(model)
    image, mask = make_batch()

    expected, _ = CombinedLoss()(whole(image), mask)
    expected.backward()
    logits, propagate = forward_in_parts(model, model, image.split([2, 2, 2]))
    total, _ = CombinedLoss()(logits, mask)
    total.backward()
    propagate()

    torch.testing.assert_close(total, expected)
    for one, other in zip(gradients(model), gradients(whole), strict=True):
        torch.testing.assert_close(one, other)
    # The mean of the losses of the parts, which is the usual way, is another loss.
    mean = torch.stack([CombinedLoss()(whole(image[i : i + 2]), mask[i : i + 2])[0] for i in (0, 2, 4)]).mean()
    assert abs(float((mean - expected).detach())) > 1e-4


def test_dropout_repeats_its_masks_and_running_statistics_are_updated_once_for_each_part():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))
    model = nn.Sequential(*layers)
    reference = copy.deepcopy(model)
    image, mask = make_batch()

    torch.manual_seed(1)
    joined = torch.cat([reference(part) for part in image.split([4, 2])])
    CombinedLoss()(joined, mask)[0].backward()
    torch.manual_seed(1)
    logits, propagate = forward_in_parts(model, model, image.split([4, 2]))
    CombinedLoss()(logits, mask)[0].backward()
    propagate()

    assert torch.equal(logits.detach(), joined.detach())
    for one, other in zip(gradients(model), gradients(reference), strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(model.buffers(), reference.buffers(), strict=True):
        assert torch.equal(one, other)
    assert int(dict(model.named_buffers())["1.num_batches_tracked"]) == 2


def test_batches_are_grouped_and_copied_because_a_loader_reuses_their_memory():
    memory = torch.zeros(1, 3, 2, 2)
    batches = (
        Batch(memory.fill_(number), torch.zeros(1, 2, 2, dtype=torch.uint8), (str(number),)) for number in range(5)
    )

    groups = list(group_batches(batches, 2))

    assert [[batch.names for batch in group] for group in groups] == [[("0",), ("1",)], [("2",), ("3",)], [("4",)]]
    assert [float(batch.image.mean()) for group in groups for batch in group] == [0, 1, 2, 3, 4]
