"""How the probabilities of a checkpoint become decisions, kept beside it."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from fireseg.errors import FiresegError
from fireseg.runs.folder import RunFolder

log = logging.getLogger("fireseg")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How the probabilities of a checkpoint become decisions, chosen on a validation split.

    Attributes:
        temperature: What the log-odds of fire are divided by, above 0.
        threshold: The least calibrated probability of fire that counts as burned, in (0, 1).
        rule_min_pixels: A patch burns if a connected burned area has at least so many pixels, 1 or more,
        rule_min_odds: and such a peak of the log-odds, before the temperature.
        checkpoint_sha256: Of the checkpoint file that it was chosen for.
        fingerprint: Of the patches on whose validation split it was chosen.
    """

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    threshold: Annotated[float, Field(gt=0, lt=1)]
    rule_min_pixels: Annotated[int, Field(ge=1)]
    rule_min_odds: Annotated[float, Field(allow_inf_nan=False)]
    checkpoint_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    fingerprint: str


def write_calibration(folder: RunFolder, calibration: Calibration) -> None:
    """Writes `calibration.json` into the run, in place of the one that is there.

    Raises:
        FiresegError: If the disk is full or the folder cannot be written.
    """
    folder.write_calibration(asdict(calibration))


def read_calibration(folder: RunFolder) -> Calibration | None:
    """What `calibration.json` of a run says, for whichever checkpoint; None where there is none.

    Raises:
        FiresegError: If it cannot be understood; with all faults.
    """
    path = folder.calibration
    again = "take it away, and let python -m fireseg.evaluate choose anew"
    try:
        return TypeAdapter(Calibration).validate_python(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        faults = (f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}; {again}" for one in error.errors())
        raise FiresegError(*faults) from error
    except (OSError, ValueError) as error:
        raise FiresegError(f"{path}: cannot be read ({error}); {again}") from error


def get_calibration(folder: RunFolder, sha256: str) -> Calibration | None:
    """What was chosen for one checkpoint of a run; one that was chosen for another is warned of, and not used.

    Args:
        folder: The run.
        sha256: Of the checkpoint file.

    Raises:
        FiresegError: If it cannot be understood; with all faults.
    """
    calibration = read_calibration(folder)
    if calibration is None or calibration.checkpoint_sha256 == sha256:
        return calibration
    log.warning(
        "%s: chosen for another checkpoint (sha256 %s), so it is not used; python -m fireseg.evaluate chooses anew",
        folder.calibration,
        calibration.checkpoint_sha256[:12],
    )
    return None
