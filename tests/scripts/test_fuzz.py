"""A short run of `scripts/fuzz.py`, and faults that it has to find."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.processes import ROOT, start_program

KINDS = "csv,tile metadata,mask geojson,journal,manifest,patch,packed,cache,sample,zip,gz,area"
"""Files that are read in a fraction of a second."""

FUZZ = f"""
import sys
sys.path.insert(0, {str(ROOT / "scripts")!r})
import fuzz
sys.exit(fuzz.main())
"""


def run(*arguments: object, before: str = "") -> tuple[int, str]:
    process = start_program(before + FUZZ, arguments)
    output, _ = process.communicate()
    assert process.returncode in (0, 1), output
    return process.returncode, output


def test_damaged_files_of_every_quick_kind_are_refused_or_have_no_effect() -> None:
    code, output = run("--kinds", KINDS, "--mutants", 44, "--seed", 0)
    assert code == 0, output
    (numbers,) = re.findall(r"^all +(.+)$", output, re.MULTILINE)
    assert sum(map(int, numbers.split()[1:])) == int(numbers.split()[0]) == 44
    assert int(numbers.split()[1]) > 15  # refused


@pytest.mark.parametrize(
    ("kind", "outcome", "fault"),
    [
        ("statistics cache", "SILENT", "import fireseg.data.statistics as s\ns._hash_records = lambda _: ''\n"),
        ("patch npy", "TRACEBACK", "import fireseg.data.patches as patches\npatches._DAMAGE = ()\n"),
        ("area", "HANG", "import fireseg.fetch.area as area, time\narea.FiresegError = lambda *_: time.sleep(60)\n"),
    ],
)
def test_a_planted_fault_is_found_and_its_file_is_kept(tmp_path: Path, kind: str, outcome: str, fault: str) -> None:
    arguments = ("--kinds", kind, "--mutants", 12, "--seed", 0, "--limit", 2, "--keep", tmp_path)
    code, output = run(*arguments, before=fault)
    assert code == 1
    assert re.search(rf"^{outcome}  {kind}", output, re.MULTILINE), output
    kept = re.findall(r"kept in (.+)", output)
    assert kept
    assert all((Path(folder) / "output.txt").exists() for folder in kept)
