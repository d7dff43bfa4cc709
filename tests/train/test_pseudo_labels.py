"""Self-training: a teacher labels patches, and a run learns from them."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fireseg import config
from fireseg.engine import Interrupts
from fireseg.errors import FiresegError, SettingError
from fireseg.files import hash_file
from fireseg.runs import load_trained_model
from fireseg.runs.folder import ResumePoint, RunFolder, find_resume_point
from fireseg.train.pseudo_labels import select_labels
from fireseg.train.run import train
from tests.runs.builders import make_checkpoint, make_settings, write_run

Make = Callable[..., Path]

QUICK = (
    "model.encoder=tu-test_efficientnet",
    "model.weights=none",
    "data.num_workers=0",
    "data.batch_size=4",
    "data.pseudo_confidence=0.8",
    "engine.epochs=1",
    "engine.device=cpu",
    "tracker=none",
)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("fireseg")
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


def write_teacher(path: Path, *overrides: str, scale: float = 40.0, bias: float = 0.0, **changes: Any) -> Path:
    """Writes a run with random weights, whose last layer is made sure of its classes.

    Args:
        path: Run folder to create.
        *overrides: Settings of the run.
        scale: Factor of the weights of the last layer.
        bias: Added to the logit of class 1.
        **changes: Entries of the checkpoint.
    """
    content = {**make_checkpoint(make_settings(*overrides)), **changes}
    content["model"]["network.segmentation_head.0.weight"] *= scale
    content["model"]["network.segmentation_head.0.bias"][1] += bias
    write_run(path, content=content)
    return path


def start(folder: RunFolder, *overrides: str, point: ResumePoint | None = None) -> RunFolder:
    point = point or ResumePoint()
    settings = config.compose_settings([*([] if point.folder else QUICK), *overrides])
    train(settings, folder, point=point, interrupts=Interrupts())
    return folder


def train_run(tmp_path: Path, root: Path, unlabelled: Path, teacher: Path, *overrides: str) -> RunFolder:
    given = (f"data.root={root}", f"data.unlabelled={unlabelled}", f"data.teacher={teacher}")
    return start(RunFolder.create(tmp_path / "outputs", "run"), *given, *overrides)


def resume(folder: RunFolder, *overrides: str) -> RunFolder:
    return start(folder, f"resume={folder.path}", *overrides, point=find_resume_point(folder.path))


def refuse(tmp_path: Path, root: Path, unlabelled: Path, teacher: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(FiresegError) as caught:
        train_run(tmp_path, root, unlabelled, teacher, *overrides)
    return caught.value.faults


def test_a_pixel_has_the_likeliest_class_from_the_limit_on() -> None:
    fire = torch.tensor([0.0, 0.25, 0.26, 0.5, 0.74, 0.75, 1.0])
    labels = select_labels(torch.stack([1 - fire, fire])[None, :, None], 0.75)
    assert labels.dtype == torch.uint8
    assert labels.tolist() == [[[0, 0, 255, 255, 255, 1, 1]]]
    limits = torch.tensor([0.9, 0.1])  # 0.9 is less in float32 than in float64
    assert select_labels(torch.stack([1 - limits, limits])[None, :, None], 0.9).tolist() == [[[1, 0]]]
    grades = torch.tensor([[0.5, 0.125, 0.125, 0.125, 0.125], [0.0, 0.0, 0.0, 0.5, 0.5], [0.3, 0.3, 0.2, 0.1, 0.1]])
    assert select_labels(grades.T[None, :, None], 0.5).tolist() == [[[0, 3, 255]]]


@pytest.mark.parametrize("task", ["del", "gra"])
def test_a_run_learns_from_the_confident_clear_pixels_of_its_teacher(
    task: str, make_patches: Make, make_unlabelled: Make, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    unlabelled = make_unlabelled()
    teacher = write_teacher(tmp_path / "teacher", f"task={task}")
    root = make_patches(num_classes=2 if task == "del" else 5)
    folder = train_run(tmp_path, root, unlabelled, teacher, f"task={task}")

    (path,) = (unlabelled / "pseudo_labels").glob("*.npy")
    labels, clear = np.load(path), np.load(unlabelled / "train/masks_clear.npy") == 1
    images = torch.from_numpy(np.load(unlabelled / "train/images.npy").transpose(0, 3, 1, 2) / np.float32(10_000))
    trained = load_trained_model(teacher, device="cpu")
    powers = np.exp(trained.predict_logits(images).double().numpy())
    probabilities = powers / powers.sum(1, keepdims=True)
    is_sure = clear & (probabilities.max(1) >= 0.8)
    np.testing.assert_array_equal(labels, np.where(is_sure, probabilities.argmax(1), 255))
    assert len(np.unique(labels)) > 2
    note = json.loads(folder.provenance.read_text())["self_training"]
    assert (note["teacher"], note["teacher_sha256"]) == (str(teacher), hash_file(trained.checkpoint))
    kept = [patch for patch in labels if (patch != 255).any()]
    assert (note["patches"], note["left_out"], note["pixels"]) == (len(kept), 3 - len(kept), is_sure.sum())
    assert note["labelled_share"] == pytest.approx(is_sure.sum() / clear.sum())
    assert note["burned_share"] == pytest.approx((labels[is_sure] > 0).mean())
    assert json.loads(folder.config.read_text())["data"]["teacher"] == str(teacher)
    assert f"unlabelled patches labelled by {teacher} (sha256 {note['teacher_sha256'][:12]})" in log.text
    assert "was trained on other patches" in log.text
    own = load_trained_model(folder.path, device="cpu").self_training
    assert own is not None
    assert (own.patches, own.fingerprint) == (note["patches"], note["fingerprint"])


def test_a_resumed_run_equals_an_undisturbed_one_even_without_its_teacher(
    make_patches: Make, make_unlabelled: Make, tmp_path: Path
) -> None:
    given = (tmp_path, make_patches(), make_unlabelled(), write_teacher(tmp_path / "teacher"))
    whole = train_run(*given, "engine.epochs=2")
    (labels,) = given[2].glob("pseudo_labels/*.npy")
    written = labels.stat().st_mtime_ns
    stopped = train_run(*given)
    assert labels.stat().st_mtime_ns == written  # the second run found them
    alone = start(RunFolder.create(tmp_path / "outputs", "alone"), f"data.root={given[1]}")
    shutil.rmtree(given[3])
    resume(stopped, "engine.epochs=2")

    def read(folder: RunFolder) -> dict[str, torch.Tensor]:
        return torch.load(folder.checkpoints / "last.pt", weights_only=True)["model"]

    ours, theirs, without = map(read, (stopped, whole, alone))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not all(torch.equal(ours[name], without[name]) for name in without)
    rows = [[{**row, "seconds": 0} for row in folder.read_metrics()] for folder in (stopped, whole)]
    for name in ("train/loss", "val/loss", "val/fire_iou"):
        assert [row[name] for row in rows[0]] == [row[name] for row in rows[1]]


def test_a_resumed_run_makes_lost_labels_again_and_refuses_others(
    make_patches: Make, make_unlabelled: Make, tmp_path: Path
) -> None:
    unlabelled, teacher = make_unlabelled(), write_teacher(tmp_path / "teacher")
    folder = train_run(tmp_path, make_patches(), unlabelled, teacher)
    (path,) = unlabelled.glob("pseudo_labels/*.npy")
    content = path.read_bytes()
    path.unlink()
    resume(folder, "engine.epochs=2")
    assert path.read_bytes() == content
    path.write_bytes(content[:-1] + bytes([1 - content[-1] if content[-1] < 2 else 0]))
    with pytest.raises(FiresegError, match=r"data.unlabelled: other patches, or other labels of the teacher, than"):
        resume(folder, "engine.epochs=3")
    path.unlink()
    shutil.rmtree(teacher)
    write_teacher(teacher, scale=1.0)
    with pytest.raises(
        FiresegError, match=rf"data.teacher: {teacher} has another checkpoint .*, and its labels are lost"
    ):
        resume(folder, "engine.epochs=3")


def test_a_teacher_that_differs_in_anything_is_refused_with_all_faults(
    make_patches: Make, make_unlabelled: Make, tmp_path: Path
) -> None:
    unlabelled = make_unlabelled(pixel_m=10.0, level="1C")
    teacher = write_teacher(
        tmp_path / "teacher", "task=gra", "data.bands=[B08,B12]", bands=["B08", "B12"], pixel_m=20.0, level="2A"
    )
    faults = refuse(tmp_path, make_patches(), unlabelled, teacher)
    assert [fault.removeprefix("data.teacher: ").partition(",")[0].partition(" (")[0] for fault in faults] == [
        f"{teacher} has the task gra",
        f"{teacher} has the bands B08 B12",
        f"{unlabelled} has images of level 1C",
        f"{unlabelled} has pixels of 10 m",
    ]
    assert not (unlabelled / "pseudo_labels").exists()
    (fault,) = refuse(tmp_path, tmp_path / "patches", unlabelled, tmp_path / "nowhere")
    assert fault.startswith(f"data.teacher: {tmp_path / 'nowhere'}: no such run folder or checkpoint")


def test_labels_of_one_kind_are_warned_of_and_none_at_all_are_refused(
    make_patches: Make, make_unlabelled: Make, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    root, unlabelled = make_patches(), make_unlabelled()
    train_run(tmp_path, root, unlabelled, write_teacher(tmp_path / "burned", scale=0, bias=9))
    assert "all pixels that" in log.text
    assert "labelled are burned; check the images" in log.text
    teacher = write_teacher(tmp_path / "unsure", scale=0)
    (fault,) = refuse(tmp_path, root, unlabelled, teacher)
    assert f"data.teacher: {teacher} is sure of no pixel of 3 patches; lower data.pseudo_confidence (0.8)" in fault


def test_a_folder_and_its_teacher_are_set_together() -> None:
    for given, missing in (("data.unlabelled=a", "data.teacher: null"), ("data.teacher=a", "data.unlabelled: null")):
        with pytest.raises(SettingError, match=missing):
            config.compose_settings([given])
    with pytest.raises(SettingError, match=r"data.pseudo_confidence: 1\.0, but it must be less than 1"):
        config.compose_settings(["data.unlabelled=a", "data.teacher=b", "data.pseudo_confidence=1.0"])
