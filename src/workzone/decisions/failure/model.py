"""What every model of mistakes is, and what their stored forms share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from workzone.calibration.base import COEFFICIENT_LIMIT, as_number
from workzone.decisions.uncertainty.names import MEASURES
from workzone.errors import BundleError
from workzone.predictions import FloatArray


class MistakeModel(Protocol):
    """A map from measures of uncertainty to how likely a mistake is."""

    @property
    def names(self) -> tuple[str, ...]:
        """The measures it reads, in order."""

    def __call__(self, measures: FloatArray) -> FloatArray:
        """Score (N,) in [0, 1) of measures (N, D), rising with the chance of a mistake."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""


class FitMistakes(Protocol):
    """Fits a model of mistakes; where it needs torch it is handed in from above."""

    def __call__(self, names: tuple[str, ...], measures: FloatArray, wrong: NDArray[np.bool_], /) -> MistakeModel:
        """Model fitted to measures (N, D) and whether the answer was wrong (N,)."""


def standardisation(measures: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean (D,) and deviation (D,) of ``measures``; infinite where a measure does not vary, so that it counts as 0."""
    mean, scale = measures.mean(axis=0), measures.std(axis=0)
    # A measure that never varies would be divided by rounding noise.
    return mean, np.where(scale > 1e-12 * np.maximum(1.0, np.abs(mean)), scale, np.inf)


def read_keys(stored: object, keys: set[str]) -> Mapping[str, Any]:
    """``stored`` as a mapping with exactly ``keys``; raises BundleError otherwise."""
    if not isinstance(stored, Mapping) or set(stored) != keys:
        raise BundleError("the stored failure model lacks values or holds unknown ones")
    return stored


def read_names(stored: object) -> tuple[str, ...]:
    """Names of measures, each once; raises BundleError otherwise."""
    if not isinstance(stored, list) or not stored or any(stored.count(n) > 1 or n not in MEASURES for n in stored):
        raise BundleError(f"the stored failure model names unknown measures: {stored!r}")
    return tuple(stored)


def read_row(stored: object, length: int, key: str) -> tuple[float, ...]:
    """``length`` finite numbers of possible size; raises BundleError otherwise."""
    if not isinstance(stored, list) or len(stored) != length:
        raise BundleError(f"the stored failure model has not {length} values in {key!r}")
    row = tuple(as_number(v) for v in stored)
    if not all(abs(v) <= COEFFICIENT_LIMIT for v in row):
        raise BundleError(f"the stored failure model has an impossible {key!r}")
    return row


def read_scale(stored: object, length: int) -> tuple[float, ...]:
    """As ``read_row``, all positive."""
    row = read_row(stored, length, "scale")
    if min(row) <= 0.0:
        raise BundleError("the stored failure model has a scale that is not positive")
    return row
