"""Exports of one run that several tests read, because a conversion takes seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fireseg.decision import find_threshold, fire_log_odds
from fireseg.runs.folder import RunFolder
from tests.conftest import draw_patch
from tests.export.builders import OPERATING_POINT, export, load, set_threshold, write_run
from tests.predict.builders import draw_image


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with four val patches, whose threshold calls half of the pixels burned."""
    patches = tmp_path_factory.mktemp("patches")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (patches / split).mkdir()
        for number in range(4):
            image, mask = draw_patch(rng, 32, 7, 2)
            np.save(patches / split / f"{split}{number}_r0_c0_image.npy", image)
            np.save(patches / split / f"{split}{number}_r0_c0_mask.npy", mask)
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", patches=patches)
    trained = load(folder)
    logits = trained.predict_logits(torch.from_numpy(draw_image(96, 96))[None])
    middle = float(fire_log_odds(logits).median())
    set_threshold(folder, find_threshold(middle, OPERATING_POINT[1]))
    return folder


@pytest.fixture(scope="session")
def onnx_export(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of its export to ONNX."""
    return export(run, to="onnx", out=tmp_path_factory.mktemp("exports") / "export_onnx")


@pytest.fixture(scope="session")
def openvino_export(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of its export to OpenVINO."""
    return export(run, to="openvino", out=tmp_path_factory.mktemp("exports") / "export_openvino")
