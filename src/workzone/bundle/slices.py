"""Metadata that a calibrator by slice needs beside the picture."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workzone.calibration import Calibrator
from workzone.data.hours import HOUR_BAND, UNKNOWN, hour_band
from workzone.data.sources.exif import read_exif
from workzone.errors import DataError
from workzone.vision.batch import Source


def require_columns(calibrator: Calibrator, columns: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """``columns``, when they hold what ``calibrator`` needs; the band of the day may be read from EXIF instead.

    Raises:
        DataError: a column is missing.
    """
    given = dict(columns or {})
    missing = [name for name in calibrator.needs if name not in given and name != HOUR_BAND]
    if missing:
        raise DataError(
            f"this bundle calibrates by {missing[0]!r}, and the images come without it",
            where=f"calibrator {calibrator.name!r}",
            fix=f"give it, on the command line as --slice {missing[0]}=VALUE (an empty value means unknown)",
        )
    return given


def unknown_slices(calibrator: Calibrator) -> dict[str, str]:
    """Columns that say of every image that its slice is unknown."""
    return dict.fromkeys(calibrator.needs, "")


def row(given: Mapping[str, Any], index: int, band: str) -> dict[str, NDArray[Any]] | None:
    """Columns (1,) of image ``index``; None where there are none."""
    values = {name: value if isinstance(value, str) else value[index] for name, value in given.items()}
    if band:
        values[HOUR_BAND] = band
    return {name: np.array([value], dtype=object) for name, value in values.items()} or None


def exif_hour_band(source: Source) -> str:
    """Band of the day from the EXIF time of a picture; 'unknown' without one."""
    if isinstance(source, Image.Image):
        hour = read_exif(source).hour
    else:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            hour = read_exif(image).hour
    return UNKNOWN if hour is None else hour_band(hour)
