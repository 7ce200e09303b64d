"""Beta calibration (Kull, Silva Filho, Flach 2017, AISTATS)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from workzone.calibration.base import COEFFICIENT_LIMIT, Calibrator, bounded, read_float
from workzone.calibration.logistic import fit_logistic
from workzone.predictions import FloatArray, sigmoid


class BetaCalibrator(Calibrator):
    """``logit q = a ln p - b ln(1 - p) + c`` with a, b >= 0 and p = sigmoid(u), fitted by NLL.

    Holds the identity (1, 1, 0) and, with a = b, Platt's sigmoid. A coefficient that would come out negative is fixed
    at zero and the rest refitted, as in the paper.
    """

    name: ClassVar[str] = "beta"
    n_parameters: ClassVar[int] = 3

    def __init__(self, a: float = 1.0, b: float = 1.0, c: float = 0.0) -> None:
        self.a = a
        self.b = b
        self.c = c

    @staticmethod
    def _features(log_odds: FloatArray) -> tuple[FloatArray, FloatArray]:
        """``ln p`` and ``-ln(1 - p)`` straight from the log-odds, so that no probability is rounded to 0 or 1."""
        u = bounded(log_odds)
        # Unlike logaddexp, this form passes NaN on without a warning.
        tail = np.log1p(np.exp(-np.abs(u)))
        return np.minimum(u, 0.0) - tail, np.maximum(u, 0.0) + tail

    def _fit(self, log_odds: FloatArray, labels: FloatArray) -> None:
        features = np.column_stack([*self._features(log_odds), np.ones(len(labels))])
        a, b, c = fit_logistic(features, labels, [1.0, 1.0, 0.0], nonnegative=(0, 1))
        self.a, self.b, self.c = float(a), float(b), float(c)

    def __call__(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities (N,) of ``log_odds`` (N,)."""
        log_p, minus_log_q = self._features(log_odds)
        return sigmoid(self.a * log_p + self.b * minus_log_q + self.c)

    def parameters(self) -> dict[str, Any]:
        """The coefficients a, b and c."""
        return {"a": self.a, "b": self.b, "c": self.c}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError on a missing number or a negative a or b."""
        return cls(
            read_float(parameters, "a", low=0.0, high=COEFFICIENT_LIMIT),
            read_float(parameters, "b", low=0.0, high=COEFFICIENT_LIMIT),
            read_float(parameters, "c"),
        )
