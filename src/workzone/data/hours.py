"""The band of the day an image was taken in, from its hour or from a word for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.predictions import StrArray

UNKNOWN = "unknown"
HOUR_BAND = "hour_band"
"""Name of the derived column."""
HOUR_BANDS = (("dawn", 6, 8), ("day", 8, 18), ("dusk", 18, 20), ("night", 20, 6))
"""Name, first hour, hour after the last; a band whose end is not after its start goes through midnight."""

_WORDS = {"daytime": "day", "nighttime": "night", "sunset": "dusk", "sunrise": "dawn", "twilight": "dusk"}


def hour_band(hour: float) -> str:
    """Name of the band that ``hour`` lies in; 'unknown' outside [0, 24)."""
    if not 0 <= hour < 24:
        return UNKNOWN
    for name, start, end in HOUR_BANDS:
        inside = start <= hour < end if start < end else hour >= start or hour < end
        if inside:
            return name
    raise AssertionError("the bands cover the day")


def hour_bands(columns: Mapping[str, NDArray[Any]], n: int) -> StrArray:
    """(N,) band of each image from ``hour``; where that is unknown, the word in ``time_of_day``; else 'unknown'."""
    hours, words = (columns[name].tolist() if name in columns else [None] * n for name in ("hour", "time_of_day"))
    bands = []
    for value, said in zip(hours, words, strict=True):
        try:
            band = hour_band(float(value))
        except (TypeError, ValueError):
            band = UNKNOWN
        word = "" if said is None or said != said else str(said)
        bands.append(_WORDS.get(word.lower(), word) or UNKNOWN if band == UNKNOWN else band)
    return np.array(bands, dtype=np.str_)
