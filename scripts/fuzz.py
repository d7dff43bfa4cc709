"""Damages files of every kind that fireseg reads and counts what the commands make of them.

    python scripts/fuzz.py --mutants 2000 --seed 0 --keep /tmp/mutants

Each mutant is one file of `fuzz_targets.py` with a random damage: cut short, bits flipped, runs of zeros or ones,
blocks inserted or repeated; in text also impossible numbers, removed keys and other types. The command that reads it
runs in a process of its own, forked from one that has imported the libraries, with limits of time and memory. Outcomes:

    refused    an error of fireseg that names the file (or the folder that it is in)
    same       accepted, and the result is that of the intact file
    flagged    accepted with another result, and a line of the output names the file
    changed    accepted with another result, where nothing could tell: another pixel or digit in a file without checksum
    SILENT     accepted with another result, although the format has a checksum or the damage is none of these
    UNNAMED    an error that does not name the file
    NOISE      messages of GDAL, NumPy and other libraries between the lines
    TRACEBACK  any other exception
    HANG       no end within --limit seconds
    CRASH      ended by a signal

The exit code is 1 if there is any of those in capitals; their files are kept in --keep.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", NO_ALBUMENTATIONS_UPDATE="1", MLFLOW_DISABLE_TELEMETRY="true")

import argparse
import json
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from fuzz_targets import TARGETS, Result, Target, import_libraries, write_files

from fireseg.console import format_table, print_error
from fireseg.errors import FiresegError
from fireseg.files import count_cores

OUTCOMES = ("refused", "same", "flagged", "changed", "SILENT", "UNNAMED", "NOISE", "TRACEBACK", "HANG", "CRASH")

_MEMORY_BYTES = 4 << 30
"""Memory that a mutant may use beyond that of the libraries."""

_NOISE = re.compile(r"(Warning \d+:|ERROR \d+:|\w+Warning:|\S+\.py:\d+: |Exception ignored)")

_IMPOSSIBLE = (float("nan"), float("inf"), -1e999, 1e300, 10**30, -(10**9))
"""Numbers that no field can have; -1 and 0 can be right."""


@dataclass
class Mutant:
    """A damaged file and the process that reads it.

    Attributes:
        name: Name of the target.
        number: Number of the mutant, which with the seed gives its damage.
        folder: Working folder of the process.
        damage: Description of the damage.
        is_detectable: True if a reader can tell the damage from other content.
        pid: Process that reads it.
        start: Start of the process on the monotonic clock.
    """

    name: str
    number: int
    folder: Path
    damage: str
    is_detectable: bool
    pid: int = 0
    start: float = field(default_factory=time.monotonic)

    @property
    def target(self) -> Target:
        """The target of the file."""
        return TARGETS[self.name]

    def read_report(self) -> dict[str, Any]:
        """Returns exit code, result and traceback of the process; empty if it was killed."""
        path = self.folder / "report.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def read_output(self) -> str:
        """Returns what the process printed."""
        return (self.folder / "output.txt").read_text(encoding="utf-8", errors="replace")


def damage_bytes(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Damages bytes and describes the damage. Half of the positions are in the first or last 256 bytes: headers."""
    size = len(content)
    ends = (lambda: rng.randrange(min(256, size)), lambda: size - 1 - rng.randrange(min(256, size)))
    at = rng.choice((*ends, lambda: rng.randrange(size), lambda: rng.randrange(size)))()
    length = min(rng.choice((1, 4, 16, 256, 4096)), size - at)
    kind = rng.choice(("cut", "flip", "flip", "zeros", "ones", "random", "insert", "remove", "repeat"))
    if kind == "cut":
        return content[:at], f"cut to {at} bytes"
    if kind == "flip":
        damaged = bytearray(content)
        damaged[at] ^= 1 << rng.randrange(8)
        return bytes(damaged), f"a bit flipped at {at}"
    added = {
        "zeros": bytes(length),
        "ones": b"\xff" * length,
        "random": rng.randbytes(length),
        "insert": rng.randbytes(length) + content[at : at + length],
        "remove": b"",
        "repeat": content[at : at + length] * 2,
    }[kind]
    return content[:at] + added + content[at + length :], f"{kind}, {length} bytes at {at}"


