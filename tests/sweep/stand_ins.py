"""Sweeps whose jobs are real processes, but train nothing: importing torch in each would take seconds."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fireseg.sweep.plan import Job, Plan, settle_plan

ROOT = Path(__file__).resolve().parents[2]

# Python imports it at its start. `fireseg.engine` without its __init__ has the signals, but not torch.
_CUSTOMIZATION = """
import sys
if "fireseg.train.job" in sys.orig_argv:
    import json, time, types
    from pathlib import Path
    engine = types.ModuleType("fireseg.engine")
    engine.__path__ = [{engine!r}]
    sys.modules["fireseg.engine"] = engine
    from fireseg.engine.signals import Interrupted, Interrupts
    engine.Interrupted, engine.Interrupts = Interrupted, Interrupts

    def train(settings, folder, *, point, interrupts, should_prune, **_):
        from fireseg.errors import FiresegError

        if settings["fails"]:
            raise FiresegError("data.root: nothing there; choose another")
        folder.write_config(settings)
        first, total = len(folder.read_metrics()), settings["engine"]["epochs"]
        is_pruned = should_prune(first)
        with interrupts.deferred():
            for epoch in range(first + 1, total + 1):
                if is_pruned:
                    break
                time.sleep(settings["seconds"])
                row = {{"epoch": epoch, "seconds": 1.0, "best": True, "val/fire_iou": settings["score"] + epoch / 1e3}}
                folder.append_metrics(row)
                folder.checkpoints.mkdir(exist_ok=True)
                (folder.checkpoints / "last.pt").write_text(str(epoch))
                is_pruned = should_prune(epoch)
                if epoch < total and not is_pruned:
                    interrupts.check(is_epoch_end=True)
        folder.write_provenance({{"tracked": {{"status": "FINISHED"}}}})

    run = types.ModuleType("fireseg.train.run")
    run.train = train
    sys.modules["fireseg.train.run"] = run
"""


def write_sweep(path: Path, scores: Sequence[float], *, failing: Sequence[int] = (), **settings: Any) -> Plan:
    """Writes the plan of a sweep whose jobs have given scores, and whose `failing` jobs end with an error.

    Args:
        path: Folder of the sweep.
        scores: Validation IoU of each job; grows by 0.001 an epoch.
        failing: Numbers of the jobs that fail.
        settings: Further settings: `epochs`, 3 by default, and `seconds` per epoch, 0.1 by default.
    """
    common = {
        "task": {"name": "del"},
        "data": {"root": "patches", "batch_size": 4, "num_workers": 0},
        "engine": {"epochs": settings.get("epochs", 3), "limit_batches": None},
        "tracker": settings.get("tracker", {"_target_": "fireseg.tracker.create_no_tracker"}),
        "seconds": settings.get("seconds", 0.1),
    }
    jobs = [
        Job(
            number=number,
            name=f"seed={number}",
            subdir=f"{number}_seed-{number}",
            overrides=(f"seed={number}",),
            settings={**common, "score": score, "fails": number in failing},
        )
        for number, score in enumerate(scores)
    ]
    plan = Plan(path=path, cwd=path.parent, swept=("seed",), jobs=tuple(jobs))
    settle_plan(plan)
    return plan


def stand_in_environment(folder: Path) -> dict[str, str]:
    """Returns the environment in which the jobs of sweeps train nothing.

    Args:
        folder: A folder for the code that each Python process imports at its start.
    """
    folder.mkdir(exist_ok=True)
    code = _CUSTOMIZATION.format(engine=str(ROOT / "fireseg/engine"))
    (folder / "sitecustomize.py").write_text(code)
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def read_job(plan: Plan, number: int) -> dict[str, Any]:
    """Reads `job.json` of a job."""
    return json.loads((plan.get_folder(plan.jobs[number]).path / "job.json").read_text())


def count_epochs(plan: Plan, number: int) -> int:
    """Counts the epochs that a job has recorded."""
    return len(plan.get_folder(plan.jobs[number]).read_metrics())
