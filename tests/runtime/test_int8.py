"""Tests of the quantisation to int8, of a small trained model on simulated patches."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from torch.nn.functional import cross_entropy

from fireseg import config
from fireseg.errors import FiresegError
from fireseg.export.options import ExportOptions
from fireseg.export.pipeline import export_model
from fireseg.files import BEST_CHECKPOINT, hash_file
from fireseg.model import FireSegmentationModel
from fireseg.predict.api import Run
from fireseg.predict.manifest import get_settings, read_map
from fireseg.predict.options import PredictOptions
from fireseg.predict.outputs import MapFiles, get_decision_threshold
from fireseg.predict.pipeline import predict_scenes
from fireseg.runs import Calibration, TrainedModel, load_trained_model, write_calibration
from fireseg.runs.folder import RunFolder
from fireseg.runtime import int8 as int8_module
from fireseg.runtime import quantisation
from fireseg.runtime.cache import read_record
from fireseg.runtime.engines import create_engine
from fireseg.runtime.int8 import load_int8
from fireseg.runtime.openvino import OpenVinoEngine, add_probabilities
from tests.conftest import draw_patch
from tests.predict.builders import draw_image, write_scene
from tests.runs.builders import FINGERPRINT, make_checkpoint, make_settings, write_run

NUM_VAL = 6


def write_trained_run(path: Path, patches: Path) -> RunFolder:
    """Trains until the probabilities are spread, as an untrained model decides all pixels by a hair."""
    rng = np.random.default_rng(0)
    content = make_checkpoint(make_settings(f"data.root={patches}", "data.indices=[NBR,BAI]"))
    model = config.make(content["config"]["model"], FireSegmentationModel)
    model.load_state_dict(content["model"])
    optimizer = torch.optim.Adam(model.train().parameters(), lr=5e-3)
    for _ in range(40):
        image, mask = draw_patch(rng, 64, 7, 2)
        optimizer.zero_grad()
        logits = model(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])
        cross_entropy(logits, torch.from_numpy(mask.astype(np.int64))[None]).backward()
        optimizer.step()
    return write_run(path, content={**content, "model": model.state_dict()})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with its patches in the folder `patches` beside it, and its int8 model."""
    folder = tmp_path_factory.mktemp("int8")
    rng = np.random.default_rng(1)
    for split, number in (("train", 4), ("val", NUM_VAL)):
        (folder / "patches" / split).mkdir(parents=True)
        for patch in range(number):
            image, mask = draw_patch(rng, 64, 7, 2)
            mask[:4] = 255
            np.save(folder / "patches" / split / f"{split}{patch}_r0_c0_image.npy", image)
            np.save(folder / "patches" / split / f"{split}{patch}_r0_c0_mask.npy", mask)
    run = write_trained_run(folder / "run", folder / "patches")
    load_int8(load(run))
    return run


