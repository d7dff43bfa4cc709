"""Builders of the evaluation tests: fires, results, runs, and a parser of reports."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fireseg.engine import Interrupts
from fireseg.evaluate.fires import Fire, PatchPosition
from fireseg.evaluate.inference import ARGMAX, FIXED_RULE, LOG_ODDS, NBR, SEVERITY
from fireseg.evaluate.mosaic import ArrayRaster, Mosaic, PatchPixels, PatchSummary, StitchedTile, summarize_patch
from fireseg.evaluate.results import Evaluation, Preview
from fireseg.metric import MIN_FIRES, find_components
from fireseg.model import FireSegmentationModel
from fireseg.prepare.cli import main as prepare
from fireseg.runs import TrainedModel
from fireseg.runs.folder import ResumePoint, RunFolder
from fireseg.task import Task
from fireseg.train.build import build_training
from fireseg.train.run import train
from tests.runs.builders import make_settings

# Fires and predictions from nested lists


def make_mosaic(
    truth: Any,
    log_odds: Any,
    *,
    name: str = "EMSR100_AOI01_01",
    severity: Any = 1,
    nbr: Any = None,
    fixed_rule: Any = None,
    **metadata: Any,
) -> Mosaic:
    """Makes a fire of one patch."""
    truth, log_odds = np.array(truth, np.uint8), np.array(log_odds, np.float32)
    layers: dict[str, Any] = {LOG_ODDS: log_odds, SEVERITY: np.broadcast_to(np.uint8(severity), log_odds.shape).copy()}
    layers[ARGMAX] = np.where(log_odds > 0, layers[SEVERITY], np.uint8(0))
    if nbr is not None:
        layers[NBR] = np.array(nbr, np.float32)
    if fixed_rule is not None:
        layers[FIXED_RULE] = np.array(fixed_rule, bool)
    height, width = truth.shape
    fire = Fire(name=name, positions=(PatchPosition(0, 0, 0),), height=height, width=width, **metadata)
    return Mosaic(
        fire=fire,
        truth=truth,
        is_covered=np.ones(truth.shape, bool),
        layers=layers,
        preview_image=np.zeros((1, height, width), np.float32),
        preview_step=1,
        patches=[summarize(truth, layers)],
    )


def make_pixels_of_patch(truth: Any, image: Any = None) -> PatchPixels:
    """Makes a patch of one band; the image is 0.5 everywhere unless given, `(S, S)`."""
    truth = np.array(truth, np.uint8)
    image = np.full(truth.shape, 0.5) if image is None else np.array(image)
    return PatchPixels(image[None].astype(np.float32), truth)


def make_tile(*bands: Any, truth: Any = 0) -> StitchedTile:
    """Makes a tile of one patch of 32 pixels with the bands B03, B08, B12, a number or `(32, 32)` each."""
    image = np.stack([np.broadcast_to(np.float64(band), (32, 32)) for band in bands], axis=2)
    labels = np.broadcast_to(np.uint8(truth), (32, 32)).copy()
    return StitchedTile(
        fire=Fire(name="T", positions=(PatchPosition(0, 0, 0),), height=32, width=32),
        raster=ArrayRaster(
            bands=("B03", "B08", "B12"),
            image=(image * 10_000).round().astype(np.uint16),
            unknown=np.zeros((32, 32), bool),
        ),
        is_covered=np.ones((32, 32), bool),
        truth=labels,
        patch_truths=[labels],
    )


def summarize(truth: np.ndarray, layers: dict[str, Any]) -> PatchSummary:
    return summarize_patch(
        truth,
        log_odds=layers[LOG_ODDS],
        argmax=layers[ARGMAX],
        nbr=layers.get(NBR),
        fixed_rule=layers.get(FIXED_RULE),
        components=find_components(layers[LOG_ODDS], truth != 255),
    )


# Models and runs


class BandsAsLogits(nn.Module):
    """Returns the first bands of the image as logits."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, image: Tensor) -> Tensor:
        return image[:, : self.num_classes]


