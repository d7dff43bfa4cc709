"""The command runner reads dataclasses and functions; numbers and tables are formatted."""

from __future__ import annotations

import signal
from dataclasses import dataclass

import pytest

from fireseg.console import format_count, format_hectares, format_seconds, format_share, format_table, run_command
from fireseg.errors import FiresegError, SettingError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a command.

    Attributes:
        size: Size in pixels.
    """

    size: int = 256


def command(options: Options) -> int:
    """Does something.

    Args:
        options: Options of the command line.
    """
    if options.size < 1:
        raise SettingError("--size: too small", "--size: not positive")
    if options.size == 1:
        raise KeyboardInterrupt
    return options.size


@pytest.fixture(autouse=True)
def _keep_signal_handler():
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def run(*arguments: str) -> int:
    return run_command(command, arguments, program="do", stopped="finished files are kept")


def test_fields_of_a_dataclass_are_options() -> None:
    assert run("--size", "7") == 7


def test_help_shows_the_docstrings_of_function_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    text = capsys.readouterr().out
    assert "Does something." in text
    assert "Size in pixels." in text
    assert "Options of the command line" not in text


def test_all_faults_are_printed_and_the_exit_code_is_that_of_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--size", "0") == SettingError.exit_code
    assert capsys.readouterr().err == "fireseg: --size: too small\nfireseg: --size: not positive\n"
    assert FiresegError.exit_code == 1


def test_an_interrupted_command_reports_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--size", "1") == 130
    assert capsys.readouterr().err == "fireseg: stopped; finished files are kept\n"


def test_small_amounts_are_not_formatted_as_zero() -> None:
    assert (format_share(0), format_share(1e-9), format_share(1 - 1e-9), format_share(1)) == (
        "0 %",
        "<0.1 %",
        ">99.9 %",
        "100 %",
    )
    assert (format_hectares(0), format_hectares(0.01), format_hectares(12.34)) == ("0 ha", "<0.1 ha", "12.3 ha")


def test_counts_and_durations() -> None:
    assert (format_count(1, "patch", "patches"), format_count(1200, "tile")) == ("1 patch", "1,200 tiles")
    assert (format_seconds(8), format_seconds(200), format_seconds(8000)) == ("8 s", "3 min", "2.2 h")


def test_a_table_aligns_its_columns_and_a_short_row_widens_none() -> None:
    rows = [["method", "IoU", "map"], ["model", "0.812", "a.tif"], ["baseline", "needs the band B12"]]
    assert format_table(rows, align="<><") == [
        "method      IoU  map",
        "model     0.812  a.tif",
        "baseline  needs the band B12",
    ]
