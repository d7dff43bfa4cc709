"""Names of encoders, checked without what builds them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fireseg.model.encoders import ENCODERS, SMP_ENCODERS, check_encoder


def test_the_list_is_the_one_that_smp_builds() -> None:
    import segmentation_models_pytorch as smp

    assert set(SMP_ENCODERS) == set(smp.encoders.encoders)


@pytest.mark.parametrize("name", [*ENCODERS, "mit_b0", "tu-convnext_atto"])
def test_known_names_pass(name: str) -> None:
    assert check_encoder(name) == name


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet43", "'resnet34'"),
        ("efficientnet_b1", "'efficientnet-b1'"),
        ("mobilenetv2", "'mobilenet_v2'"),
        ("densnet169", "'densenet169'"),
    ],
)
def test_a_slip_is_refused_with_the_nearest_name(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"no encoder '{name}' \\(did you mean {near}\\?\\)"):
        check_encoder(name)


@pytest.mark.parametrize("name", ["", "tu-", "zzzz"])
def test_a_name_like_no_other_is_refused_with_the_seven(name: str) -> None:
    with pytest.raises(ValueError, match="take resnet18, resnet34"):
        check_encoder(name)


def test_importing_the_model_imports_nothing_heavy() -> None:
    program = (
        "import sys, fireseg.model\n"
        "print({'segmentation_models_pytorch', 'timm', 'huggingface_hub', 'safetensors'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "set()\n"
