"""Command line of fetch: arguments, output and exit codes."""

from __future__ import annotations

import logging
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fireseg.fetch.cli import main
from tests.fetch.builders import StacServer, write_area

RunCommand = Callable[..., int]


@pytest.fixture
def run_fetch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RunCommand]:
    """Runs `python -m fireseg.fetch` with the given arguments, in this process."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield lambda *arguments: main([str(argument) for argument in arguments])
    signal.signal(signal.SIGTERM, before)
    logger = logging.getLogger("fireseg")
    logger.handlers.clear()
    logger.propagate = True


def test_the_output_lists_days_and_files_and_the_next_command(
    stac: StacServer, run_fetch: RunCommand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stac.add_item("A", day="2025-08-24", values=3000, scl=9)
    stac.add_item("B", day="2025-08-29", values=3000)
    aoi = write_area(tmp_path / "fire.geojson", 31, 20, 89, 79)
    out = "fire (août)"
    assert run_fetch("--aoi", aoi, "--date", "2025-08-24", "--catalog", stac.url, out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:5] == [
        "  2025-08-24: 0 % clear, 1 tile",
        "  2025-08-29: 100 % clear, 1 tile",
        f"{out}/fire.tif: 2025-08-29, 100 % of the area clear",
        "  also fire_SCL.tif, fire.json",
    ]
    command = shlex.split(lines[-1].removeprefix("  map it: "))
    assert command == ["fireseg", "predict", "RUN", f"{out}/fire.tif"]
    assert Path(command[-1]).is_file()
    assert run_fetch("--aoi", aoi, "--date", "2025-08-24", "--catalog", stac.url, out) == 0
    assert "exists already and is complete (--overwrite replaces it)" in capsys.readouterr().out


def test_no_clear_day_ends_with_1(
    stac: StacServer, run_fetch: RunCommand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stac.add_item("A", day="2025-08-24", values=3000, scl=9)
    aoi = write_area(tmp_path / "fire.geojson", 31, 20, 89, 79)
    assert run_fetch("--aoi", aoi, "--date", "2025-08-24", "--catalog", stac.url, "out") == 1
    assert "fireseg: --max-cloud: 30 %" in capsys.readouterr().err


def test_a_scene_is_kept_and_told_if_the_one_before_the_fire_is_not_found(
    stac: StacServer, run_fetch: RunCommand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stac.add_item("A", day="2025-08-24", values=3000)
    aoi = write_area(tmp_path / "fire.geojson", 31, 20, 89, 79)
    dates = ["--date", "2025-08-24", "--before", "2025-07-20"]
    assert run_fetch("--aoi", aoi, *dates, "--catalog", stac.url, "out") == 1
    output = capsys.readouterr()
    assert "out/fire.tif: 2025-08-24, 100 % of the area clear" in output.out
    assert "no item of sentinel-2-l2a from 2025-07-05 to 2025-07-20 over the area; raise --days" in output.err


def test_all_invalid_options_are_named_at_once(run_fetch: RunCommand, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--date", "2025-08-24", "--before", "2025-08-25", "--days", "-1", "--max-cloud", "130"]
    assert run_fetch("--aoi", "fire.geojson", *arguments, "out") == 2
    faults = capsys.readouterr().err.splitlines()
    assert [fault.split(":")[1].strip() for fault in faults] == ["--days", "--max-cloud", "--before"]


def test_an_unknown_catalogue_ends_with_2(run_fetch: RunCommand, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_fetch("--aoi", "fire.geojson", "--date", "2025-08-24", "--catalog", "planetry", "out") == 2
    assert "(did you mean 'planetary'?)" in capsys.readouterr().err


def test_the_help_imports_nothing_slow() -> None:
    program = "import sys, fireseg.fetch.cli\ntry: fireseg.fetch.cli.main(['--help'])\nexcept SystemExit: pass\n"
    program += "print('loaded:', *({'torch', 'rasterio', 'odc', 'pystac_client', 'shapely'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "--max-cloud" in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "loaded:"