def damage_json(content: Any, rng: random.Random) -> tuple[Any, str, bool]:
    """Damages one value of a JSON tree; returns the tree, the damage, and whether a reader can tell."""
    spots = list(_walk(content, ""))
    parent, key, place = rng.choice(spots)
    value = parent[key]
    kind = rng.choice(("remove", "number", "number", "type"))
    if kind == "remove" and isinstance(parent, dict):
        del parent[key]
        return content, f"{place} removed", False
    if kind == "number" and isinstance(value, int | float):
        parent[key] = rng.choice(_IMPOSSIBLE)
    else:
        parent[key] = rng.choice([other for other in ([], {}, "x\0\n", True, [[1]], {"a": 1}, 3.5) if other != value])
    return content, f"{place} = {parent[key]!r}", parent[key] != []  # an empty list can be right


def _walk(node: Any, place: str) -> Iterator[tuple[Any, Any, str]]:
    for key in node if isinstance(node, dict) else range(len(node)):
        yield node, key, f"{place}.{key}"
        if isinstance(node[key], dict | list):
            yield from _walk(node[key], f"{place}.{key}")


def damage_text(content: str, rng: random.Random) -> tuple[str, str]:
    """Replaces a word or number of a table or of XML."""
    match = rng.choice(list(re.finditer(r"(?<![^\s,>\"])[^\s,<>\"]+(?![^\s,<\"])", content)))
    added = rng.choice(("nan", "1e999", "-1e9", "", "x" * 100_000, "\0", "1,2", "\n", "&bomb;", "<a>", '"'))
    return content[: match.start()] + added + content[match.end() :], f"{match[0]} replaced by {added[:9]!r}"


def damage(path: Path, rng: random.Random) -> tuple[str, bool]:
    """Damages a file; returns a description, and whether a reader without a checksum can tell the damage."""
    content, suffix = path.read_bytes(), path.suffix
    is_structured = rng.random() < 0.7
    is_detectable = False
    if suffix in (".json", ".geojson") and is_structured:
        tree, words, is_detectable = damage_json(json.loads(content), rng)
        damaged = json.dumps(tree).encode()
    elif suffix == ".jsonl" and is_structured:
        rows = [json.loads(line) for line in content.splitlines()]
        rows, words, is_detectable = damage_json(rows, rng)
        damaged = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    elif suffix in (".csv", ".xml") and is_structured:
        text, words = damage_text(content.decode(), rng)
        damaged = text.encode()
    else:
        damaged, words = damage_bytes(content, rng)
        # A text that was cut can be one that was written so; a binary file declares its length.
        is_detectable = words.startswith("cut") and suffix not in (".jsonl", ".csv")
    path.unlink()  # may be a hard link
    path.write_bytes(damaged)
    return words, is_detectable


def copy_inputs(target: Target, source: Path, folder: Path) -> None:
    """Copies the files of a target; checkpoints, which are only replaced as a whole, as hard links."""

    def copy(old: str, new: str) -> None:
        os.link(old, new) if old.endswith(".pt") else shutil.copy2(old, new)

    for name in (*target.needs, target.path):
        if (folder / name).exists():  # in one of the folders before
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, copy_function=copy)
        else:
            copy(str(source / name), str(folder / name))


