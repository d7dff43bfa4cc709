"""Self-training: a teacher labels patches, and a run learns from them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from fireseg import config
from fireseg.data.bands import BAND_NAMES
from fireseg.data.scene_normalisation import compute_scaling
from fireseg.engine import SINGLE_PROCESS, Interrupts
from fireseg.errors import FiresegError, SettingError
from fireseg.files import hash_file
from fireseg.runs import load_trained_model
from fireseg.runs.folder import ResumePoint, RunFolder, find_resume_point
from fireseg.runs.sync import describe_run
from fireseg.train.build import Learner, build_learner
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


def compose(root: Path, unlabelled: Path, teacher: Path, *overrides: str) -> dict[str, Any]:
    given = (f"data.root={root}", f"data.unlabelled={unlabelled}", f"data.teacher={teacher}")
    return config.compose_settings([*QUICK, *given, *overrides])


def train_run(parent: Path, settings: dict[str, Any]) -> RunFolder:
    folder = RunFolder.create(parent / "outputs", "run")
    train(settings, folder, point=ResumePoint(), interrupts=Interrupts())
    return folder


def build(settings: dict[str, Any], point: ResumePoint = ResumePoint()) -> Learner:  # noqa: B008 - immutable
    """Builds the parts of a run, which is all of it but the epochs."""
    return build_learner(settings, point, SINGLE_PROCESS)


def refuse(settings: dict[str, Any], point: ResumePoint = ResumePoint()) -> tuple[str, ...]:  # noqa: B008 - immutable
    with pytest.raises(FiresegError) as caught:
        build(settings, point)
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
    run = build(compose(root, unlabelled, teacher, f"task={task}"))

    (path,) = (unlabelled / "pseudo_labels").glob("*.npy")
    labels, clear = np.load(path), np.load(unlabelled / "train/masks_clear.npy") == 1
    images = torch.from_numpy(np.load(unlabelled / "train/images.npy").transpose(0, 3, 1, 2) / np.float32(10_000))
    trained = load_trained_model(teacher, device="cpu")
    powers = np.exp(trained.predict_logits(images).double().numpy())
    probabilities = powers / powers.sum(1, keepdims=True)
    is_sure = clear & (probabilities.max(1) >= 0.8)
    np.testing.assert_array_equal(labels, np.where(is_sure, probabilities.argmax(1), 255))
    assert len(np.unique(labels)) > 2
    result = run.self_training
    assert result is not None
    assert (result.teacher, result.teacher_sha256) == (str(teacher), hash_file(trained.checkpoint))
    kept = [patch for patch in labels if (patch != 255).any()]
    assert (result.patches, result.left_out, result.pixels) == (len(kept), 3 - len(kept), is_sure.sum())
    assert len(run.data.train) == 8 + len(kept)
    assert result.labelled_share == pytest.approx(is_sure.sum() / clear.sum())
    assert result.burned_share == pytest.approx((labels[is_sure] > 0).mean())
    assert f"labelled by {teacher} (sha256 {result.teacher_sha256[:12]}) where its probability is" in log.text
    assert "was trained on other patches" in log.text


def test_a_teacher_and_its_run_see_unlabelled_patches_relative_to_their_tiles(
    make_patches: Make, make_unlabelled: Make, tmp_path: Path
) -> None:
    unlabelled = make_unlabelled()
    teacher = write_teacher(tmp_path / "teacher", "data.normalisation=scene")
    run = build(compose(make_patches(), unlabelled, teacher, "data.normalisation=scene"))

    images = np.load(unlabelled / "train/images.npy") / np.float32(10_000)
    scalings = [compute_scaling(image.reshape(-1, 7), BAND_NAMES) for image in images]
    relative = np.stack([scaling.apply(image) for scaling, image in zip(scalings, images, strict=True)])
    trained = load_trained_model(teacher, device="cpu")
    logits = trained.predict_logits(torch.from_numpy(relative).permute(0, 3, 1, 2))
    expected = select_labels(logits.softmax(1), 0.8).numpy()
    expected[:, 0] = 255
    (path,) = unlabelled.glob("pseudo_labels/*.npy")
    np.testing.assert_array_equal(np.load(path), expected)
    assert run.data.train.scalings is not None
    number = run.data.train.names.index("EMSR901_AOI01_01_r0_c0")
    np.testing.assert_array_equal(run.data.train.scalings[number], scalings[1])
    assert len(run.data.train.scalings) == len(run.data.train)


def test_a_resumed_run_equals_an_undisturbed_one_and_makes_lost_labels_again_but_refuses_others(
    make_patches: Make, make_unlabelled: Make, tmp_path: Path
) -> None:
    unlabelled, teacher = make_unlabelled(), write_teacher(tmp_path / "teacher")
    settings = compose(make_patches(), unlabelled, teacher)
    longer = {**settings, "engine": {**settings["engine"], "epochs": 2}}
    whole = train_run(tmp_path, longer)
    (path,) = unlabelled.glob("pseudo_labels/*.npy")
    content, written = path.read_bytes(), path.stat().st_mtime_ns
    stopped = train_run(tmp_path, settings)
    assert path.stat().st_mtime_ns == written  # found, not made again
    path.unlink()
    train(longer, stopped, point=find_resume_point(stopped.path), interrupts=Interrupts())

    ours, theirs = (torch.load(run.checkpoints / "last.pt", weights_only=True)["model"] for run in (stopped, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    rows = [[{**row, "seconds": 0} for row in run.read_metrics()] for run in (stopped, whole)]
    assert [row["train/loss"] for row in rows[0]] == [row["train/loss"] for row in rows[1]]
    assert path.read_bytes() == content
    note = json.loads(stopped.provenance.read_text())["self_training"]
    own = load_trained_model(stopped.path, device="cpu", build=False).self_training
    assert own is not None
    assert {**asdict(own), "leaks": []} == note
    assert describe_run(stopped).params["self_training"] == note
    assert (note["teacher"], note["teacher_sha256"]) == (str(teacher), hash_file(teacher / "checkpoints/best_model.pt"))

    point = find_resume_point(stopped.path)
    shutil.rmtree(teacher)
    assert build(longer, point).self_training == own  # the labels are there, so the teacher need not be
    path.write_bytes(content[:-1] + bytes([255 if content[-1] != 255 else 0]))
    (fault,) = refuse(longer, point)
    assert fault.startswith("data.unlabelled: other patches, or other labels of the teacher, than those that")
    path.unlink()
    write_teacher(teacher, scale=1.0)
    (fault,) = refuse(longer, point)
    assert f"data.teacher: {teacher} has another checkpoint" in fault
    assert "its labels are lost" in fault


def test_a_teacher_that_differs_in_anything_is_refused_with_all_faults(
    make_patches: Make, make_unlabelled: Make, tmp_path: Path
) -> None:
    unlabelled = make_unlabelled(pixel_m=10.0, level="1C")
    teacher = write_teacher(
        tmp_path / "teacher", "task=gra", "data.bands=[B08,B12]", bands=["B08", "B12"], pixel_m=20.0, level="2A"
    )
    settings = compose(make_patches(), unlabelled, teacher)
    faults = refuse(settings)
    assert [fault.removeprefix("data.teacher: ").partition(",")[0].partition(" (")[0] for fault in faults] == [
        f"{teacher} has the task gra",
        f"{teacher} has the bands B08 B12",
        f"{unlabelled} has images of level 1C",
        f"{unlabelled} has pixels of 10 m",
    ]
    assert not (unlabelled / "pseudo_labels").exists()
    settings["data"]["teacher"] = str(tmp_path / "nowhere")
    (fault,) = refuse(settings)
    assert fault.startswith(f"data.teacher: {tmp_path / 'nowhere'}: no such run folder or checkpoint")


def test_labels_of_one_kind_are_warned_of_and_none_at_all_are_refused(
    make_patches: Make, make_unlabelled: Make, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    settings = compose(make_patches(), make_unlabelled(), write_teacher(tmp_path / "burned", scale=0, bias=9))
    build(settings)
    assert "all pixels that" in log.text
    assert "labelled are burned; check it on such images" in log.text
    teacher = write_teacher(tmp_path / "unsure", scale=0)
    settings["data"]["teacher"] = str(teacher)
    (fault,) = refuse(settings)
    assert f"data.teacher: {teacher} is sure of no pixel of 3 patches; lower data.pseudo_confidence (0.8)" in fault


def test_jobs_at_the_same_time_label_once(
    make_patches: Make, make_unlabelled: Make, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    unlabelled = make_unlabelled()
    settings = compose(make_patches(), unlabelled, write_teacher(tmp_path / "teacher"))
    first = build(settings).self_training
    (path,) = unlabelled.glob("pseudo_labels/*.npy")
    content = path.read_bytes()
    path.unlink()
    with ThreadPoolExecutor(1) as pool:
        with FileLock(path.with_suffix(".lock")):  # as the first job, which is labelling
            second = pool.submit(build, settings)
            deadline = time.monotonic() + 60
            while "another process labels these patches; waiting" not in log.text and not second.done():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            path.write_bytes(content)
            written = path.stat().st_mtime_ns
        assert second.result().self_training == first
    assert path.stat().st_mtime_ns == written


def test_a_folder_and_its_teacher_are_set_together() -> None:
    for given, missing in (("data.unlabelled=a", "data.teacher: null"), ("data.teacher=a", "data.unlabelled: null")):
        with pytest.raises(SettingError, match=missing):
            config.compose_settings([given])
    with pytest.raises(SettingError, match=r"data.pseudo_confidence: 1\.0, but it must be less than 1"):
        config.compose_settings(["data.unlabelled=a", "data.teacher=b", "data.pseudo_confidence=1.0"])