def make_trained(num_classes: int = 2, ignore_index: int = 255) -> TrainedModel:
    """Makes a model of the bands B03, B08, B12, whose logits are the bands."""
    names, bands = tuple(f"class{number}" for number in range(num_classes)), ("B03", "B08", "B12")
    return TrainedModel(
        build_model=lambda: FireSegmentationModel(BandsAsLogits(num_classes), bands=bands).eval(),
        task=Task(name="own", num_classes=num_classes, class_names=names, ignore_index=ignore_index),
        bands=bands,
        settings={},
        device=torch.device("cpu"),
        checkpoint=Path("best_model.pt"),
        sha256="",
        epoch=1,
        fingerprint="",
        folder=None,
        calibration=None,
    )


def train_run(parent: Path, patches: Path, *overrides: str, name: str) -> RunFolder:
    """Trains for one epoch in this process."""
    settings, folder = make_run_settings(patches, *overrides), RunFolder.create(parent, name)
    train(settings, folder, point=ResumePoint(None, None, None), interrupts=Interrupts())
    return folder


def make_run(parent: Path, patches: Path, *overrides: str, name: str) -> RunFolder:
    """Makes a run folder with the initial weights, without training."""
    settings, folder = make_run_settings(patches, *overrides), RunFolder.create(parent, name)
    folder.write_config(settings)
    training = build_training(settings, folder, ResumePoint(None, None, None))
    training.checkpoints.save_best(
        {
            "format": 1,
            "config": settings,
            "class_names": list(training.task.class_names),
            "bands": list(training.data.bands),
            "fingerprint": training.data.fingerprint,
            "model": training.state.eval_model.state_dict(),
            "epoch": 0,
            "val/fire_iou": None,
        }
    )
    return folder


def make_run_settings(patches: Path, *overrides: str) -> dict[str, Any]:
    quick = ("data.num_workers=0", "data.batch_size=4", "engine.epochs=1")
    return make_settings(f"data.root={patches}", *quick, *overrides)


