"""Threshold and temperature of a run, stored in its `calibration.json`."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from fireseg.console import format_command
from fireseg.decision import TEMPERATURE_LIMITS
from fireseg.errors import FiresegError
from fireseg.files import check_regular_file, read_error
from fireseg.runs.folder import RunFolder

log = logging.getLogger("fireseg")

_MAX_LOG_ODDS = 1e6
"""Log-odds beyond are no logits of a model."""

_MAX_GAIN = 1e6
"""Limit of an interval of a gain in IoU, which is wide for few fires."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Threshold, temperature and detection rule of one checkpoint, selected on a validation split.

    Attributes:
        temperature: Divisor of the log-odds of fire, 0.01 to 100.
        threshold: Lowest calibrated fire probability that counts as burned, in (0, 1).
        rule_min_pixels: Smallest size in pixels of the connected burned area that makes a patch a detection.
        rule_min_odds: Lowest peak of the log-odds in that area, before the temperature.
        checkpoint_sha256: SHA-256 of the checkpoint file that the values belong to.
        fingerprint: Fingerprint of the patches whose validation split was used.
        best_threshold: Threshold with the best IoU on val, used only if its gain over 0.5 is certain; None in files of
            earlier versions, whose `threshold` it is.
        gain: Gain in IoU of the best threshold over 0.5, cross-validated over fires; None if unknown.
        gain_low: Lower end of the 95 % interval of the gain.
        gain_high: Upper end.
        num_fires: Number of fires of val.
        index_threshold: Threshold of the burn ratio tuned on train; None if a band or a burned pixel is missing.
        change_thresholds: Thresholds of dNBR, RdNBR and RBR tuned on train; None if the model is of a single scene.
        is_blended: True if chosen on the probabilities of maps; False in files of earlier versions, which chose on
            those of single patches.
    """

    temperature: Annotated[float, Field(ge=TEMPERATURE_LIMITS[0], le=TEMPERATURE_LIMITS[1])]
    threshold: Annotated[float, Field(gt=0, lt=1)]
    rule_min_pixels: Annotated[int, Field(ge=1)]
    rule_min_odds: Annotated[float, Field(ge=-_MAX_LOG_ODDS, le=_MAX_LOG_ODDS)]
    checkpoint_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    fingerprint: str
    best_threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    gain: Annotated[float, Field(ge=-1, le=1)] | None = None
    gain_low: Annotated[float, Field(ge=-_MAX_GAIN, le=_MAX_GAIN)] | None = None
    gain_high: Annotated[float, Field(ge=-_MAX_GAIN, le=_MAX_GAIN)] | None = None
    num_fires: Annotated[int, Field(ge=0)] | None = None
    index_threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    change_thresholds: dict[str, Annotated[float, Field(ge=-1, le=1)]] | None = None
    is_blended: bool = False

    @property
    def is_checked(self) -> bool:
        """True if the gain of the best threshold was checked; False for files of earlier versions."""
        return self.best_threshold is not None


def write_calibration(folder: RunFolder, calibration: Calibration) -> None:
    """Writes `calibration.json` of a run, replacing an existing one.

    Raises:
        FiresegError: If the disk is full or the folder is not writable.
    """
    folder.write_calibration(asdict(calibration))


def read_calibration(folder: RunFolder) -> Calibration | None:
    """Reads `calibration.json` of a run, for whichever checkpoint it was made; None if there is none.

    Raises:
        FiresegError: If its content is not valid; with all faults.
    """
    path = folder.calibration
    cure = f"delete it and make it again: {format_command('evaluate', folder.path)}"
    check_regular_file(path)
    try:
        return TypeAdapter(Calibration).validate_python(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        faults = (f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}; {cure}" for one in error.errors())
        raise FiresegError(*faults) from error
    except OSError as error:
        raise read_error(path, error) from error
    except (ValueError, RecursionError) as error:
        raise FiresegError(f"{path}: damaged ({error}); {cure}") from error


def get_calibration(folder: RunFolder, sha256: str) -> Calibration | None:
    """Reads the calibration of one checkpoint; one that belongs to another checkpoint is ignored with a warning.

    Args:
        folder: Run folder.
        sha256: SHA-256 of the checkpoint file.

    Raises:
        FiresegError: If its content is not valid; with all faults.
    """
    calibration = read_calibration(folder)
    if calibration is None or calibration.checkpoint_sha256 == sha256:
        return calibration
    log.warning(
        "%s: belongs to another checkpoint (sha256 %s) and is ignored; renew it: %s",
        folder.calibration,
        calibration.checkpoint_sha256[:12],
        format_command("evaluate", folder.path),
    )
    return None
