"""Two exit thresholds with a certified false-negative rate, and abstention between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np

from workzone.calibration.base import read_float
from workzone.data.roles import CalibData
from workzone.decisions.certificate import Guarantee, Unit
from workzone.decisions.policies.base import (
    IfNotCertifiable,
    best_threshold,
    check_rates,
    checked_probability,
    fit_inputs,
    make_decisions,
    rebuild,
    require_same_keys,
    stop_if_refused,
)
from workzone.decisions.policies.coverage import CoveragePolicy
from workzone.decisions.policies.exits import Exit, ExitStatus, best_between, count_errors, search_exit
from workzone.decisions.types import Code, Decisions
from workzone.errors import BundleError
from workzone.predictions import FloatArray


class ThresholdPolicy(CoveragePolicy):
    """``no_roadwork`` where p < t_low, ``roadwork`` where p >= t_high, ``abstain`` between.

    t_low is the largest threshold whose false-negative rate P(p < t_low | roadwork) is proven to be at most
    ``target_fnr``; t_high likewise the smallest for ``target_fpr``, P(p >= t_high | no roadwork). Without
    ``target_fpr`` t_high is the MCC-optimal threshold and nothing is promised about it. Where t_high would lie below
    t_low, every threshold between them keeps both promises (the error rates are monotone), and the one with the highest
    MCC is used for both, so that nothing abstains.

    Where a promise cannot be given, ``if_not_certifiable`` says what happens to the answers that would need it:
    ``uncertified`` decides at the MCC-optimal threshold and says so in every reason, ``abstain`` gives none of them,
    ``stop`` raises CheckFailedError.

    Args:
        target_fnr: promised upper limit of the false-negative rate.
        target_fpr: the same for the false-positive rate, or None for no promise.
        delta: probability that a promise fails over the draw of certification images; each promise on its own.
        min_coverage: share of decided images below which ``meets_min_coverage`` is False; it changes no decision.
        if_not_certifiable: see above.
        unit: "image" assumes independent images; "group" counts a group once, as an error if any of its images is one,
            and then promises about groups.
    """

    name: ClassVar[str] = "threshold"

    def __init__(
        self,
        *,
        target_fnr: float = 0.02,
        target_fpr: float | None = None,
        delta: float = 0.05,
        min_coverage: float = 0.70,
        if_not_certifiable: IfNotCertifiable = "uncertified",
        unit: Unit = "image",
    ) -> None:
        super().__init__(
            target_fnr=target_fnr,
            delta=delta,
            min_coverage=min_coverage,
            if_not_certifiable=if_not_certifiable,
            unit=unit,
        )
        check_rates(self.name, target_fpr=target_fpr)
        self.target_fpr = target_fpr
        self.low: Exit | None = None
        self.high: Exit | None = None

    def fit(
        self, data: CalibData, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None
    ) -> Self:
        """Find and certify the thresholds.

        ``coverage`` is measured on the same images, ``coverage_low`` is its one-sided lower limit at ``delta``.

        Raises:
            LeakageError: ``data`` is anything but ``CalibData``.
            DataError: a probability is NaN or outside [0, 1], or only one class is present.
            CheckFailedError: a promise cannot be given and ``if_not_certifiable`` is "stop".
        """
        calib, p = fit_inputs(data, probability, policy=self.name)
        mcc_threshold = best_threshold(calib, p)
        low, promise_low = self._search("low", calib, p, self.target_fnr)
        promises = [promise_low]
        high = Exit("none", mcc_threshold)
        if self.target_fpr is not None:
            high, promise_high = self._search("high", calib, p, self.target_fpr)
            promises.append(promise_high)
        stop_if_refused(self.name, promises, self.if_not_certifiable, remedy="relax the target or delta")
        withhold = self.if_not_certifiable == "abstain"
        self.low, self.high = _resolve(low, high, mcc_threshold, withhold=withhold, data=calib, probability=p)
        self.guarantees = tuple(
            count_errors(g, exit_.threshold, calib, p)
            for g, exit_ in zip(promises, (self.low, self.high), strict=False)
        )
        self._measure_coverage(p)
        return self

    def _search(
        self, which: Literal["low", "high"], data: CalibData, probability: FloatArray, alpha: float
    ) -> tuple[Exit, Guarantee]:
        return search_exit(which, data, probability, alpha, self.delta, self.unit)

    def decide(self, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None) -> Decisions:
        """Decisions for probabilities (N,); raises DataError on NaN or values outside [0, 1]."""
        if self.low is None or self.high is None:
            raise ValueError("the policy has no thresholds yet; call fit first")
        p = checked_probability(probability)
        codes = np.full(len(p), Code.ABSTAIN, dtype=np.int8)
        if self.low.threshold is not None:
            codes[p < self.low.threshold] = Code.NO_ROADWORK
        if self.high.threshold is not None:
            codes[p >= self.high.threshold] = Code.ROADWORK
        return make_decisions(codes, p, self._reasons(self.low, self.high))

    @staticmethod
    def _reasons(low: Exit, high: Exit) -> dict[Code, str]:
        if low.status == "withheld" or high.status == "withheld":
            between = "abstained: the error rate of a decision here could not be certified"
        else:
            between = "abstained: between the two thresholds"
        below = "below the certified exit threshold"
        if low.status == "uncertified":
            below = "uncertified: below the MCC-optimal threshold"
        above = "at or above the decision threshold"
        if high.status == "certified":
            above = "at or above the certified threshold"
        elif high.status == "uncertified" or low.status == "uncertified":
            above = "uncertified: at or above the MCC-optimal threshold"
        return {Code.NO_ROADWORK: below, Code.ROADWORK: above, Code.ABSTAIN: between}

    def parameters(self) -> dict[str, Any]:
        """Thresholds (null: this answer is never given), how each came about, the settings, and the coverage."""
        if self.low is None or self.high is None:
            raise ValueError("the policy has no thresholds yet; call fit first")
        return {
            "t_low": self.low.threshold,
            "t_high": self.high.threshold,
            "low_status": self.low.status,
            "high_status": self.high.status,
            "target_fpr": self.target_fpr,
            **self._coverage_parameters(),
        }

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError on missing, unknown or contradictory values."""
        policy = cls._with_settings(parameters)
        policy.low = _read_exit(parameters, "low")
        policy.high = _read_exit(parameters, "high")
        t_low, t_high = policy.low.threshold, policy.high.threshold
        if t_low is not None and t_high is not None and t_low > t_high:
            raise BundleError(f"the stored policy has t_low {t_low} above t_high {t_high}")
        require_same_keys(policy, parameters)
        policy._read_coverage(parameters)
        return policy

    @classmethod
    def _with_settings(cls, parameters: Mapping[str, Any]) -> Self:
        return rebuild(
            cls,
            parameters,
            numbers=("target_fnr", "delta", "min_coverage"),
            optional=("target_fpr",),
            words=("if_not_certifiable", "unit"),
        )


