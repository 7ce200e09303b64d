"""What policies with certified thresholds and a wanted share of decided images have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from workzone.calibration.base import read_float
from workzone.decisions.certificate import Unit
from workzone.decisions.policies.base import IfNotCertifiable, Policy, check_rates, check_word
from workzone.errors import BundleError, ConfigError
from workzone.predictions import FloatArray


class CoveragePolicy(Policy):
    """Settings of a certified false-negative rate, and the coverage that was measured on the certification images.

    Attributes:
        coverage: share of certification images that were decided.
        coverage_low: its one-sided lower limit at ``delta``.
    """

    def __init__(
        self,
        *,
        target_fnr: float,
        delta: float,
        min_coverage: float,
        if_not_certifiable: IfNotCertifiable,
        unit: Unit,
    ) -> None:
        check_rates(self.name, target_fnr=target_fnr, delta=delta)
        if not 0.0 <= min_coverage <= 1.0:
            where = f"policy {self.name!r}"
            raise ConfigError(f"min_coverage is {min_coverage}, but must lie in [0, 1]", where=where)
        check_word(self.name, "if_not_certifiable", if_not_certifiable, get_args(IfNotCertifiable))
        check_word(self.name, "unit", unit, get_args(Unit))
        self.target_fnr, self.delta, self.min_coverage = target_fnr, delta, min_coverage
        self.if_not_certifiable, self.unit = if_not_certifiable, unit
        self.coverage = float("nan")
        self.coverage_low = float("nan")

    @property
    def meets_min_coverage(self) -> bool:
        """Whether the share of certification images that were decided reaches ``min_coverage``."""
        return self.coverage >= self.min_coverage

    def _measure_coverage(self, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None) -> None:
        from workzone.metrics.proportions import clopper_pearson_upper  # the predict path imports this module

        n = len(probability)
        decided = int(self.decide(probability, uncertainty).accepted.sum())
        self.coverage = decided / n
        self.coverage_low = 1.0 - float(clopper_pearson_upper(n - decided, n, self.delta))

    def _coverage_parameters(self) -> dict[str, Any]:
        """The settings and the coverage, for ``parameters``."""
        return {
            "target_fnr": self.target_fnr,
            "delta": self.delta,
            "min_coverage": self.min_coverage,
            "if_not_certifiable": self.if_not_certifiable,
            "unit": self.unit,
            "coverage": self.coverage,
            "coverage_low": self.coverage_low,
            "meets_min_coverage": self.meets_min_coverage,
        }

    def _read_coverage(self, parameters: Mapping[str, Any]) -> None:
        """Take the coverage over; raises BundleError where it is missing, impossible or contradicts itself."""
        self.coverage = read_float(parameters, "coverage", low=0.0, high=1.0)
        self.coverage_low = read_float(parameters, "coverage_low", low=0.0, high=1.0)
        if parameters.get("meets_min_coverage") is not self.meets_min_coverage:
            raise BundleError("the stored policy contradicts itself about its coverage")
