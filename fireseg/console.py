"""Command-line runner, logging, progress, and the text formats that all commands share."""

from __future__ import annotations

import inspect
import logging
import math
import os
import re
import shlex
import signal
import stat
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from fireseg.errors import FiresegError


class _Terminated(BaseException):
    """SIGTERM or SIGHUP was received. Not an `Exception`, so that no `except Exception` on the way swallows it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def metavar(name: str) -> Any:
    """Returns the tyro annotation that names an optional value in `--help` and hides its default of None."""
    import tyro

    return tyro.conf.arg(metavar=name, help_behavior_hint="")


_HOME_OPTION = re.compile(r"(--[\w-]+=)~(?=/|\Z)")


def run_command(
    function: Callable[..., int], arguments: Sequence[str] | None = None, *, program: str, stopped: str
) -> int:
    """Parses a command line for a function, calls it, and prints expected errors as one line each.

    The parameter of the function is annotated with a dataclass: its fields are the options, its `Attributes:`
    their help, and the docstring of the function the description.

    Args:
        function: The command; returns its exit code.
        arguments: Command-line arguments; `sys.argv[1:]` if None.
        program: Name of the command in the usage line.
        stopped: Message printed after Ctrl-C, SIGTERM or a closed terminal, such as "finished tiles are kept".

    Returns:
        The exit code: that of the function, that of a `FiresegError`, or 128 plus the signal number.
    """
    import tyro

    if arguments is None and not sys.warnoptions:
        _silence_libraries()
    (options,) = inspect.signature(function, eval_str=True).parameters.values()
    # The shell expands `--out ~/maps`, but not `--out=~/maps`.
    words = sys.argv[1:] if arguments is None else arguments
    words = [_HOME_OPTION.sub(lambda match: match[1] + str(Path.home()), word) for word in words]
    try:
        with handling_signals(_raise_terminated, signal.SIGTERM):
            parsed = tyro.cli(
                options.annotation,
                prog=program,
                description=_describe(function),
                args=words,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
            return function(parsed)
    except FiresegError as error:
        return print_error(error)
    except BrokenPipeError:  # the reader of a pipe, as `| head`, has gone; Python would report it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (KeyboardInterrupt, _Terminated) as request:
        sys.stderr.write(f"fireseg: stopped; {stopped}\n")
        return 128 + (signal.SIGINT if isinstance(request, KeyboardInterrupt) else request.signum)


@contextmanager
def handling_signals(handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    """Handles signals, and SIGHUP unless it is ignored, as under nohup, by a function within the context.

    Args:
        handler: The function; it calls `leave_terminal` at SIGHUP.
        *numbers: The other signals.
    """
    handled = [*numbers, *([signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else [])]
    previous = {number: signal.signal(number, handler) for number in handled}
    try:
        yield
    finally:
        for number, before in previous.items():
            # After `leave_terminal`, SIGHUP stays ignored.
            if signal.getsignal(number) == handler:
                signal.signal(number, before)


def _silence_libraries() -> None:
    """Hides warnings of libraries, which name no cure; `python -W default -m fireseg.…` shows them."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("CPL_LOG", os.devnull)  # GDAL writes on stderr from threads where rasterio has no handler
    sys.unraisablehook = _ignore_messages_of_gdal
    for name in ("rasterio", "matplotlib", "PIL"):  # without a handler, logging prints warnings on stderr
        logging.getLogger(name).addHandler(logging.NullHandler())


def _ignore_messages_of_gdal(unraisable: sys.UnraisableHookArgs) -> None:
    """Ignores that rasterio cannot decode a message of GDAL about a damaged file; the error itself is raised."""
    if "rasterio" not in str(unraisable.object):
        sys.__unraisablehook__(unraisable)


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, those that break lines or turn the direction of text, and bytes of names that are not UTF-8."""


def format_name(name: object, *, keep: str = "") -> str:
    """Formats the name of a file, or a text with such names, so that it can be printed and stored.

    Characters that move the cursor, start another line or are no text are shown as escapes.

    Args:
        name: Name, path or text.
        keep: Control characters that stay, such as the line ends of a text.

    Example:
        >>> print(format_name("a\\n\\x1b[31mb.tif"))
        a\\n\\x1b[31mb.tif
    """

    def escape(match: re.Match[str]) -> str:
        character = match[0]
        if character in keep:
            return character
        if "\udc80" <= character <= "\udcff":  # a byte of a name that is not UTF-8
            return f"\\x{ord(character) - 0xDC00:02x}"
        return character.encode("unicode_escape").decode()

    return _UNPRINTABLE.sub(escape, str(name))


def is_plain_name(name: object) -> bool:
    """Returns True if a name is UTF-8 without control characters, as GDAL and SQLite require."""
    return str(name) == format_name(name)


def print_error(error: FiresegError) -> int:
    """Prints each fault of an error as a line on stderr and returns the exit code."""
    for fault in error.faults:
        sys.stderr.write(f"fireseg: {_cut(fault)}\n")
    return error.exit_code


_MAX_FAULT = 2000
"""Number of characters of a fault, above which its middle is left out: location and cure stand at its ends."""


def _cut(fault: str) -> str:
    fault = format_name(fault)
    if len(fault) <= _MAX_FAULT:
        return fault
    num_left_out = len(fault) - _MAX_FAULT
    return f"{fault[: _MAX_FAULT // 2]} … ({num_left_out:,} characters) … {fault[-_MAX_FAULT // 2 :]}"


def print_faults(faults: Sequence[str]) -> None:
    """Prints the number of faults and each fault as a line on stderr; nothing if there are none."""
    if faults:
        sys.stderr.write("\n  ".join([f"\n{format_count(len(faults), 'fault')}:", *map(_cut, faults)]) + "\n")


def _describe(function: Callable[..., int]) -> str | None:
    text = inspect.getdoc(function)
    return text.partition("\nArgs:")[0].strip() if text else None


def _raise_terminated(signum: int, frame: FrameType | None) -> None:
    if signum == signal.SIGHUP:
        leave_terminal()
    raise _Terminated(signum)


def leave_terminal() -> None:
    """Handles a closed terminal: discards further output to it and ignores further SIGHUP.

    Writing a line to it would be an error. The system and the shell each send a SIGHUP, of which the second would
    interrupt the removal of unfinished files.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):  # isatty is False for a terminal that is closed
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


