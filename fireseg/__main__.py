"""The `fireseg` program: lists the commands and runs one of them."""

from __future__ import annotations

import sys
from importlib import import_module

from fireseg import __version__

COMMANDS = {
    "prepare": "cut Sentinel-2 tiles and their masks into training patches",
    "train": "train a model, or several in a sweep",
    "evaluate": "score a trained run on a split, fire by fire",
    "report": "compare the runs of a sweep, or any runs, side by side",
    "benchmark": "judge training recipes by cross-validation over fires",
    "predict": "map burned areas in whole scenes",
    "serve": "serve a web page and a JSON interface that map scenes",
    "fetch": "fetch Sentinel-2 scenes of an area from a public catalogue",
    "export": "export a trained model to ONNX, OpenVINO, torch.export or MLflow",
    "sweep": "run, continue and watch the jobs of a sweep",
    "register": "register the best model of a run in MLflow, with an alias",
    "runs": "send runs to MLflow after its server was down",
}


def main() -> int:
    """Runs `fireseg COMMAND ...`, which equals `python -m fireseg.COMMAND ...`.

    Returns:
        The exit code: that of the command; 0 for `--help` and `--version`; 2 for an unknown command.
    """
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        sys.stdout.write(_list_commands())
        return 0
    if name == "--version":
        sys.stdout.write(f"fireseg {__version__}\n")
        return 0
    if name not in COMMANDS:
        from fireseg.errors import did_you_mean

        sys.stderr.write(f"fireseg: {name}: no such command{did_you_mean(name, COMMANDS)}\n{_list_commands()}")
        return 2
    sys.argv = [f"fireseg {name}", *arguments]
    return import_module(f"fireseg.{name}.cli").main()


def _list_commands() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fireseg COMMAND ...      (or python -m fireseg.COMMAND ...)",
            "",
            "Trains burned-area segmentation models on Sentinel-2 patches, compares them, and maps burned areas.",
            "",
            *lines,
            "",
            "`fireseg COMMAND --help` lists the options of a command; `fireseg --version` prints the version.",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