def cut_tiles(tiles: Path, patches: Path, *options: str) -> Path:
    """Cuts tiles into patches of 32 pixels."""
    assert prepare([str(tiles), str(patches), "--size", "32", *options]) == 0
    return patches


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file strictly, without NaN and Infinity."""

    def reject(constant: str) -> None:
        raise AssertionError(f"{path}: {constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=reject)


# Results of an evaluation

ALL_BANDS = ["B02", "B03", "B04", "B08", "B8A", "B11", "B12"]
BINS = 15
GRADES = ["no_damage", "negligible", "moderate", "high", "destroyed"]

# name, country, climate, date, burned share, true ha, predicted ha, IoU, IoU of the tuned index
FIRES = [
    ("EMSR205_AOI01_01", "Spain", "Mediterranean", "2017-05-06", 0.212, 812.0, 790.5, 0.861, 0.733),
    ("EMSR205_AOI01_02", "Spain", "Mediterranean", "2017-05-06", 0.004, 9.1, 14.2, 0.402, 0.455),
    ("EMSR211_AOI01_01", "Portugal", "Mediterranean", "2017-06-21", 0.441, 4210.0, 4302.0, 0.931, 0.842),
    ("EMSR213_AOI02_01", "Montenegro", "Continental", "2017-07-18", 0.083, 260.4, 242.0, 0.802, 0.611),
    ("EMSR227_AOI01_03", "Italy", "Mediterranean", "2017-08-30", 0.0, 0.0, 0.0, None, None),
    ("EMSR237_AOI01_01", "Italy", "Mediterranean", "2017-09-02", 0.0006, 1.2, 3.4, 0.0, 0.0),
    ("EMSR240_AOI01_01", "Greece", "Mediterranean", "2018-07-24", 0.151, 1276.0, 1190.0, 0.888, 0.702),
    ("EMSR250_AOI01_01", "Sweden", "Boreal", "2018-07-19", 0.310, 2903.0, 2876.0, 0.912, 0.820),
    ("EMSR252_AOI03_02", "Sweden", "Boreal", None, 0.052, 131.0, 122.8, 0.774, 0.540),
    ("EMSR298_AOI01_01", "Australia", None, "2019-11-14", 0.552, 10480.0, 10640.0, 0.944, 0.899),
    ("EMSR365_AOI01_01", "Chile", "Arid <dry>", "2019-02-08", 0.009, 22.0, 18.1, 0.655, 0.310),
    ("EMSR371_AOI01_01", "Chile", "Arid <dry>", "2019-02-09", 0.122, 640.0, 655.0, 0.839, 0.790),
    ("EMSR382_AOI01_01", "Greece", "Mediterranean", "2019-08-14", 0.253, 1851.0, 1822.0, 0.897, 0.760),
    ("EMSR382_AOI01_02", "Greece", "Mediterranean", "2019-08-14", 0.028, 77.7, 70.2, 0.733, 0.731),
]
METHODS = (
    ("model", "model", "burned where the probability is at least 0.43, temperature 1.31, both chosen on val", 0.876),
    ("model_argmax", "model, argmax", "as reported in training: no threshold, no temperature", 0.869),
    ("index_tuned", "NBR, tuned", "burned where NBR is below 0.062, the best threshold on train", 0.723),
    ("index_fixed", "NBR, fixed", "burned where NBR < -0.1 and NDWI <= 0", 0.651),
)


def make_interval(mean: float | None, half: float | None = 0.05, num: int = 13) -> dict[str, Any]:
    if mean is None or half is None or num < MIN_FIRES:
        values = [] if mean is None else [mean] * num
        return {"mean": mean, "low": None, "high": None, "num": num, "values": values}
    return {"mean": mean, "low": max(mean - half, -1.0), "high": mean + half, "num": num, "values": None}


def make_detection(tp: int, fp: int, fn: int, tn: int) -> dict[str, Any]:
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    return {
        "detection_accuracy": (tp + tn) / (tp + fp + fn + tn),
        "detection_precision": precision,
        "detection_recall": recall,
        "detection_f1": 2 * precision * recall / (precision + recall),
        **{"tp": tp, "fp": fp, "fn": fn, "tn": tn},
    }


def make_pixels(iou: float, classes: list[str] | None) -> dict[str, Any]:
    measures = {"iou": iou, "dice": 2 * iou / (1 + iou), "precision": iou + 0.06, "recall": iou + 0.05}
    scores = {f"fire_{name}": value for name, value in measures.items()}
    if classes:
        scores |= {"mean_iou": iou - 0.02, "mean_dice": iou}
        scores |= {f"{name}_{each}": value for each in classes for name, value in measures.items()}
        if len(classes) > 2:
            scores |= {"severity_iou": 0.41, "grade_mae": 0.72, "grade_kappa": None}
            scores |= {f"{name}_negligible": None for name in measures}
    return scores


def make_method(name: str, label: str, note: str, iou: float, *, classes: list[str], has_area: bool) -> dict[str, Any]:
    edges = {f"boundary_f1_{d}px": iou - 0.3 + 0.1 * d for d in (1, 2, 3)}
    edges |= {f"boundary_iou_{d}px": iou - 0.4 + 0.1 * d for d in (1, 2, 3)}
    area: dict[str, Any] = dict.fromkeys(("true_ha", "predicted_ha", "error_ha", "relative_error"))
    if has_area:
        wanted, found = 22672.2, 22672.2 * (0.6 + 0.45 * iou)
        area = {"true_ha": wanted, "predicted_ha": found, "error_ha": found - wanted}
        area["relative_error"] = (found - wanted) / wanted
    return {
        **{"name": name, "label": label, "note": note, "is_there": True},
        "pixels": make_pixels(iou, classes if name.startswith("model") else None),
        "fires": {each: make_interval(iou - 0.03) for each in ("iou", "dice", "precision", "recall")},
        "edges": {**edges, "hausdorff_95_px": 24 - 20 * iou},
        "area": area,
        "unburned": make_false_alarms(3.4 if has_area else None),
        "detection": make_detection(round(190 * iou), 9, round(190 * (1 - iou)), 240),
    }


def make_false_alarms(predicted_ha: float | None) -> dict[str, Any]:
    """Makes the false alarms of a method on a tile without fire."""
    counts = {"num": 1, "num_false_alarms": 1, "predicted_pixels": 340}
    return {**counts, "predicted_ha": predicted_ha, "ha_per_1000_km2": predicted_ha and 7.25}


def make_fire(row: tuple[Any, ...]) -> dict[str, Any]:
    name, country, climate, date, share, true_ha, predicted_ha, iou, index = row
    size = next(
        label for label, top in (("< 1 %", 0.01), ("1-10 %", 0.1), ("10-30 %", 0.3), ("> 30 %", 2)) if share < top
    )
    return {
        **{"name": name, "activation": name[:7], "country": country, "climate": climate, "date": date, "size": size},
        **{"burned_share": share, "labelled_pixels": 1_048_576, "iou": iou},
        "dice": None if iou is None else 2 * iou / (1 + iou),
        "precision": None if iou is None else min(iou + 0.05, 1),
        "recall": iou if share else None,
        **{"true_ha": true_ha, "predicted_ha": predicted_ha, "boundary_f1_2px": iou, "boundary_iou_2px": iou},
        "hausdorff_95_px": 4.5 if share else None,
        "index_tuned_iou": index,
        "index_fixed_iou": None if index is None else index * 0.9,
        "truth_sha256": "0" * 64,
    }


def make_groups(fires: list[dict[str, Any]], **keys: list[str | None]) -> dict[str, Any]:
    groups = {}
    for kind, labels in keys.items():
        groups[kind] = []
        for label in dict.fromkeys(label for label in labels if label):
            ious = [fire["iou"] for fire, each in zip(fires, labels, strict=True) if each == label]
            known = [iou for iou in ious if iou is not None]
            mean = sum(known) / len(known) if known else None
            half = 0.06 if len(known) > 1 else None
            index = None if mean is None else max(mean - 0.12, 0)
            groups[kind].append(
                {
                    **{"name": label, "num": len(ious), "iou": make_interval(mean, half, len(known))},
                    "index_tuned_iou": make_interval(index, half, len(known)),
                    "difference": make_interval(
                        None if mean is None or index is None else mean - index, half, len(known)
                    ),
                }
            )
    return groups


def make_reliability(bend: float) -> dict[str, Any]:
    confidence = [(place + 0.5) / BINS for place in range(BINS)]
    pixels = [int(9e6 * 0.4**place) + int(4e6 * 0.5 ** (BINS - 1 - place)) for place in range(BINS)]
    frequency: list[Any] = [max(p + bend * (p - 0.5) * p * (1 - p) * 4, 0.0) for p in confidence]
    return {
        "edges": [place / BINS for place in range(BINS + 1)],
        **{"confidence": confidence, "frequency": frequency, "pixels": pixels},
    }


def make_results() -> dict[str, Any]:
    """Makes results of a delineation with everything: 14 fires, areas, both baseline rules."""
    fires = [make_fire(row) for row in FIRES]
    recall = [place / 60 for place in range(61)]
    classes = ["background", "fire"]
    return {
        **{"format": 4, "split": "test"},
        "run": {
            **{"folder": "outputs/2025-06-03_unet", "name": "unet-<resnet34>", "checkpoint": "best_model.pt"},
            **{"sha256": "ab12" * 16, "epoch": 37, "task": "del", "class_names": classes},
            **{"colours": ["#d9d9d9", "#c1272d"], "arch": "unet", "encoder": "resnet34", "bands": ALL_BANDS},
            "version": "0.1.0",
        },
        "data": {
            **{"root": "patches", "fingerprint": "f00d" * 16, "trained_on": "f00d" * 16, "is_same": True, "leaks": []},
            **{"patches": 437, "fires": 13, "unburned_tiles": 1, "labelled_pixels": 27_911_204, "hectares_known": True},
        },
        "inference": {"windows": 544, "overlap": 64, "input": "patches"},
        "decision": {
            **{"temperature": 1.31, "threshold": 0.43, "rule": {"min_pixels": 12, "min_probability": 0.61}},
            **{"chosen_on": "val", "is_optimistic": False, "origin": "run", "best_threshold": 0.43},
            "gain": {"gain": 0.031, "low": 0.012, "high": 0.05, "num": 9},
            "threshold_reason": "chosen on val, where it gains IoU over 0.5: +0.031 [+0.012, +0.050], n = 9",
        },
        "methods": [make_method(*row, classes=classes, has_area=True) for row in METHODS],
        "gain": {
            "pooled": 0.153,
            "per_fire": {
                "difference": make_interval(0.118, 0.049),
                **{"wins": 11, "losses": 1, "ties": 1, "p_value": 0.0063},
            },
        },
        "confusion": [[25_402_118, 152_044], [171_902, 2_185_140]],
        "calibration": {
            "before": {"ece": 0.0312, "brier": 0.0211, "nll": 0.0893, "average_precision": 0.947},
            "after": {"ece": 0.0094, "brier": 0.0196, "nll": 0.0701, "average_precision": 0.947},
            "reliability": {"before": make_reliability(-0.8), "after": make_reliability(0.1)},
            "precision_recall": {
                "threshold": [1 - place for place in recall],
                "precision": [1 - 0.4 * place**24 for place in recall],
                "recall": recall,
            },
            "operating_point": {"threshold": 0.43, "precision": 0.936, "recall": 0.926},
        },
        "detection": {"plain": make_detection(166, 9, 24, 238), "rule": make_detection(171, 4, 19, 243)},
        "fires": fires,
        "groups": make_groups(
            fires,
            size=[fire["size"] for fire in fires],
            country=[fire["country"] for fire in fires],
            climate=[fire["climate"] for fire in fires],
            year=[fire["date"] and fire["date"][:4] for fire in fires],
        ),
        "off_centre": make_off_centre(),
        "against": None,
    }


def make_off_centre() -> dict[str, Any]:
    """Makes the off-centre check of a model that hardly relies on the position of fires."""
    pairs = {"difference": make_interval(-0.031, 0.03), "wins": 1, "losses": 12, "ties": 0, "p_value": 0.003}
    views = {
        view: {"pooled": {"centred": 0.876, "off_centre": iou}, **pairs}
        for view, iou in (("mirrored", 0.85), ("cropped", 0.841))
    }
    return {"drop": 0.035, **views, "fires": [], "advice": ""}


def make_poor_results() -> dict[str, Any]:
    """Makes results of a grading of two fires without areas, baseline and threshold, compared with another run."""
    results = make_results()
    results["run"] |= {"task": "gra", "class_names": GRADES, "bands": ["B02", "B03", "B04", "B08", "B12"]}
    results["run"]["colours"] = ["#d9d9d9", "#fed976", "#fd8d3c", "#e31a1c", "#67000d"]
    results["split"] = "val"
    results["data"] |= {"trained_on": "beef" * 16, "is_same": False, "hectares_known": False, "fires": 1, "patches": 9}
    results["data"]["unburned_tiles"] = 1
    results["data"]["leaks"] = ["one fire in two splits: EMSR1 & <b>EMSR2</b>"]
    results["decision"] |= {"chosen_on": None, "is_optimistic": False, "temperature": 1.0, "threshold": 0.5}
    results["decision"] |= {"best_threshold": None, "gain": None}
    results["decision"]["threshold_reason"] = "default, because there is no burned pixel of val to choose on"
    methods = [make_method(*row, classes=GRADES, has_area=False) for row in METHODS[:2]]
    for name, label, *_ in METHODS[2:]:
        gone = dict.fromkeys(("pixels", "fires", "edges", "area", "unburned", "detection"))
        methods.append(
            {"name": name, "label": label, "note": "needs B11, which these data lack", "is_there": False} | gone
        )
    results["methods"] = methods
    for method in methods[:2]:
        method["fires"] = {each: make_interval(0.62, None, 1) for each in ("iou", "dice", "precision", "recall")}
        method["edges"]["hausdorff_95_px"] = float("nan")
    results["gain"] = {"pooled": None, "per_fire": None}
    results["off_centre"] = None
    results["confusion"] = [[900, 5, 10, 0, 0], [0] * 5, [30, 0, 200, 40, 4], [10, 0, 60, 180, 30], [0, 0, 3, 44, 90]]
    after = results["calibration"]["reliability"]["after"]
    for key in ("confidence", "frequency"):
        after[key][3:9] = [None] * 6
    after["pixels"][3:9] = [0] * 6
    results["fires"] = [make_fire(row) for row in FIRES[3:5]]
    for fire in results["fires"]:
        fire.update(dict.fromkeys(("true_ha", "predicted_ha", "country", "climate")))
        fire.update(dict.fromkeys(("index_tuned_iou", "index_fixed_iou")))
    results["groups"] = make_groups(results["fires"], size=[fire["size"] for fire in results["fires"]])
    for group in results["groups"]["size"]:
        group["index_tuned_iou"] = group["difference"] = make_interval(None, None, 0)
    results["against"] = make_against(results["fires"])
    return results


def make_full_results() -> dict[str, Any]:
    """Makes complete results with a comparison."""
    results = make_results()
    return results | {"against": make_against(results["fires"])}


def make_against(fires: list[dict[str, Any]]) -> dict[str, Any]:
    """Makes a comparison with a run that is a little worse on every fire."""
    theirs = [None if fire["iou"] is None else max(fire["iou"] - 0.04, 0) for fire in fires]
    return {
        **{"name": "unet <mobilenet_v2>", "sha256": "cd34" * 16, "split": "test"},
        "difference": make_interval(0.04, 0.03 if len(fires) > 2 else None, len(fires)),
        **{"wins": len(fires) - 1, "losses": 0, "ties": 0, "p_value": 0.25},
        "pooled": {"ours": 0.876, "theirs": 0.841},
        "unburned": {"ours": make_false_alarms(3.4), "theirs": make_false_alarms(12.5)},
        "fires": [{"name": f["name"], "ours": f["iou"], "theirs": t} for f, t in zip(fires, theirs, strict=True)],
    }


def make_preview(seed: int, *, num_classes: int = 2, shape: tuple[int, int] = (160, 200)) -> Preview:
    """Makes a preview of a burned disc and a shifted prediction, with a corner without patch."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    grade = num_classes - 1
    burned = (np.hypot(rows - 80, columns - 100) < 40) * (1 + (columns > 100) * (grade - 1))
    predicted = (np.hypot(rows - 84, columns - 96) < 38 + seed) * (1 + (columns > 96) * (grade - 1))
    ground = np.array([0.05, 0.08, 0.07, 0.35, 0.36, 0.2, 0.12], np.float32)
    char = np.array([0.03, 0.04, 0.05, 0.08, 0.09, 0.2, 0.25], np.float32)
    image = np.where(burned[None] > 0, char[:, None, None], ground[:, None, None])
    image = (image * random.uniform(0.7, 1.3, image.shape)).astype(np.float32)
    truth, predicted = burned.astype(np.uint8), predicted.astype(np.uint8)
    truth[:30, :50] = 255
    predicted[:20, :40] = 255
    return Preview(composite_image=image, truth=truth, predicted=predicted)