def _read_exit(parameters: Mapping[str, Any], side: str) -> Exit:
    stored, key = parameters.get(f"{side}_status"), f"t_{side}"
    allowed: list[ExitStatus] = [s for s in get_args(ExitStatus) if s != "none" or side == "high"]
    status = next((s for s in allowed if s == stored), None)
    if status is None:
        raise BundleError(f"stored parameter '{side}_status' is {stored!r}, expected one of {', '.join(allowed)}")
    if status == "withheld":
        if parameters.get(key) is not None:
            raise BundleError(f"stored parameter {key!r} must be null where the answer is withheld")
        return Exit("withheld", None)
    return Exit(status, read_float(parameters, key, low=0.0, high=1.0))


def _resolve(
    low: Exit, high: Exit, mcc: float, *, withhold: bool, data: CalibData, probability: FloatArray
) -> tuple[Exit, Exit]:
    """Settle both thresholds so that t_low <= t_high and every promise that was given still holds."""
    if withhold:
        low, high = (Exit("withheld", None) if e.status == "uncertified" else e for e in (low, high))
    if low.threshold is None and low.status == "uncertified":
        # A certified t_high may not be lowered; above it the single MCC threshold keeps the promise.
        floor = high.threshold if high.status == "certified" else None
        low = Exit("uncertified", mcc)
        high = Exit(high.status, mcc if floor is None or floor <= mcc else floor)
    elif high.threshold is None and high.status == "uncertified":
        high = Exit("uncertified", mcc)
    if low.threshold is None or high.threshold is None or low.threshold <= high.threshold:
        return low, high
    single = high.threshold
    if high.status == "certified":
        single = best_between(data, probability, high.threshold, low.threshold)
    return Exit(low.status, single), Exit(high.status, single)
