"""Beta calibration (Kull, Silva Filho, Flach 2017, AISTATS)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from workzone.calibration.base import COEFFICIENT_LIMIT, Calibrator, log_probabilities, read_float
from workzone.calibration.logistic import fit_logistic
from workzone.data.roles import CalibData
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

    def _fit(self, data: CalibData) -> None:
        log_q, log_p = log_probabilities(data.scores).T
        features = np.column_stack([log_p, -log_q, np.ones(len(data))])
        a, b, c = fit_logistic(features, data.labels.astype(np.float64), [1.0, 1.0, 0.0], nonnegative=(0, 1))
        self.a, self.b, self.c = float(a), float(b), float(c)

    def __call__(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities (N,) of ``log_odds`` (N,)."""
        log_q, log_p = log_probabilities(log_odds).T
        return sigmoid(self.a * log_p - self.b * log_q + self.c)

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
