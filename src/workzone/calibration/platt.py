"""Platt scaling (Platt 1999, "Probabilistic outputs for support vector machines")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from workzone.calibration.base import COEFFICIENT_LIMIT, Calibrator, bounded, read_float
from workzone.calibration.logistic import fit_logistic
from workzone.data.roles import CalibData
from workzone.predictions import FloatArray, IntArray, sigmoid


def smoothed_targets(labels: IntArray) -> FloatArray:
    """Platt's targets (N,): (n1 + 1) / (n1 + 2) for class 1 and 1 / (n0 + 2) for class 0."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    return np.where(labels == 1, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))


class PlattCalibrator(Calibrator):
    """``p = sigmoid(a u + b)`` on log-odds u, a >= 0, fitted by NLL against Platt's smoothed targets.

    Targets are (n1 + 1) / (n1 + 2) and 1 / (n0 + 2) instead of 1 and 0, which keeps the optimum finite for separable
    scores. A detector that ranks backwards gets a = 0, the base rate for every image, rather than a reversed ranking.
    """

    name: ClassVar[str] = "platt"
    n_parameters: ClassVar[int] = 2
    fewest_groups: ClassVar[int] = 0

    def __init__(self, slope: float = 1.0, intercept: float = 0.0) -> None:
        self.slope = slope
        self.intercept = intercept

    def _fit(self, data: CalibData) -> None:
        features = np.column_stack([bounded(data.scores), np.ones(len(data))])
        slope, intercept = fit_logistic(features, smoothed_targets(data.labels), [1.0, 0.0], nonnegative=(0,))
        self.slope, self.intercept = float(slope), float(intercept)

    def __call__(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities (N,) of ``log_odds`` (N,)."""
        return sigmoid(self.slope * bounded(log_odds) + self.intercept)

    def parameters(self) -> dict[str, Any]:
        """Slope and intercept."""
        return {"slope": self.slope, "intercept": self.intercept}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError on a missing or negative slope or a missing intercept."""
        return cls(
            read_float(parameters, "slope", low=0.0, high=COEFFICIENT_LIMIT), read_float(parameters, "intercept")
        )
