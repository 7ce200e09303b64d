"""Calibrators that are a list of knots: log-odds and the probability there, with straight lines between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from workzone.calibration.base import Calibrator, bounded, read_numbers
from workzone.errors import BundleError
from workzone.predictions import FloatArray

_MAX_KNOTS = 100_000


class KnotCalibrator(Calibrator):
    """Linear interpolation between knots, constant beyond the outermost; a member adds ``_fit``."""

    def __init__(self, scores: FloatArray | None = None, probabilities: FloatArray | None = None) -> None:
        self.scores = np.array([0.0]) if scores is None else scores
        self.probabilities = np.array([0.5]) if probabilities is None else probabilities

    def __call__(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities (N,) of ``log_odds`` (N,)."""
        return np.asarray(np.interp(bounded(log_odds), self.scores, self.probabilities), dtype=np.float64)

    def parameters(self) -> dict[str, Any]:
        """The knots: scores and their probabilities."""
        return {"scores": self.scores.tolist(), "probabilities": self.probabilities.tolist()}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError unless the knots are increasing scores with non-decreasing probabilities."""
        x = read_numbers(parameters, "scores", most=_MAX_KNOTS)
        y = read_numbers(parameters, "probabilities", most=_MAX_KNOTS)
        if len(x) != len(y):
            raise BundleError(f"{cls.name} calibrator stores {len(x)} scores for {len(y)} probabilities")
        increasing = bool((np.diff(x) > 0).all() and (np.diff(y) >= 0).all())
        if not (np.isfinite(x).all() and increasing and ((y >= 0) & (y <= 1)).all()):
            raise BundleError(f"{cls.name} calibrator stores knots that are not monotone or outside [0, 1]")
        return cls(x, y)
