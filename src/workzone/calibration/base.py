"""What every calibrator is: a map from log-odds to a probability, fitted on ``CalibData`` and stored as numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from workzone.data.roles import CalibData, RoleData, require_calib
from workzone.errors import BundleError, DataError
from workzone.predictions import FloatArray

MAX_LOG_ODDS = 1e4
"""Beyond this no probability can be told from 0 or 1, even at the highest temperature."""
COEFFICIENT_LIMIT = 1e12
"""Largest stored coefficient; keeps the map free of overflow whatever a file says."""


class Calibrator(ABC):
    """Maps uncalibrated log-odds (N,) to probabilities of roadwork (N,).

    A member sets ``name`` and ``n_parameters``, implements ``_fit``, ``__call__``, ``parameters`` and
    ``from_parameters``, and registers itself in ``workzone.calibration.CALIBRATORS``.
    """

    name: ClassVar[str]
    n_parameters: ClassVar[int]
    """Free parameters; the simpler of two calibrators has fewer (isotonic counts as many)."""
    fewest_groups: ClassVar[int] = 30
    """Groups of each class below which an automatic choice passes it over: few scores are often separated by chance,
    and maximum likelihood then makes certainties of them. Smaller where the fit is held back by its targets."""
    fewest_images: ClassVar[int] = 0
    """The same, of images."""

    def fit(self, data: CalibData) -> Self:
        """Fit to the scores and labels of ``data``.

        Raises:
            LeakageError: ``data`` is anything but ``CalibData``.
            DataError: no scores, a score that is not finite, or only one class.
        """
        calib = require_calib(data, user=f"calibrator {self.name!r}")
        if not np.isfinite(calib.scores).all():
            raise DataError("a calibration score is not a finite number", where=f"calibrator {self.name!r}")
        if calib.n_positive in (0, len(calib)):
            only = "no roadwork images" if calib.n_positive == 0 else "only roadwork images"
            raise DataError(
                f"calibration needs both classes, and the {len(calib)} calibration images hold {only}",
                where=f"calibrator {self.name!r}",
                fix="give val_calib more images or change the split seed",
            )
        self._fit(calib)
        return self

    @abstractmethod
    def _fit(self, data: CalibData) -> None:
        """Fit in place; both classes are present and every score is finite."""

    @abstractmethod
    def __call__(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities (N,) in [0, 1] of ``log_odds`` (N,); infinities are mapped to the ends, NaN stays NaN."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Metadata columns that ``on`` reads; empty for a map of the log-odds alone."""
        return ()

    def on(self, log_odds: FloatArray, columns: Mapping[str, NDArray[Any]]) -> FloatArray:
        """Probabilities (N,) of ``log_odds`` (N,) of images with these metadata ``columns`` (N,).

        Raises:
            DataError: a column of ``needs`` is missing.
        """
        return self(log_odds)

    def apply(self, data: RoleData) -> FloatArray:
        """Probabilities (N,) of the scores of ``data``."""
        return self.on(data.scores, data.columns)

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The fitted numbers, fit for JSON; floats survive the round trip bit for bit."""

    @classmethod
    @abstractmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild from ``parameters()``; raises BundleError on missing or impossible values."""

    def to_dict(self) -> dict[str, Any]:
        """Name and numbers; ``workzone.calibration.from_dict`` reads it back."""
        return {"method": self.name, "parameters": self.parameters()}


def bounded(log_odds: FloatArray) -> FloatArray:
    """Log-odds clipped to ``[-MAX_LOG_ODDS, MAX_LOG_ODDS]``; NaN stays NaN."""
    return np.asarray(np.clip(np.asarray(log_odds, dtype=np.float64), -MAX_LOG_ODDS, MAX_LOG_ODDS), dtype=np.float64)


def log_probabilities(log_odds: FloatArray) -> FloatArray:
    """``ln(1 - p)`` and ``ln p`` (N, 2) straight from the log-odds, so that no probability is rounded to 0 or 1."""
    u = bounded(log_odds)
    # Unlike logaddexp, this form passes NaN on without a warning.
    tail = np.log1p(np.exp(-np.abs(u)))
    return np.stack([-np.maximum(u, 0.0) - tail, np.minimum(u, 0.0) - tail], axis=1)


def read_float(parameters: Mapping[str, Any], key: str, *, low: float = -np.inf, high: float = np.inf) -> float:
    """Read one finite number of a stored calibrator or policy.

    Raises:
        BundleError: the key is missing, not a number, or outside ``[low, high]``.
    """
    value = as_number(parameters.get(key))
    if not np.isfinite(value) or not low <= value <= high:
        raise BundleError(f"stored parameter {key!r} is {parameters.get(key)!r}, expected a number in [{low}, {high}]")
    return value


def read_numbers(parameters: Mapping[str, Any], key: str, *, most: int) -> FloatArray:
    """Read a stored list of numbers (L,); NaN stands where an entry is no number.

    Raises:
        BundleError: the key is missing, not a list, empty, or longer than ``most``.
    """
    value = parameters.get(key)
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise BundleError(f"stored parameter {key!r} must be a list of 1 to {most} numbers")
    return np.array([as_number(v) for v in value], dtype=np.float64)


def as_number(value: object) -> float:
    """``value`` as a float, NaN where it is not a number a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("nan")
