"""What a prepared data set says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, NonNegativeInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from fireseg.data.bands import check_bands
from fireseg.data.store import Layout, MaskName
from fireseg.errors import FiresegError

MANIFEST_NAME = "manifest.json"
"""The last file to be written: where it is, all is there."""

FORMAT = 1
"""Counts up whenever a reader of before could not read what is written now."""

AGAIN = "run python -m fireseg.prepare again"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What of a manifest reading needs. It may say more.

    Args:
        layout: Whether a split is packed into a few arrays, or has two files a patch.
        task: Which labels the masks hold where there is one mask a patch; None where both are stored.
        bands: The band of each channel.
        scale: What reflectance was multiplied with where integers are stored.
        leaks: Pairs of tiles by which splits know of each other, accepted when the patches were made.
        patches: How many patches each split has.
    """

    layout: Layout
    task: MaskName | None = None
    bands: Annotated[tuple[str, ...], AfterValidator(check_bands)]
    scale: Literal[10_000]
    leaks: tuple[str, ...] = ()
    patches: Mapping[str, NonNegativeInt]


def read_manifest(root: Path) -> Manifest | None:
    """Reads the manifest under a root, or nothing where the patches are others'.

    Args:
        root: Folder with the splits.

    Raises:
        FiresegError: If there is one that cannot be understood.
    """
    path = root / MANIFEST_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise FiresegError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise FiresegError(f"{path}: truncated or no JSON; {AGAIN}") from error
    if not isinstance(content, dict) or not {"format", "layout"} <= content.keys():
        return None  # a file of this name that somebody else's program wrote
    return _understand(path, content)


def _understand(path: Path, content: dict[str, Any]) -> Manifest:
    number = content["format"]
    if not isinstance(number, int) or number > FORMAT:
        raise FiresegError(
            f"{path}: format {number}, but this version of fireseg knows formats up to {FORMAT}; "
            "update fireseg, or make the patches anew with this one"
        )
    try:
        return TypeAdapter(Manifest).validate_python(content)
    except ValidationError as error:
        faults = (f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}; {AGAIN}" for one in error.errors())
        raise FiresegError(*faults) from error
