"""The loss of a task together with an auxiliary task."""

from __future__ import annotations

import pytest
import torch

from fireseg.loss import AuxiliaryLoss, CombinedLoss
from fireseg.task import NUM_AUXILIARY


def draw() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2 + NUM_AUXILIARY, 6, 5, generator=generator, dtype=torch.float64)
    fire = torch.randint(0, 2, (3, 6, 5), generator=generator)
    cover = torch.randint(0, NUM_AUXILIARY, (3, 6, 5), generator=generator)
    fire[0, :2] = cover[1, 3:] = 255
    return logits.requires_grad_(), torch.stack([fire, cover], 1).to(torch.uint8)


def test_the_cross_entropy_of_the_auxiliary_task_is_added_with_its_weight() -> None:
    logits, masks = draw()
    main = CombinedLoss(class_weights=[1.0, 2.0], boundary_weight=0.1)
    total, parts = AuxiliaryLoss(main, 0.4)(logits, masks)
    own, _ = main(logits[:, :2], masks[:, 0])
    cover = torch.nn.functional.cross_entropy(logits[:, 2:], masks[:, 1].long(), ignore_index=255)
    assert parts["auxiliary_loss"].item() == pytest.approx(cover.item(), rel=1e-12)
    assert total.item() == pytest.approx(own.item() + 0.4 * cover.item(), rel=1e-12)


def test_the_sums_of_the_parts_of_a_batch_give_the_loss_of_the_batch() -> None:
    logits, masks = draw()
    loss = AuxiliaryLoss(CombinedLoss(ordinal_weight=0.5), 0.4)
    sums = sum(loss.compute_sums(logits[part], masks[part]) for part in (slice(0, 1), slice(1, 3)))
    assert isinstance(sums, torch.Tensor)
    assert loss.combine(sums)[0].item() == pytest.approx(loss(logits, masks)[0].item(), rel=1e-12)


def test_without_a_known_land_cover_the_gradient_is_that_of_the_task() -> None:
    logits, masks = draw()
    masks[:, 1] = 255
    total, parts = AuxiliaryLoss(CombinedLoss(), 0.4)(logits, masks)
    total.backward()
    assert parts["auxiliary_loss"].item() == 0
    assert logits.grad is not None
    assert not logits.grad[:, 2:].any()
    assert logits.grad[:, :2].any()


def test_validation_has_the_loss_of_the_task() -> None:
    logits, masks = draw()
    main = CombinedLoss()
    total, parts = AuxiliaryLoss(main, 0.4)(logits[:, :2], masks[:, 0])
    assert total.item() == main(logits[:, :2], masks[:, 0])[0].item()
    assert set(parts) == {"ce_loss", "dice_loss"}