def make_evaluation(results: dict[str, Any] | None = None) -> Evaluation:
    """Makes an evaluation with previews of the six best and the six worst fires."""
    results = results or make_results()
    bands, grades = len(results["run"]["bands"]), len(results["run"]["class_names"])
    order = sorted(results["fires"], key=lambda fire: -1 if fire["iou"] is None else fire["iou"])
    shown = [fire["name"] for fire in order if fire["iou"] is not None]
    shown = shown if len(shown) <= 12 else shown[:6] + shown[-6:]
    previews = {name: make_preview(place, num_classes=grades) for place, name in enumerate(shown)}
    cut = {
        name: Preview(composite_image=preview.composite_image[:bands], truth=preview.truth, predicted=preview.predicted)
        for name, preview in previews.items()
    }
    return Evaluation(results=results, previews=cut)


# Reports as text


class Page(HTMLParser):
    """Parsed page: words, headings, images, and tables by their caption as rows of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.headings: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.caption = ""
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "img":
            self.images.append(given)
        elif tag != "meta":
            self.open.append(tag)
        if given.get("role") == "region":
            self.caption = given["aria-label"] or ""
            self.tables[self.caption] = []
        elif tag == "tr":
            self.tables[self.caption].append([])
        elif tag in ("td", "th"):
            self.tables[self.caption][-1].append("")
        elif tag in ("h1", "h2"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script", "title"):
            self.words.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[self.caption][-1][-1] += data
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings[-1] += data

    def column(self, caption: str, name: str) -> list[str]:
        """Returns the cells below a heading."""
        heads, *rows = self.tables[caption]
        return [row[heads.index(name)] for row in rows]