@pytest.fixture
def run(made: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the run, whose patches are not available."""
    shutil.copytree(made.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def without_nncf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)


def load(run: RunFolder) -> TrainedModel:
    return load_trained_model(run.path, device="cpu")


def test_normalisation_and_indices_are_computed_in_float32(run: RunFolder) -> None:
    graph, _ = load_int8(load(run))
    operations = graph.get_ordered_ops()
    first = next(node for node in operations if node.get_type_name() == "Convolution")
    before, pending = set(), [first.input_value(0).get_node()]
    while pending:
        node = pending.pop()
        if node.get_type_name() != "Constant" and node.get_friendly_name() not in before:
            before.add(node.get_friendly_name())
            pending += [value.get_node() for value in node.input_values()]
    kinds = {node.get_friendly_name(): node.get_type_name() for node in operations}
    quantised = [name for name in before if kinds[name] == "FakeQuantize"]
    assert quantised == [first.input_value(0).get_node().get_friendly_name()]
    assert {"Divide", "Concat"} <= {kinds[name] for name in before}


def test_quantisation_hides_the_log_of_nncf_but_changes_no_handler(made: RunFolder) -> None:
    logger, handler = logging.getLogger("nncf"), logging.Handler()
    assert any(type(one) is logging.StreamHandler and one.level == logging.INFO for one in logger.handlers)
    level = logger.level
    logger.addHandler(handler)
    with quantisation._silence():
        assert logger.getEffectiveLevel() == logging.ERROR
        assert handler.level == logging.NOTSET
    logger.removeHandler(handler)
    assert logger.level == level


def get_file(run: RunFolder) -> Path:
    (file,) = (run.path / "runtime").glob("*_int8.xml")
    return file


def test_the_fire_iou_in_int8_is_that_of_float32_within_a_hundredth_and_both_are_recorded(made: RunFolder) -> None:
    trained = load(made)
    record = read_record(get_file(made))["int8"]
    assert record["fire_iou_fp32"] > 0.8
    assert abs(record["fire_iou"] - record["fire_iou_fp32"]) <= 0.01
    assert (record["calibration_patches"], record["compared_patches"]) == (NUM_VAL, NUM_VAL)
    assert (record["threshold"], record["temperature"]) == (0.5, 1.0)

    hits = unions = 0
    for file in sorted((made.path.parent / "patches" / "val").glob("*_image.npy")):
        image, mask = np.load(file), np.load(str(file).replace("_image", "_mask"))
        burned = trained.predict_logits(torch.from_numpy(image.transpose(2, 0, 1).copy())[None]).argmax(1)[0].numpy()
        labelled = mask != 255
        hits += int((burned & (mask == 1))[labelled].sum())
        unions += int((burned | (mask == 1))[labelled].sum())
    assert record["fire_iou_fp32"] == pytest.approx(hits / unions, abs=1e-4)


def test_weights_and_values_are_quantised(made: RunFolder) -> None:
    graph, _ = load_int8(load(made))
    types = [node.get_type_name() for node in graph.get_ops()]
    convolutions = [name for name in types if "Convolution" in name]
    assert types.count("FakeQuantize") >= len(convolutions) / 2 > 5
    constants = [str(node.get_output_element_type(0)) for node in graph.get_ops() if node.get_type_name() == "Constant"]
    assert constants.count("<Type: 'int8_t'>") >= len(convolutions) / 2


@pytest.mark.usefixtures("without_nncf")
def test_a_second_map_needs_neither_nncf_nor_patches(made: RunFolder, run: RunFolder, tmp_path: Path) -> None:
    shutil.move(made.path.parent / "patches", tmp_path / "moved")
    try:
        trained = load(run)
        engine = create_engine(trained, precision="int8")
    finally:
        shutil.move(tmp_path / "moved", made.path.parent / "patches")
    assert (engine.name, engine.precision) == ("openvino", "int8")
    assert engine.int8 is not None
    scene = write_scene(tmp_path / "scene.tif", draw_image(64, 64))
    summary = Run(trained, engine).predict_scene(scene, tmp_path / "maps").summary
    assert summary["runtime"]["int8"] == read_record(get_file(run))["int8"]
    assert summary["flags"] == []


@pytest.mark.usefixtures("without_nncf")
def test_maps_of_several_scenes_in_int8_are_done_for_the_same_command_and_not_for_automatic_precision(
    run: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scenes = tuple(str(write_scene(tmp_path / f"{name}.tif", draw_image(64, 64))) for name in "ab")
    options = PredictOptions(run=str(run.path), scenes=scenes, out=tmp_path / "maps", device="cpu", precision="int8")
    with caplog.at_level("INFO", "fireseg"):
        assert predict_scenes(options) == []
        assert [line for line in caplog.messages if line.startswith("int8: val fire IoU 0.")]
        caplog.clear()
        assert predict_scenes(options) == []
    assert any(line.startswith("2 of 2 scenes are mapped already") for line in caplog.messages)
    with pytest.raises(FiresegError, match="--overwrite"):
        predict_scenes(dataclasses.replace(options, precision="auto"))
    files = MapFiles.of(tmp_path / "maps", "a")
    automatic = dataclasses.replace(options, precision="auto")
    trained = load(run)
    settings = [get_settings(trained.sha256, get_decision_threshold(trained), one) for one in (options, automatic)]
    assert [read_map(files, one, scenes[0]) is not None for one in settings] == [True, False]


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_a_damaged_int8_model_is_made_again(run: RunFolder, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = get_file(run).with_suffix(suffix)
    content = file.read_bytes()
    calls = []

    def quantise(nncf: object, graph: object, *others: object) -> object:
        calls.append(graph)
        return graph

    monkeypatch.setattr(quantisation, "_quantise", quantise)
    load_int8(load(run))
    assert not calls
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    load_int8(load(run))
    assert len(calls) == 1
    load_int8(load(run))
    assert len(calls) == 1
    assert not list((run.path / "runtime").glob(".*_int8"))


def test_another_threshold_of_the_run_is_compared_anew(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantisation, "_quantise", lambda nncf, graph, *others: graph)
    calibration = Calibration(
        temperature=2.0,
        threshold=0.7,
        rule_min_pixels=1,
        rule_min_odds=0.0,
        checkpoint_sha256=hash_file(run.checkpoints / BEST_CHECKPOINT),
        fingerprint=FINGERPRINT,
    )
    write_calibration(run, calibration)
    _, comparison = load_int8(load(run))
    assert (comparison.threshold, comparison.temperature) == (0.7, 2.0)
    assert comparison.changed_share == 0  # because nothing was quantised


def test_without_the_patches_the_command_that_names_them_is_printed_and_helps(
    made: RunFolder, run: RunFolder, tmp_path: Path
) -> None:
    get_file(run).unlink()
    shutil.move(made.path.parent / "patches", tmp_path / "moved")
    try:
        with pytest.raises(
            FiresegError,
            match=r"--precision int8: needs val patches once, but data\.root: .*patches: no such folder any more, .*; "
            r"name their folder by python -m fireseg\.export \S*run --to openvino --precision int8 --data PATCHES",
        ):
            create_engine(load(run), precision="int8")
        assert not list((run.path / "runtime").glob("*_int8.xml"))
        load_int8(load(run), data=tmp_path / "moved")  # as that command does
        assert create_engine(load(run), precision="int8").precision == "int8"
    finally:
        shutil.move(tmp_path / "moved", made.path.parent / "patches")


@pytest.mark.usefixtures("without_nncf")
def test_a_missing_nncf_is_named_with_the_extra(run: RunFolder) -> None:
    get_file(run).unlink()
    with pytest.raises(FiresegError, match=r"--precision int8: nncf is not installed; .*'fireseg\[int8\]'"):
        create_engine(load(run), precision="int8")


def test_a_drop_of_more_than_a_hundredth_is_a_flag_of_the_map_and_refuses_the_export(
    run: RunFolder, tmp_path: Path
) -> None:
    record_file = get_file(run).with_name(f"{get_file(run).name}.json")
    content = json.loads(record_file.read_text())
    content["int8"] |= {"fire_iou": 0.80, "fire_iou_fp32": 0.82}
    record_file.write_text(json.dumps(content))
    trained = load(run)
    engine = create_engine(trained, precision="int8")
    flag = "int8: val fire IoU 0.8000 instead of 0.8200 in float32; use --precision fp32"
    scene = write_scene(tmp_path / "scene.tif", draw_image(64, 64))
    assert Run(trained, engine).predict_scene(scene, tmp_path / "maps").summary["flags"] == [flag]
    assert Run(trained, engine).predict(draw_image(64, 64)).flags == (flag,)
    with pytest.raises(FiresegError, match=r"best_model\.pt: int8: val fire IoU 0\.8000 .*--precision fp32.*nothing"):
        export_model(ExportOptions(run=str(run.path), to="openvino", precision="int8"))
    assert not (run.path / "export_openvino_int8").exists()


def test_val_patches_without_fire_are_flagged() -> None:
    values = {field.name: 0 for field in dataclasses.fields(int8_module.Int8Comparison)}
    comparison = int8_module.Int8Comparison(**{**values, "fire_iou": None, "fire_iou_fp32": None})  # pyright: ignore[reportArgumentType]
    (flag,) = comparison.list_flags()
    assert flag.startswith("int8: nothing burned on the val patches")
    assert "val fire IoU unknown" in int8_module.format_comparison(comparison.as_dict())


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_probabilities_are_those_of_the_logits_with_the_temperature(made: RunFolder, temperature: float) -> None:
    graph, _ = load_int8(load(made))
    image = draw_image(96, 64)[None]
    logits = torch.from_numpy(OpenVinoEngine(graph, "int8").predict_logits(image))
    result = OpenVinoEngine(add_probabilities(graph, temperature), "int8").predict_logits(image)
    torch.testing.assert_close(torch.from_numpy(result), (logits / temperature).softmax(1), atol=1e-6, rtol=1e-5)


def test_an_export_in_int8_says_so_inside_and_in_all_files_beside(made: RunFolder, tmp_path: Path) -> None:
    out = export_model(ExportOptions(run=str(made.path), to="openvino", precision="int8", static=64))
    assert out.name == "export_openvino_int8"
    graph = openvino.Core().read_model(out / "model.xml")
    assert json.loads(graph.get_rt_info(["fireseg", "precision"]).value) == "int8"
    assert graph.input(0).get_shape() == [1, 7, 64, 64]
    assert graph.output(0).get_names() == {"probabilities"}
    parity = json.loads((out / "parity.json").read_text())["parity"]
    assert parity["int8"]["fire_iou"] == read_record(get_file(made))["int8"]["fire_iou"]
    assert parity["max_difference"] > 1e-4
    assert parity["changed_share"] < 0.01
    assert "quantised to int8" in (out / "MODEL_CARD.md").read_text()
    item = json.loads((out / "model.stac.json").read_text())["properties"]
    assert item["mlm:hyperparameters"]["precision"] == "int8"
    shutil.rmtree(out)


def test_the_command_prints_both_scores_and_leaves_nothing_in_the_home_and_the_working_folder(
    made: RunFolder, run: RunFolder, tmp_path: Path
) -> None:
    get_file(run).unlink()
    scene = write_scene(tmp_path / "scene.tif", draw_image(64, 64))
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    home.mkdir()
    cwd.mkdir()
    command = [sys.executable, "-m", "fireseg.predict", run.path, scene, "--out", tmp_path / "maps"]
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("XDG_CACHE_HOME", None)
    words = [str(part) for part in (*command, "--precision", "int8")]
    done = subprocess.run(words, env=environment, cwd=cwd, check=True, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert "int8: val fire IoU 0." in output
    assert f"{NUM_VAL} val patches calibrate, {NUM_VAL} compared" in output
    assert not any(word in output for word in ("INFO:nncf", "WARNING:nncf", "Statistics", "CUDA"))
    assert not list(cwd.iterdir())
    assert not [path for path in home.rglob("*") if path.is_file() and path.parent.name != "matplotlib"]
