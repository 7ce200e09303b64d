"""Columns that are derived for slicing: the band of the day, the band of confidence, and whole numbers."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np

from workzone.data import hours
from workzone.data.hours import UNKNOWN, hour_band
from workzone.predictions import FloatArray, Predictions, StrArray

__all__ = ["UNKNOWN", "confidence_bands", "hour_band", "hour_bands", "whole_numbers"]

_WHOLE = re.compile(r"-?\d+\.0")
_CONFIDENCE_EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def hour_bands(predictions: Predictions) -> StrArray:
    """(N,) band of the day of each image; see ``workzone.data.hours``."""
    return hours.hour_bands(predictions.columns, len(predictions))


def confidence_bands(probability: FloatArray) -> StrArray:
    """(N,) band of the confidence max(p, 1 - p), such as '0.80-0.90'."""
    confidence = np.maximum(probability, 1.0 - probability)
    edges = (*_CONFIDENCE_EDGES, 1.0)
    names = np.array([f"{low:.2f}-{high:.2f}" for low, high in pairwise(edges)])
    return np.asarray(names[np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, len(names) - 1)])


def whole_numbers(values: StrArray) -> StrArray:
    """(N,) the same with '7' for '7.0' where all numbers are whole; a column with gaps is stored as decimals."""
    names = np.unique(values).tolist()
    plain = {name: name[:-2] for name in names if _WHOLE.fullmatch(name)}
    if not plain or any(name not in plain and name not in ("", UNKNOWN) for name in names):
        return values
    return np.array([plain.get(value, value) for value in values.tolist()], dtype=np.str_)
