"""Temperature scaling (Guo, Pleiss, Sun, Weinberger 2017, arXiv 1706.04599)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from workzone.calibration.base import Calibrator, bounded, read_float
from workzone.calibration.logistic import fit_logistic
from workzone.data.roles import CalibData
from workzone.predictions import FloatArray, sigmoid

LOWEST, HIGHEST = 0.01, 100.0


class TemperatureCalibrator(Calibrator):
    """``p = sigmoid(u / T)`` with T in [0.01, 100], fitted by NLL.

    Keeps 0.5 where it was, so it cannot mend a prior shift. The NLL is convex in 1/T, so clipping its optimum to the
    range gives the optimum within the range. Perfectly separated scores drive T down until the ridge of the fit or the
    range stops it.
    """

    name: ClassVar[str] = "temperature"
    n_parameters: ClassVar[int] = 1

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def _fit(self, data: CalibData) -> None:
        slope = float(fit_logistic(bounded(data.scores)[:, None], data.labels.astype(np.float64), [1.0])[0])
        self.temperature = float(np.clip(1.0 / max(slope, 1.0 / HIGHEST), LOWEST, HIGHEST))

    def __call__(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities (N,) of ``log_odds`` (N,)."""
        return sigmoid(bounded(log_odds) / self.temperature)

    def parameters(self) -> dict[str, Any]:
        """The temperature."""
        return {"temperature": self.temperature}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError unless the temperature lies in [0.01, 100]."""
        return cls(read_float(parameters, "temperature", low=LOWEST, high=HIGHEST))