def run_forked(folder: Path, read: Callable[[], Result | None]) -> int:
    """Starts a forked process that runs a function in a folder and writes its report there; returns its id."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    os.setsid()
    os.chdir(folder)
    with open(os.devnull, "rb") as nothing, open("output.txt", "wb") as output:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY_BYTES, used + _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    report: dict[str, Any] = {"code": 0}
    try:
        report["result"] = read()
    except FiresegError as error:
        report["code"] = print_error(error)
    except SystemExit as end:
        report["code"] = end.code if isinstance(end.code, int) else 1
    except BaseException:
        report["traceback"] = traceback.format_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    Path("report.json").write_text(json.dumps(report, default=str))
    os._exit(0)


def judge(mutant: Mutant, status: int | None, intact: tuple[Any, set[str]]) -> str:
    """Returns the outcome of a mutant.

    Args:
        mutant: Mutant whose process has ended.
        status: Exit status, negative for a signal; None if it was killed after its time limit.
        intact: Result and lines of the output for the intact file.
    """
    if status is None:
        return "HANG"
    report = mutant.read_report()
    if status != 0 or not report:
        return "CRASH"
    if "traceback" in report or "Traceback (most recent call last)" in mutant.read_output():
        return "TRACEBACK"
    result, known_lines = intact
    lines = [line for line in mutant.read_output().splitlines() if line not in known_lines]
    if any(_NOISE.match(line) for line in lines):
        return "NOISE"
    path = Path(mutant.target.path)
    # The folder of a file that is one of many, and the raster that a file of metadata or a mask describes, are names.
    names = {path.name, path.parent.name, path.stem.partition("_SCL")[0], mutant.target.scene} - {""}
    is_named = any(name in line for name in names for line in lines)
    is_flagged = is_named or any(line.startswith(("warning: ", "flag: ")) for line in lines)
    if report["code"] != 0:
        return "refused" if is_named else "UNNAMED"
    if report["result"] == result:
        return "same"
    if is_flagged:
        return "flagged"
    return "SILENT" if mutant.is_detectable or mutant.target.has_checksum else "changed"


class Fuzzer:
    """Makes mutants, runs them in parallel and counts their outcomes.

    Args:
        work: Empty working folder.
        seed: Seed of all damages.
        limit_s: Seconds after which a process is killed.
        keep: Folder to which bad mutants are copied; None to keep none.
    """

    def __init__(self, work: Path, *, seed: int, limit_s: float, keep: Path | None) -> None:
        self.work, self.seed, self.limit_s, self.keep = work, seed, limit_s, keep
        self.source = work / "intact"
        self.intact: dict[str, tuple[Any, set[str]]] = {}
        self.counts: dict[str, Counter[str]] = {}
        self.running: list[Mutant] = []

    def prepare(self, names: Sequence[str]) -> None:
        """Writes the intact files, and reads each of them to know the result.

        Raises:
            RuntimeError: If an intact file is not read.
        """
        import_libraries()
        self.source.mkdir()
        os.waitpid(run_forked(self.source, lambda: write_files(self.source, names)), 0)
        _check_report(Mutant("", 0, self.source, "", False))
        for name in names:
            intact = self._make(name, 0)
            os.waitpid(run_forked(intact.folder, intact.target.read), 0)
            _check_report(intact)
            self.intact[name] = intact.read_report()["result"], set(intact.read_output().splitlines())
            self.counts[name] = Counter()
            shutil.rmtree(intact.folder)

    def run(self, names: Sequence[str], *, num_mutants: int, seconds: float, jobs: int) -> None:
        """Runs mutants of the targets in turn until their number or the time is reached."""
        deadline = time.monotonic() + seconds
        turns = cycle([name for turn in range(3) for name in names if TARGETS[name].weight > turn])
        for number in range(1, num_mutants + 1):
            if time.monotonic() > deadline:
                break
            mutant = self._make(next(turns), number)
            mutant.pid = run_forked(mutant.folder, mutant.target.read)
            self.running.append(mutant)
            self._wait(jobs - 1)
        self._wait(0)

    def _make(self, name: str, number: int) -> Mutant:
        """Copies the files of a target, and damages one of them unless the number is 0."""
        folder = self.work / f"mutant_{number:06}"
        folder.mkdir()
        copy_inputs(TARGETS[name], self.source, folder)
        rng = random.Random(f"{self.seed} {name} {number}")
        words, is_detectable = damage(folder / TARGETS[name].path, rng) if number else ("", False)
        return Mutant(name, number, folder, words, is_detectable)

    def _wait(self, num_left: int) -> None:
        """Collects ended processes until at most this number is left."""
        while len(self.running) > num_left:
            for mutant in list(self.running):
                pid, status = os.waitpid(mutant.pid, os.WNOHANG)
                if pid:
                    self._collect(mutant, os.waitstatus_to_exitcode(status))
                elif time.monotonic() - mutant.start > self.limit_s:
                    os.killpg(mutant.pid, signal.SIGKILL)
                    os.waitpid(mutant.pid, 0)
                    self._collect(mutant, None)
            time.sleep(0.002)

    def _collect(self, mutant: Mutant, status: int | None) -> None:
        self.running.remove(mutant)
        outcome = judge(mutant, status, self.intact[mutant.name])
        self.counts[mutant.name][outcome] += 1
        if outcome.isupper():
            lines = mutant.read_report().get("traceback", mutant.read_output()).strip().splitlines()
            print(f"{outcome}  {mutant.name}, mutant {mutant.number}: {mutant.damage}: {' '.join(lines[-1:])[:300]}")
            if self.keep:
                shutil.copytree(mutant.folder, self.keep / mutant.folder.name, dirs_exist_ok=True)
                print(f"  kept in {self.keep / mutant.folder.name}", flush=True)
        shutil.rmtree(mutant.folder)


def _check_report(mutant: Mutant) -> None:
    report = mutant.read_report()
    if "traceback" in report or report.get("code") != 0:
        raise RuntimeError(f"{mutant.name}: {report.get('traceback')}\n{mutant.read_output()}")


def format_counts(counts: dict[str, Counter[str]]) -> list[str]:
    """Formats a table of outcomes by kind of file, with their sums in the last row."""
    total = sum(counts.values(), Counter[str]())
    rows = [["kind", "mutants", *OUTCOMES]]
    for name, row in (*counts.items(), ("all", total)):
        rows.append([name, str(row.total()), *(str(row[outcome]) for outcome in OUTCOMES)])
    return format_table(rows)


def main() -> int:
    """Runs the mutants, prints the table and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=2000, help="number of mutants (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--kinds", default="", help="only kinds of files whose names contain one of these, a,b,c")
    parser.add_argument("--seconds", type=float, default=600, help="time after which no mutant is started")
    parser.add_argument("--limit", type=float, default=60, help="seconds that one may take (default: 60)")
    parser.add_argument("--jobs", type=int, default=count_cores(), help="processes (default: number of cores)")
    parser.add_argument("--keep", type=Path, help="folder for the files of bad outcomes")
    options = parser.parse_args()
    names = [name for name in TARGETS if any(part in name for part in options.kinds.split(","))]
    # In memory if possible: every command flushes its files to disk.
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fireseg_fuzz_", dir=parent) as work:
        fuzzer = Fuzzer(Path(work), seed=options.seed, limit_s=options.limit, keep=options.keep)
        begin = time.monotonic()
        fuzzer.prepare(names)
        print(f"{len(names)} kinds of files written and read in {time.monotonic() - begin:.0f} s", flush=True)
        begin = time.monotonic()
        fuzzer.run(names, num_mutants=options.mutants, seconds=options.seconds, jobs=options.jobs)
    print("\n".join(format_counts(fuzzer.counts)))
    print(f"seed {options.seed}, {time.monotonic() - begin:.0f} s")
    return int(any(outcome.isupper() for row in fuzzer.counts.values() for outcome in row))


if __name__ == "__main__":
    sys.exit(main())
