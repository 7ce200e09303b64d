"""Selective classification with a guaranteed risk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self, get_args

import numpy as np
from numpy.typing import NDArray

from workzone.calibration.base import read_float
from workzone.data.roles import CalibData
from workzone.decisions.certificate import Guarantee
from workzone.decisions.policies.base import (
    IfNotCertifiable,
    Policy,
    check_rates,
    check_word,
    checked_probability,
    fit_inputs,
    make_decisions,
    rebuild,
    require_same_keys,
    stop_if_refused,
)
from workzone.decisions.policies.sets import LimitStatus
from workzone.decisions.selective import EVERYTHING, guaranteed_selection
from workzone.decisions.types import Code, Decisions
from workzone.errors import BundleError
from workzone.predictions import FloatArray


class SelectiveRiskPolicy(Policy):
    """The more probable label where the doubt min(p, 1 - p) is below a cut, abstention elsewhere.

    Promise, with confidence ``1 - delta``: among the images that are answered, at most ``target_risk`` are answered
    wrongly. It covers both kinds of error together and depends on the prevalence. The cut comes from
    ``guaranteed_selection``, whose docstring says what it assumes. Source: Geifman, El-Yaniv 2017 (arXiv 1705.08500).

    Args:
        target_risk: see above.
        delta: probability that the promise fails over the draw of certification images.
        if_not_certifiable: "uncertified" answers everything and says so, "abstain" answers nothing, "stop" raises
            CheckFailedError.
    """

    name: ClassVar[str] = "sgr"
    certain: ClassVar[str] = "confident enough for the certified risk of wrong answers"
    doubtful: ClassVar[str] = "abstained: not confident enough for the certified risk of wrong answers"

    def __init__(
        self, *, target_risk: float = 0.05, delta: float = 0.05, if_not_certifiable: IfNotCertifiable = "uncertified"
    ) -> None:
        check_rates(self.name, target_risk=target_risk, delta=delta)
        check_word(self.name, "if_not_certifiable", if_not_certifiable, get_args(IfNotCertifiable))
        self.target_risk = target_risk
        self.delta = delta
        self.if_not_certifiable = if_not_certifiable
        self.status: LimitStatus | None = None
        self.cut: float | None = None
        self.coverage = float("nan")

    def fit(
        self, data: CalibData, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None
    ) -> Self:
        """Find the cut; ``coverage`` is the share of these images that is answered.

        Raises:
            LeakageError: ``data`` is anything but ``CalibData``.
            DataError: a probability is NaN or outside [0, 1], or there are no images.
            CheckFailedError: the promise cannot be given and ``if_not_certifiable`` is "stop".
        """
        calib, p = fit_inputs(data, probability, policy=self.name)
        self._certify(np.minimum(p, 1.0 - p), (p >= 0.5) != (calib.labels == 1))
        self.coverage = float(self.decide(p).accepted.mean())
        return self

    def _certify(self, doubt: FloatArray, wrong: NDArray[np.bool_]) -> None:
        from workzone.metrics.proportions import n_needed_for  # the predict path imports this module

        found = guaranteed_selection(doubt, wrong, self.target_risk, self.delta)
        promise = Guarantee(
            risk="selective_error",
            status="not_certifiable" if found.cut is None else "certified",
            alpha=self.target_risk,
            delta=self.delta,
            method="SGR, Clopper-Pearson, binary search",
            n=found.n,
            errors=found.errors,
            bound=found.bound,
        )
        if found.cut is None:
            clean = n_needed_for(0, self.target_risk, found.delta_each)
            needed = n_needed_for(found.errors, self.target_risk, found.delta_each)
            reason = (
                f"{clean} answered images without an error are needed, and {len(doubt)} are there in all; the best "
                f"selection tested has {found.errors} errors in {found.n}, which would take {needed}."
            )
            promise = promise.model_copy(update={"needed": needed, "needed_without_errors": clean, "reason": reason})
        self.guarantees = (promise,)
        stop_if_refused(self.name, self.guarantees, self.if_not_certifiable)
        if found.cut is not None:
            self.status, self.cut = "certified", found.cut
        elif self.if_not_certifiable == "abstain":
            self.status, self.cut = "withheld", None
        else:
            self.status, self.cut = "uncertified", EVERYTHING

    def decide(self, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None) -> Decisions:
        """Decisions for probabilities (N,); raises DataError on NaN or values outside [0, 1]."""
        p = checked_probability(probability)
        return self._answer(p, np.minimum(p, 1.0 - p))

    def _answer(self, p: FloatArray, doubt: FloatArray) -> Decisions:
        if self.status is None:
            raise ValueError("the policy has no cut yet; call fit first")
        codes = np.where(p >= 0.5, Code.ROADWORK, Code.NO_ROADWORK).astype(np.int8)
        codes[np.full(len(p), True) if self.cut is None else ~(doubt < self.cut)] = Code.ABSTAIN
        doubtful, certain = self.doubtful, self.certain
        if self.status == "withheld":
            doubtful = "abstained: no risk of wrong answers could be certified"
        elif self.status == "uncertified":
            certain = "uncertified: the more probable label"
        return make_decisions(codes, p, {Code.ROADWORK: certain, Code.NO_ROADWORK: certain, Code.ABSTAIN: doubtful})

    def parameters(self) -> dict[str, Any]:
        """The cut (null: nothing is answered), how it came about, the settings, and the answered share."""
        if self.status is None:
            raise ValueError("the policy has no cut yet; call fit first")
        return {
            "cut": self.cut,
            "status": self.status,
            "coverage": self.coverage,
            "target_risk": self.target_risk,
            "delta": self.delta,
            "if_not_certifiable": self.if_not_certifiable,
        }

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError on missing, unknown or contradictory values."""
        policy = rebuild(cls, parameters, numbers=("target_risk", "delta"), words=("if_not_certifiable",))
        policy.status = next((s for s in get_args(LimitStatus) if s == parameters.get("status")), None)
        if policy.status is None:
            raise BundleError(f"stored parameter 'status' is {parameters.get('status')!r}")
        policy.cut = None if parameters.get("cut") is None else read_float(parameters, "cut", low=0.0, high=EVERYTHING)
        if (policy.status == "withheld") != (policy.cut is None):
            raise BundleError("the stored policy contradicts itself: answers are withheld where there is no cut")
        policy.coverage = read_float(parameters, "coverage", low=0.0, high=1.0)
        policy._read_more(parameters)
        require_same_keys(policy, parameters)
        return policy

    def _read_more(self, parameters: Mapping[str, Any]) -> None:
        """Read what a member stores besides; raises BundleError."""
