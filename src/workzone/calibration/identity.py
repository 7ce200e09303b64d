"""No calibration: the log-odds are taken at their word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from workzone.calibration.base import Calibrator, bounded
from workzone.data.roles import CalibData
from workzone.predictions import FloatArray, sigmoid


class IdentityCalibrator(Calibrator):
    """``p = sigmoid(u)``; the member every other one has to beat."""

    name: ClassVar[str] = "none"
    n_parameters: ClassVar[int] = 0
    fewest_groups: ClassVar[int] = 0

    def _fit(self, data: CalibData) -> None:
        """Nothing to fit."""

    def __call__(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities (N,) of ``log_odds`` (N,)."""
        return sigmoid(bounded(log_odds))

    def parameters(self) -> dict[str, Any]:
        """No numbers."""
        return {}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild."""
        return cls()
