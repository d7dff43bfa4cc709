"""The command runner reads dataclasses and functions; numbers and tables are formatted."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rasterio import Affine

from fireseg.console import (
    format_command,
    format_count,
    format_hectares,
    format_name,
    format_override,
    format_seconds,
    format_share,
    format_table,
    print_error,
    run_command,
)
from fireseg.errors import FiresegError, SettingError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a command.

    Attributes:
        size: Size in pixels.
        out: Output folder.
    """

    size: int = 256
    out: Path = Path("maps")


def command(options: Options) -> int:
    """Does something.

    Args:
        options: Options of the command line.
    """
    if options.size < 1:
        raise SettingError("--size: too small", "--size: not positive")
    if options.size == 1:
        raise KeyboardInterrupt
    print(options.out)  # noqa: T201
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


def test_a_fault_of_ten_thousand_words_is_cut_between_location_and_cure(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(FiresegError("a.tif: " + "word " * 10_000 + "; write it again", "b.tif: short"))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("fireseg: a.tif: word")
    assert first.endswith("; write it again")
    assert len(first) < 2100
    assert second == "fireseg: b.tif: short"


@pytest.mark.parametrize(("options", "is_shown"), [((), False), (("-W", "default"), True)])
def test_warnings_of_libraries_are_not_printed_unless_asked_for(options: tuple[str, ...], is_shown: bool) -> None:
    program = (
        "import sys, warnings, logging\n"
        "from dataclasses import dataclass\n"
        "from fireseg.console import run_command\n"
        "@dataclass\n"
        "class Options:\n    size: int = 1\n"
        "def command(options: Options) -> int:\n"
        "    warnings.warn('mean of empty slice', RuntimeWarning)\n"
        "    logging.getLogger('rasterio._err').warning('CPLE_AppDefined')\n"
        "    return 0\n"
        "sys.exit(run_command(command, program='do', stopped=''))"
    )
    done = subprocess.run([sys.executable, *options, "-c", program], capture_output=True, text=True, check=True)
    assert ("mean of empty slice" in done.stderr, "CPLE" in done.stderr) == (is_shown, is_shown)


def test_an_interrupted_command_reports_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--size", "1") == 130
    assert capsys.readouterr().err == "fireseg: stopped; finished files are kept\n"


def test_the_home_folder_is_expanded_in_an_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", "/home/zoe")
    for words in (["--out=~/maps"], ["--out", "./~"], ["--out=maps~"]):
        assert run("--size", "7", *words) == 7
    assert capsys.readouterr().out == "/home/zoe/maps\n~\nmaps~\n"


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


SPECIAL = "aZ1.-_~ é'\"\\$={}[](),:;&|<>*?!#%@+`^\t\n"

NAMES = st.one_of(
    st.text(st.sampled_from(SPECIAL), min_size=1, max_size=12),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    st.sampled_from(
        ["2024", "1e3", "null", "True", "???", "~", "~/fires", "-x", "runs:/a", "${HOME}", "Évora, été (2)"]
    ),
)


def read_as_hydra(words: list[str]) -> object:
    """Reads one override as Hydra does, and returns its value."""
    (word,) = words
    override = OverridesParser.create().parse_override(word)
    config = OmegaConf.create({override.key_or_group: None})
    OmegaConf.update(config, override.key_or_group, override.value())
    return config[override.key_or_group]


@given(NAMES)
@settings(max_examples=400)
def test_a_printed_setting_has_the_value_of_any_folder_name(name: str) -> None:
    assert Path(str(read_as_hydra(shlex.split(format_override("root", Path(name)))))) == Path(name)


@given(st.lists(st.text(st.sampled_from(SPECIAL), max_size=5), min_size=1, max_size=3))
def test_a_printed_setting_has_the_values_of_any_list(values: list[str]) -> None:
    assert read_as_hydra(shlex.split(format_override("bands", values))) == values


@given(st.lists(NAMES.filter(lambda name: len(name.encode()) < 200), min_size=1, max_size=20))
@settings(max_examples=20)
def test_bash_passes_on_the_words_of_a_printed_command(names: list[str]) -> None:
    command = format_command("evaluate", *map(Path, names), settings={"n": 3}).removeprefix(
        "python -m fireseg.evaluate "
    )
    done = subprocess.run(["bash", "-c", rf"printf '%s\0' {command}"], capture_output=True, check=True)
    *words, setting, rest = done.stdout.decode().split("\0")
    assert list(map(Path, words)) == list(map(Path, names))
    assert (setting, rest) == ("n=3", "")


def test_plain_words_of_a_printed_command_are_not_quoted() -> None:
    command = format_command(
        "train", settings={"data.root": Path("/data/fires-2024"), "task": "gra", "data.bands": ["B04"]}
    )
    assert command == "python -m fireseg.train data.root=/data/fires-2024 task=gra 'data.bands=[B04]'"
    assert format_command("predict", Path("-run"), "--tta") == "python -m fireseg.predict ./-run --tta"


def test_names_are_printed_in_one_line_of_text() -> None:
    assert format_name("a\tb\r\n\x1b[2J\x9b\u202egepj") == r"a\tb\r\n\x1b[2J\x9b\u202egepj"
    assert format_name(Path("caf\udce9.tif")) == r"caf\xe9.tif"
    assert format_name("Évora 火 ’") == "Évora 火 ’"
    assert format_name("a\nb\x07", keep="\n") == "a\nb\\x07"


def test_a_name_cannot_add_a_line_or_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(FiresegError("a\nfireseg: all is well\x1b[1A: truncated; fetch it again"))
    assert capsys.readouterr().err == "fireseg: a\\nfireseg: all is well\\x1b[1A: truncated; fetch it again\n"
    assert format_table([["name", "size"], ["a\nb", "1"]]) == ["name  size", "a\\nb     1"]


# Reads a raster whose strips are cut off in a thread for which rasterio has set no handler of messages.
READ_DAMAGED = """
import sys, threading
import rasterio
from dataclasses import dataclass
from fireseg.console import run_command

@dataclass
class Options:
    pass

def read(options: Options) -> int:
    raster = rasterio.open("a.tif")
    def read_rows():
        try:
            raster.read()
        except rasterio.errors.RasterioIOError:
            print("refused")
    thread = threading.Thread(target=read_rows)
    thread.start()
    thread.join()
    return 0

sys.exit(run_command(read, program="read", stopped=""))
"""


def test_messages_of_gdal_do_not_leak(tmp_path: Path):
    profile = {"driver": "GTiff", "count": 1, "height": 48, "width": 64, "dtype": "uint8", "crs": "EPSG:32631"}
    with rasterio.open(tmp_path / "a.tif", "w", transform=Affine(10, 0, 0, 0, -10, 0), **profile) as raster:
        raster.write(np.ones((1, 48, 64), np.uint8))
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) // 2])
    command = [sys.executable, "-c", READ_DAMAGED]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")
