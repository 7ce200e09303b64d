"""Columns that are derived for slicing: the band of the day and the band of confidence."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from workzone.predictions import FloatArray, Predictions, StrArray

UNKNOWN = "unknown"
HOUR_BANDS = (("dawn", 6, 8), ("day", 8, 18), ("dusk", 18, 20), ("night", 20, 6))
"""Name, first hour, hour after the last; a band whose end is not after its start goes through midnight."""

_CONFIDENCE_EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
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


def hour_bands(predictions: Predictions) -> StrArray:
    """(N,) band of each image from ``hour``; where that is unknown, the word in ``time_of_day``; else 'unknown'."""
    words = predictions.column("time_of_day")
    bands = []
    for text, word in zip(predictions.column("hour").tolist(), words.tolist(), strict=True):
        try:
            band = hour_band(float(text))
        except ValueError:
            band = UNKNOWN
        bands.append(_WORDS.get(word.lower(), word) if band == UNKNOWN else band)
    return np.array(bands, dtype=np.str_)


def confidence_bands(probability: FloatArray) -> StrArray:
    """(N,) band of the confidence max(p, 1 - p), such as '0.80-0.90'."""
    confidence = np.maximum(probability, 1.0 - probability)
    edges = (*_CONFIDENCE_EDGES, 1.0)
    names = np.array([f"{low:.2f}-{high:.2f}" for low, high in pairwise(edges)])
    return np.asarray(names[np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, len(names) - 1)])
