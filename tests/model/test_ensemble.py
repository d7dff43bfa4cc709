"""Tests of several models as one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fireseg.decision import class_probabilities, fire_log_odds
from fireseg.errors import FiresegError
from fireseg.model import FireSegmentationModel
from fireseg.model.ensemble import FireSegmentationEnsemble, average_logits


def make_member(*, mean: float, weight: float) -> FireSegmentationModel:
    """Makes a model of one band whose logits are 0 and the normalised band times a weight."""
    network = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([0.0, weight]).view(2, 1, 1, 1))
        network.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess] - a convolution has a bias by default
    model = FireSegmentationModel(network, bands=("B08",))
    model.set_normalisation([mean], [0.1])
    return model.eval()


def test_the_probability_is_the_mean_of_the_members_each_with_its_own_normalisation() -> None:
    # Of 0.4, the first normalises to 1 and weighs it by log 3: odds 3. The second to -1, by log 4: odds 1/4.
    first, second = make_member(mean=0.3, weight=1.0986123), make_member(mean=0.5, weight=1.3862944)
    image = torch.full((1, 1, 33, 40), 0.4)

    probabilities = class_probabilities(FireSegmentationEnsemble([first, second])(image))

    assert probabilities.shape == (1, 2, 33, 40)
    torch.testing.assert_close(probabilities[0, :, 0, 0], torch.tensor([(0.25 + 0.8) / 2, (0.75 + 0.2) / 2]))


def test_one_member_decides_as_alone() -> None:
    member = make_member(mean=0.3, weight=2.0)
    image = torch.rand(2, 1, 32, 32)
    expected = fire_log_odds(member(image))
    torch.testing.assert_close(fire_log_odds(FireSegmentationEnsemble([member])(image)), expected)


def test_probabilities_near_0_keep_their_digits() -> None:
    # exp(-200) is 0 in float32; the mean of exp(-200) and exp(-201) is exp(-200) (1 + 1/e) / 2.
    logits = [torch.tensor([0.0, -200.0]).view(1, 2, 1, 1), torch.tensor([0.0, -201.0]).view(1, 2, 1, 1)]
    expected = torch.tensor(-200 + 0.3132617 - 0.6931472)
    torch.testing.assert_close(average_logits(logits)[0, 1, 0, 0], expected)


def test_an_image_of_other_bands_is_refused_as_by_a_single_model() -> None:
    with pytest.raises(FiresegError, match=r"3 channels, but the model takes 1: B08"):
        FireSegmentationEnsemble([make_member(mean=0.0, weight=1.0)])(torch.rand(1, 3, 32, 32))