def format_command(
    name: str, *words: str | Path, settings: Mapping[str, str | Path | int | Sequence[str]] | None = None
) -> str:
    """Formats a command of fireseg so that bash runs it as printed, whatever the names of files and folders.

    Args:
        name: Name of the command, such as `evaluate`.
        *words: Arguments and options; a `Path` is never read as an option or a home folder.
        settings: Settings of `train` by key, see `format_override`.

    Example:
        >>> format_command("predict", Path("outputs/latest"), Path("burned areas.tif"))
        "python -m fireseg.predict outputs/latest 'burned areas.tif'"
    """
    overrides = (format_override(key, value) for key, value in (settings or {}).items())
    return " ".join([f"python -m fireseg.{name}", *(shlex.quote(_as_text(word)) for word in words), *overrides])


def format_override(key: str, value: str | Path | int | Sequence[str]) -> str:
    """Formats a setting of `train` as one word, quoted for Hydra and for bash.

    Hydra parses the word a second time, after the shell: a value with special characters, or one that looks like
    a number, needs quotes of its own, and `${` has to be escaped.

    Args:
        key: Dotted key.
        value: Value that the setting is to have.

    Example:
        >>> print(format_override("data.root", Path("outputs/latest")), format_override("data.root", "areas, 2024"))
        data.root=outputs/latest 'data.root="areas, 2024"'
    """
    if isinstance(value, int):
        text = str(value)
    elif isinstance(value, str | Path):
        text = _quote_for_hydra(_as_text(value))
    else:
        text = f"[{','.join(map(_quote_for_hydra, value))}]"
    return shlex.quote(f"{key}={text}")


# Hydra reads other characters unquoted as well, but not letters with accents; these suffice for most paths.
_UNQUOTED = re.compile(r"[A-Za-z0-9_/.+@%-]+")

# Hydra and bash give a meaning to other first characters, as `~` and `-`; `runs:/` is an address of MLflow.
_PLAIN_PATH = re.compile(r"/|[\w.][^:/]*(/|\Z)")


def _as_text(word: str | Path) -> str:
    is_plain = isinstance(word, str) or _PLAIN_PATH.match(str(word))
    return str(word) if is_plain else f"./{word}"


def _quote_for_hydra(text: str) -> str:
    if _UNQUOTED.fullmatch(text) and text.lower() not in ("null", "true", "false") and not _is_number(text):
        return text
    # Backslashes are literal, but those before `${`, a quote or the end have to be doubled.
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r'(\\*)"', r'\1\1\\"', text)
    return '"' + re.sub(r"(\\*)\Z", r"\1\1", text, count=1) + '"'


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _ConsoleHandler(logging.Handler):
    """Writes log lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        line = format_name(self.format(record), keep="\n\t")
        tqdm.write(line if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {line}", file=sys.stdout)


def start_logging() -> None:
    """Prints the package's log messages from INFO on to stdout; repeated calls change nothing."""
    logger = logging.getLogger("fireseg")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not any(isinstance(handler, _ConsoleHandler) for handler in logger.handlers):
        logger.addHandler(_ConsoleHandler())


class ProgressBar(tqdm):
    """A progress bar without tqdm's monitor thread, because worker processes are forked later."""

    monitor_interval = 0


def progress_bar(batches: Any, label: str, *, unit: str = "batch") -> Iterable[Any]:
    """Shows a progress bar with the remaining time while iterating; disabled without a terminal."""
    return ProgressBar(batches, desc=label, unit=unit, leave=False, disable=not sys.stderr.isatty())


