"""Runs a benchmark: cuts the folds, trains every recipe on each, evaluates the models, and writes the table."""

from __future__ import annotations

import logging
import shlex
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from fireseg.benchmark.options import BenchmarkOptions
from fireseg.benchmark.protocol import Group, Protocol, read_protocol, settle_protocol
from fireseg.benchmark.results import JudgedRun, build_results, format_results, write_results
from fireseg.console import format_count, format_override
from fireseg.data.folds import name_fold_file
from fireseg.errors import FiresegError
from fireseg.evaluate.options import EvaluateOptions
from fireseg.evaluate.pipeline import evaluate
from fireseg.files import convert_disk_errors
from fireseg.runs import load_trained_model
from fireseg.runs.summary import RunSummary, read_evaluation, read_run
from fireseg.sweep.plan import Plan, read_plan

log = logging.getLogger("fireseg")

_FOLD = "fold_"
"""Beginning of the names of the folders of patches."""


def run_benchmark(options: BenchmarkOptions) -> int:
    """Runs what is missing from a benchmark and writes its table.

    Args:
        options: Options of the command.

    Returns:
        The exit code: 0, or 1 if trainings failed; the table then has the recipes whose trainings are complete.

    Raises:
        FiresegError: If the tiles cannot be divided or cut, or a model cannot be evaluated.
        SettingError: If the protocol is not valid, or the folder holds another benchmark.
    """
    protocol = read_protocol(options.protocol)
    with convert_disk_errors(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(options.out / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise FiresegError(f"{options.out}: another process runs this benchmark; wait for it or stop it") from error
    with lock:
        settle_protocol(protocol, options.out / "protocol.yaml", options.protocol)
        _prepare(options, "folds", *_list_fold_words(protocol))
        groups = [Group(name, number) for number in protocol.max_tiles for name in protocol.recipes]
        judged, failed, results = list[JudgedRun](), list[Group](), None
        plans: dict[Group, list[Plan]] = {}
        for position, group in enumerate(groups, start=1):
            log.info("recipe %d of %d: %s", position, len(groups), group.folder_name)
            folds = [_prepare_fold(protocol, group, fold, options) for fold in range(protocol.folds)]
            sweeps = {seed: options.out / "runs" / group.folder_name / f"seed_{seed}" for seed in protocol.seeds}
            codes = [_train(protocol, group, folds, seed, sweep, options) for seed, sweep in sweeps.items()]
            if any(codes):
                failed.append(group)
                continue
            plans[group] = [read_plan(sweep) for sweep in sweeps.values()]
            for plan in plans[group]:
                judged += _evaluate(group, plan)
            for name, recipes in protocol.ensembles.items():
                members = [Group(recipe, group.max_tiles) for recipe in recipes]
                if group in members and all(member in plans for member in members):
                    together = [plan for member in members for plan in plans[member]]
                    judged += _evaluate_together(Group(name, group.max_tiles), together)
            results = build_results(protocol, judged)
            write_results(results, options.out)
    if results is not None:
        sys.stdout.write("\n".join(["", *format_results(results), ""]))
        log.info(
            "written: %s", ", ".join(str(options.out / f"results.{kind}") for kind in ("md", "csv", "json", "png"))
        )
    for group in failed:
        log.error("%s: not all trainings are finished; see %s", group.recipe, options.out / "runs" / group.folder_name)
    return int(bool(failed))


def _list_fold_words(protocol: Protocol) -> list[str]:
    return [f"--size={protocol.size}", f"--folds={protocol.folds}", f"--seed={protocol.split_seed}", *protocol.prepare]


def _prepare_fold(protocol: Protocol, group: Group, fold: int, options: BenchmarkOptions) -> Path:
    """Cuts the patches of a fold, with overlapping ones for training, and returns their folder."""
    size, stride = protocol.get_size(protocol.recipes[group.recipe])
    table = options.out / "folds" / name_fold_file(fold)
    words = [f"--split-csv={table}", f"--size={size}", f"--stride={stride}", *protocol.prepare]
    return _prepare(options, f"patches/{size}_{stride}/{_FOLD}{fold}", *words)


def _prepare(options: BenchmarkOptions, name: str, *words: str) -> Path:
    """Cuts tiles into patches, unless that is done, and returns their folder."""
    patches = options.out / name
    log.info("cutting %s into %s", options.tiles, patches)
    if code := _run("prepare", options.tiles, patches, *words, f"--workers={options.workers}"):
        raise FiresegError(f"{options.tiles}: cannot be cut into {patches} (exit code {code}, see above)")
    return patches


def _train(
    protocol: Protocol, group: Group, folds: Sequence[Path], seed: int, sweep: Path, options: BenchmarkOptions
) -> int:
    """Trains a recipe on all folds with one seed, as a sweep, and returns the exit code of the sweep."""
    recipe = protocol.recipes[group.recipe]
    own = [
        f"data.root={','.join(_quote(fold) for fold in folds)}",
        f"seed={seed}",
        f"hydra.sweep.dir={_quote(sweep)}",
    ]
    if group.max_tiles is not None:
        own.append(f"data.max_tiles={group.max_tiles}")
    return _run("train", "-m", *protocol.settings, *recipe.settings, *own, *options.list_words())


def _quote(path: Path) -> str:
    """Quotes a path for Hydra, of which a comma would make two."""
    (word,) = shlex.split(format_override("x", path))
    return word.removeprefix("x=")


def _run(command: str, *words: object) -> int:
    """Runs a command of fireseg in a process of its own and returns its exit code.

    A request to stop is left to that command, which knows how: a training ends after its epoch.
    """
    with subprocess.Popen([sys.executable, "-m", f"fireseg.{command}", *map(str, words)]) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:  # Ctrl-C has reached the process as well, and a second signal would end it at once
            process.wait()
            raise
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM) or code < 0:
        raise KeyboardInterrupt
    return code


def _evaluate(group: Group, plan: Plan) -> Iterator[JudgedRun]:
    """Evaluates the best model of each run on the test fires of its fold, unless that is done."""
    log.info("%s: %s evaluated", group.folder_name, format_count(len(plan.jobs), "model"))
    for job in plan.jobs:
        folder = plan.get_folder(job)
        run = read_run(folder)
        if "test" not in run.evaluations:
            evaluate(EvaluateOptions(run=folder.path, split="test"))
            run = read_run(folder)
        yield JudgedRun(group, _get_fold(run), run.seed, run.seconds, run.evaluations["test"])


def _evaluate_together(group: Group, plans: Sequence[Plan]) -> Iterator[JudgedRun]:
    """Evaluates all models of a fold as one on its test fires, unless that is done."""
    members: dict[int, list[RunSummary]] = defaultdict(list)
    for plan in plans:
        for job in plan.jobs:
            run = read_run(plan.get_folder(job))
            members[_get_fold(run)].append(run)
    log.info("%s: %s evaluated", group.folder_name, format_count(len(members), "ensemble"))
    for fold, runs in sorted(members.items()):
        trained = load_trained_model(",".join(str(run.path) for run in runs), device="cpu", build=False)
        assert trained.folder is not None
        path = trained.folder.evaluation("test", "json")
        results = read_evaluation(path)
        if results is None or results["run"]["sha256"] != trained.sha256:
            evaluate(EvaluateOptions(run=Path(trained.argument), split="test"))
            results = read_evaluation(path)
            assert results is not None
        yield JudgedRun(group, fold, None, sum(run.seconds for run in runs), results)


def _get_fold(run: RunSummary) -> int:
    """Returns the fold whose patches a run was trained on; recipes of other sizes have folders of their own."""
    return int(Path(run.settings["data"]["root"]).name.removeprefix(_FOLD))
