"""Command line of `export`."""

from __future__ import annotations

from collections.abc import Sequence

from fireseg.console import run_command, start_logging
from fireseg.export.options import ExportOptions


def export(options: ExportOptions) -> int:
    """Exports a trained model to a file that runs without fireseg.

    The folder holds the model (model.onnx, model.xml with model.bin, model.pt2, or the folder model/ of MLflow), a
    comparison of its probabilities with those of the run (parity.json), MODEL_CARD.md and model.stac.json. The input is
    surface reflectance of the bands in the metadata, (batch, bands, height, width) float32; the normalisation is inside
    the model. An export whose probabilities differ from those of the run by more than 0.0001 (0.02 for MLflow, which
    may compute in half precision) is refused, and nothing is written; one in int8 if its fire IoU on val patches is
    lower by more than 0.01.
    Exit codes: 0 success, 1 error, 2 invalid argument.
    """
    # Imported here because torch takes seconds that --help need not wait for.
    from fireseg.export.pipeline import export_model

    start_logging()
    export_model(options)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_command(export, arguments, program="python -m fireseg.export", stopped="nothing was written")
