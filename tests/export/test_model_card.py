"""Tests of the model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fireseg.export.metadata import describe_model
from fireseg.export.model_card import write_model_card
from fireseg.runs.folder import RunFolder
from tests.export.builders import load, write_evaluation, write_run
from tests.runs import builders
from tests.runs.builders import SELF_TRAINING, make_checkpoint, make_settings


def read_card(folder: RunFolder, **options: Any) -> str:
    trained = load(folder)
    parity = {"max_difference": 3e-7, "mean_difference": 1e-8, "changed_share": 0.0, "images": 4}
    report = {
        "format": "onnx",
        "files": [{"name": "model.onnx", "bytes": 5_400_000, "sha256": "ab" * 32}],
        "parity": {**parity, "source": "val patches", "note": ""},
        "model": describe_model(trained, output="calibrated", size=None),
    }
    path = folder.path / "MODEL_CARD.md"
    write_model_card(path, trained, report, **{"licence": None, **options})
    return path.read_text()


def test_results_are_given_with_their_interval_or_values_and_beside_the_burn_ratio(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    write_evaluation(folder)
    card = read_card(folder)
    assert "| test | 2 | 0.750 (n = 2: 0.700 0.800) | 0.800 | 0.500 | 1 of 3 tiles, 12.3 ha |" in card
    assert "found no leak between the splits" in card


def test_a_run_without_an_evaluation_of_its_checkpoint_has_no_results_and_the_command_that_makes_them(
    tmp_path: Path,
) -> None:
    folder = write_run(tmp_path / "run")
    write_evaluation(folder)
    content = json.loads(folder.evaluation("test", "json").read_text())
    content["run"]["sha256"] = "0" * 64
    folder.evaluation("test", "json").write_text(json.dumps(content))
    card = read_card(folder)
    assert f"python -m fireseg.evaluate {folder.path}" in card
    assert "Its accuracy is unknown" in card
    assert "0.750" not in card


def test_leaks_and_scores_on_the_split_of_the_threshold_are_flagged(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    write_evaluation(folder, split="val", leaks=("a in train and val",))
    card = read_card(folder)
    assert "**The splits leak**, so results are too good: a in train and val." in card
    assert "The threshold was chosen on val, so its scores are optimistic." in card


def test_a_self_trained_model_names_its_teacher(tmp_path: Path) -> None:
    content = {**make_checkpoint(make_settings()), "self_training": {**SELF_TRAINING, "teacher": "a|b"}}
    card = read_card(builders.write_run(tmp_path / "run", content=content))
    assert "| self-training | 12 unlabelled patches (3 left out) labelled by a\\|b (sha256 cafecafecafe) where" in card
    assert "self-training" not in read_card(write_run(tmp_path / "other"))


def test_the_audit_of_the_patches_is_summarised(tmp_path: Path) -> None:
    patches = tmp_path / "patches"
    patches.mkdir()
    audit = {"between": "splits", "num_tiles": 12, "num_activations": 9, "counts": {"overlap": 2, "activation": 0}}
    (patches / "audit.json").write_text(json.dumps(audit))
    card = read_card(write_run(tmp_path / "run", patches=patches))
    assert "patches: 12 tiles of 9 activations audited: overlap 2." in card


def test_licence_fingerprint_and_initial_weights_are_named_and_names_do_not_break_the_table(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    weights = {"source": "smp-hub/resnet34@1/model.safetensors", "sha256": "cd" * 32}
    data = {"root": "a|b\nc", "fingerprint": "", "class_counts": [90, 10]}
    folder.write_provenance({"weights": weights, "data": data})
    card = read_card(folder, licence="CC-BY-4.0")
    assert "- Weights: CC-BY-4.0." in card
    assert f"`{'f00d' * 16}`" in card
    assert "smp-hub/resnet34@1/model.safetensors, SHA-256 cdcd" in card
    assert "| patches | a\\|b\\nc |" in card
    assert "background 90, fire 10" in card
    assert "trained on other patches" not in card
    folder.write_provenance({"weights": {**weights, "fingerprint": "ab" * 32}, "data": data})
    assert "trained on other patches (fingerprint abababababab)" in read_card(folder)
