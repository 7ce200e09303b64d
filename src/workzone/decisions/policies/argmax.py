"""The policy without abstention: one threshold, 0.5 or the one with the highest MCC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from workzone.calibration.base import read_float
from workzone.data.roles import CalibData, require_calib
from workzone.decisions.policies.base import Policy, best_threshold, checked_probability, make_decisions
from workzone.decisions.types import Code, Decisions
from workzone.predictions import FloatArray


class ArgmaxPolicy(Policy):
    """``roadwork`` where p >= threshold, else ``no_roadwork``; never abstains and promises nothing.

    Args:
        remap: take the threshold with the highest MCC on the data given to ``fit`` instead of 0.5. With
            ``decisions.remap.remap(p, policy.threshold)`` that threshold becomes 0.5 again.
    """

    name: ClassVar[str] = "argmax"

    def __init__(self, *, remap: bool = False) -> None:
        self.use_mcc_threshold = remap
        self.threshold = 0.5

    def fit(
        self, data: CalibData, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None
    ) -> Self:
        """Choose the threshold; raises LeakageError unless ``data`` is ``CalibData``."""
        calib = require_calib(data, user=f"policy {self.name!r}")
        p = checked_probability(probability, n=len(calib))
        self.threshold = best_threshold(calib, p) if self.use_mcc_threshold else 0.5
        return self

    def decide(self, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None) -> Decisions:
        """Decisions for probabilities (N,); raises DataError on NaN or values outside [0, 1]."""
        p = checked_probability(probability)
        codes = np.where(p >= self.threshold, Code.ROADWORK, Code.NO_ROADWORK).astype(np.int8)
        at = f"{self.threshold:.4g}"
        reasons = {Code.ROADWORK: f"probability at or above {at}", Code.NO_ROADWORK: f"probability below {at}"}
        return make_decisions(codes, p, reasons)

    def parameters(self) -> dict[str, Any]:
        """The threshold."""
        return {"threshold": self.threshold}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError unless the threshold lies in [0, 1]."""
        policy = cls()
        policy.threshold = read_float(parameters, "threshold", low=0.0, high=1.0)
        return policy
