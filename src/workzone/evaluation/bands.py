"""Columns that are derived for slicing: the band of the day and the band of confidence."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from workzone.data import hours
from workzone.data.hours import UNKNOWN, hour_band
from workzone.predictions import FloatArray, Predictions, StrArray

__all__ = ["UNKNOWN", "confidence_bands", "hour_band", "hour_bands"]

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
