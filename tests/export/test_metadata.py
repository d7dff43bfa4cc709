"""Tests of the metadata of exported models."""

from __future__ import annotations

import pytest

from fireseg.export.metadata import describe_for_deepness, describe_model
from fireseg.runs import Calibration
from tests.predict.builders import make_trained

CALIBRATION = Calibration(
    temperature=2.0,
    threshold=0.6,
    rule_min_pixels=1,
    rule_min_odds=0.0,
    checkpoint_sha256="0" * 64,
    fingerprint="f" * 64,
)


def test_the_threshold_of_probabilities_without_temperature_gives_the_same_decisions() -> None:
    trained = make_trained(calibration=CALIBRATION)
    assert describe_model(trained, output="calibrated", size=None)["threshold"] == 0.6
    # log-odds 2 log(0.6 / 0.4), so odds of 2.25 and a probability of 2.25 / 3.25
    for output in ("raw", "none"):
        assert describe_model(trained, output=output, size=None)["threshold"] == pytest.approx(2.25 / 3.25)


def test_a_run_without_calibration_decides_at_a_half_and_says_so() -> None:
    described = describe_model(make_trained(), output="calibrated", size=None)
    assert (described["threshold"], described["temperature"], described["threshold_origin"]) == (0.5, 1.0, "default")


def test_deepness_takes_the_likeliest_of_more_than_two_classes_only_without_a_threshold() -> None:
    metadata = describe_model(make_trained(num_classes=5), output="calibrated", size=512)
    assert describe_for_deepness(metadata, size=512, scale=None, offset=None)["seg_thresh"] == 0


def test_reflectance_reaches_the_model_as_it_is_and_the_pixel_size_is_in_centimetres() -> None:
    metadata = {**describe_model(make_trained(), output="calibrated", size=512), "pixel_m": 20.0}
    deepness = describe_for_deepness(metadata, size=512, scale=None, offset=None)
    mean, std = deepness["standardization_mean"][0], deepness["standardization_std"][0]
    assert (0.2 / 255 - mean) / std == pytest.approx(0.2)
    assert (deepness["resolution"], deepness["tiles_overlap"]) == (2000, 12)