def format_epoch(row: Mapping[str, Any], *, total: int, seconds_left: float) -> str:
    """Formats the log line of an epoch.

    Args:
        row: Row of `metrics.jsonl`.
        total: Total number of epochs.
        seconds_left: Estimated seconds until the last epoch ends.
    """
    names = ("fire_iou", "fire_recall", "detection_f1")
    scores = "  ".join(f"{name} {format_score(row[f'val/{name}']):^5}" for name in names)
    return (
        f"epoch {row['epoch']:>{len(str(total))}}/{total}  "
        f"train loss {format_score(row['train/loss']):^5}  val loss {format_score(row['val/loss']):^5}  {scores}  "
        f"lr {row['lr']:.1e}  {format_seconds(row['seconds'])}, {format_seconds(seconds_left)} left"
        f"{'  * best' if row['best'] else ''}"
    )


def format_score(value: float | None, *, undefined: str = "-") -> str:
    """Formats a score with 3 decimals.

    Args:
        value: Score; None or NaN if it is undefined.
        undefined: Text for an undefined score.

    Example:
        >>> format_score(0.8125), format_score(float("nan")), format_score(None)
        ('0.812', '-', '-')
    """
    return undefined if value is None or math.isnan(value) else f"{value:.3f}"


def format_interval(interval: Mapping[str, Any], spec: str = ".3f") -> str:
    """Formats a mean over fires with its interval, or with the values if there are too few for one.

    Args:
        interval: Fields of `metric.Interval`; undefined numbers are None or NaN.
        spec: Format of a number.

    Example:
        >>> format_interval({"mean": 0.7, "low": 0.6, "high": 0.8, "num": 5, "values": None}, ".2f")
        '0.70 [0.60, 0.80] (n = 5)'
        >>> format_interval({"mean": 0.7, "low": None, "high": None, "num": 2, "values": [0.6, 0.8]}, ".2f")
        '0.70 (n = 2: 0.60 0.80)'
    """
    mean, low, high, num, values = (interval[key] for key in ("mean", "low", "high", "num", "values"))
    if mean is None or math.isnan(mean):
        return "-"
    if values is None:
        return f"{mean:{spec}} [{low:{spec}}, {high:{spec}}] (n = {num})"
    return f"{mean:{spec}} (n = {num}: {' '.join(f'{value:{spec}}' for value in values)})"


def format_seconds(seconds: float) -> str:
    """Formats a duration in seconds, minutes or hours.

    Example:
        >>> format_seconds(8), format_seconds(200), format_seconds(8000)
        ('8 s', '3 min', '2.2 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def format_share(share: float) -> str:
    """Formats a share in [0, 1] as a percentage; only exactly 0 and 1 become 0 % and 100 %.

    Example:
        >>> format_share(0.0), format_share(0.0004), format_share(0.034), format_share(0.217), format_share(0.9999)
        ('0 %', '<0.1 %', '3.4 %', '22 %', '>99.9 %')
    """
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    return f"{100 * share:.1f} %" if 0 < share < 0.1 or 0.99 < share < 1 else f"{100 * share:.0f} %"


def format_hectares(hectares: float) -> str:
    """Formats an area in hectares; only exactly 0 becomes 0 ha.

    Example:
        >>> format_hectares(0), format_hectares(0.01), format_hectares(12.34), format_hectares(12345.6)
        ('0 ha', '<0.1 ha', '12.3 ha', '12,346 ha')
    """
    if 0 < hectares < 0.1:
        return "<0.1 ha"
    return f"{hectares:.1f} ha" if 0 < hectares < 100 else f"{hectares:,.0f} ha"


def format_count(number: int, noun: str, plural: str = "") -> str:
    """Formats a number with its noun.

    Args:
        number: Number of things.
        noun: Singular noun.
        plural: Plural noun; the noun with an s if empty.

    Example:
        >>> format_count(1, "fault"), format_count(1200, "fault"), format_count(2, "patch", "patches")
        ('1 fault', '1,200 faults', '2 patches')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def format_table(rows: Sequence[Sequence[str]], *, align: str = "") -> list[str]:
    """Formats a plain text table with columns two spaces apart.

    Args:
        rows: Cells by row, the heading first. A row may have fewer cells than the others: its last cell
            then runs on to the right and widens no column.
        align: One `<` (left) or `>` (right) for each column; if empty, the first column is left-aligned and
            the others right-aligned.

    Returns:
        One line for each row, without trailing spaces.

    Example:
        >>> format_table([["split", "tiles"], ["train", "12"], ["val", "none"]])
        ['split  tiles', 'train     12', 'val     none']
    """
    rows = [[format_name(cell) for cell in row] for row in rows]
    num_columns = max(map(len, rows), default=0)
    align = align or "<" + ">" * (num_columns - 1)
    widths = [0] * num_columns
    for row in rows:
        for column, cell in enumerate(row if len(row) == num_columns else row[:-1]):
            widths[column] = max(widths[column], len(cell))
    lines = []
    for row in rows:
        cells = [f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=False)]
        if len(row) < num_columns:
            cells[-1:] = row[-1:]
        lines.append("  ".join(cells).rstrip())
    return lines
