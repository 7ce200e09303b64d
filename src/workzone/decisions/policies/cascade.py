"""Look once, look again only where it pays, then decide at two thresholds; certified along its whole cost curve."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np

from workzone.calibration.base import read_float
from workzone.data.roles import CalibData
from workzone.decisions.cascade.plan import Band, Plan
from workzone.decisions.cascade.tested import PointStatus, Tested, climbed, read_count, read_tested
from workzone.decisions.certificate import Guarantee, Unit
from workzone.decisions.policies.base import (
    IfNotCertifiable,
    best_threshold,
    checked_probability,
    fit_inputs,
    make_decisions,
    rebuild,
    require_same_keys,
    stop_if_refused,
)
from workzone.decisions.policies.coverage import CoveragePolicy
from workzone.decisions.policies.exits import unit_scores
from workzone.decisions.risk import GRID, allowed_errors, certify_threshold, tightest_alpha
from workzone.decisions.types import Code, Decisions
from workzone.errors import BundleError, ConfigError
from workzone.predictions import FloatArray


class CascadePolicy(CoveragePolicy):
    """Stops looking where the calibrated probability of a stage leaves the stage's band; then decides on it.

    ``no_roadwork`` where that probability is below t_low, ``roadwork`` where it is at least t_high, and ``abstain``
    between.

    The plan holds a path of operating points, from all views for every image to one. It must come from images that are
    not used here: the promise rests on rules that were fixed before.

    Promise: let r_j = P(answered no_roadwork | roadwork) of the whole cascade at operating point j, on new images drawn
    like the certification images. With probability at least ``1 - delta`` over the draw of the certification images,
    r_j <= ``target_fnr`` holds for ALL certified points at once, so any of them may be chosen afterwards. Proof: a
    fixed sequence of hypotheses, each tested at ``delta`` by "Clopper-Pearson upper bound <= target"; first the full
    cascade at thresholds rising to its ``start``, then the other points from dear to cheap, each at its own ``start``,
    then all points at thresholds that rise further together, dear before cheap at each; all fixed before; nothing
    behind the first failure is certified. A false certificate needs the first true null
    hypothesis to be rejected, which happens with probability at most ``delta``. A lower threshold than the tested one
    only lowers r_j.

    t_high is the MCC-optimal threshold of all views, and nothing is promised about it.

    Args:
        plan: order of views, stages and operating points (``workzone.decisions.cascade.fit_plan``); None for one stage.
        target_fnr: promised upper limit of the false-negative rate of the whole cascade.
        delta: probability that any of the promises fails.
        budget: mean share of the cost to spend, which chooses the operating point; above 1, a number of views of the
            one model.
        min_coverage: as ``ThresholdPolicy``.
        if_not_certifiable: what a point does that is not certified: ``uncertified`` decides and says so in every
            reason, ``abstain`` never answers no_roadwork; ``stop`` raises CheckFailedError where the chosen point is
            not certified.
        unit: as ``ThresholdPolicy``.

    Source: Angelopoulos, Bates, Candes, Jordan, Lei 2021 (arXiv 2110.01052), fixed sequence testing.
    """

    name: ClassVar[str] = "cascade"

    def __init__(
        self,
        *,
        plan: Plan | None = None,
        target_fnr: float = 0.02,
        delta: float = 0.05,
        budget: float = 0.35,
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
        self.plan = plan if plan is not None else Plan.single()
        # A cascade of one stage has nothing to save, so any budget takes all views.
        self.budget = budget if plan is not None and len(plan.stages) > 1 else 1.0
        self.active = self.plan.point_within(self.budget)
        self.results: tuple[Tested, ...] = ()
        self.t_high = float("nan")
        self.n = 0

    @property
    def needs(self) -> tuple[str, ...]:
        """Log-odds of the stages at which the chosen operating point can stop."""
        bands = self.plan.points[self.active].bands
        return tuple(name for name, band in zip(self.plan.names, bands, strict=True) if band != Band())

    def at(self, budget: float) -> Self:
        """The same cascade at the dearest operating point with a mean cost within ``budget``.

        Args:
            budget: mean share of the views, in (0, 1], or a mean number of views above 1.

        Raises:
            ConfigError: even one look costs more, or the budget is not a positive number.
        """
        other = copy.copy(self)
        other.active, other.budget = self.plan.point_within(budget), budget
        if self.results:
            other.guarantees = (other.promise(other.active),)
        return other

    def with_plan(self, plan: Plan, budget: float) -> Self:
        """The same settings, not fitted, with another plan and budget."""
        return type(self)(
            plan=plan,
            target_fnr=self.target_fnr,
            delta=self.delta,
            budget=budget,
            min_coverage=self.min_coverage,
            if_not_certifiable=self.if_not_certifiable,
            unit=self.unit,
        )

    def at_point(self, point: int) -> Self:
        """The same cascade at operating point number ``point``."""
        return self.at(self.plan.points[point].cost)

    def fit(
        self, data: CalibData, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None
    ) -> Self:
        """Certify the operating points on images that neither the calibrators nor the plan have seen.

        Args:
            data: see ``Policy.fit``.
            probability: (N,) calibrated probabilities of all views.
            uncertainty: log-odds (N,) of the earlier stages by ``plan.names``.

        Raises:
            LeakageError: ``data`` is anything but ``CalibData``.
            DataError: a probability is NaN or outside [0, 1], a stage is missing, or only one class is present.
            CheckFailedError: the chosen point is not certified and ``if_not_certifiable`` is "stop".
        """
        calib, p = fit_inputs(data, probability, policy=self.name)
        mcc = best_threshold(calib, p)
        self.t_high = mcc
        scores = unit_scores(calib, p, label=1, unit=self.unit)
        self.n = len(scores)
        start = self.plan.points[0].start
        climb = GRID if start is None else np.unique(np.r_[GRID[start > GRID], start])
        full = certify_threshold(scores, climb, self.target_fnr, self.delta)
        reached = full.threshold is not None and (start is None or full.threshold == start)
        threshold = mcc if full.threshold is None else min(full.threshold, mcc)
        passed = full.threshold is not None
        results = [self._passed(scores, threshold) if passed else self._tested(False, threshold, full.errors)]
        allowed = allowed_errors(self.n, self.target_fnr, self.delta)
        answers = [scores]
        for point in range(1, len(self.plan.points)):
            start = self.plan.points[point].start
            assert start is not None  # a plan of several points has one for each
            threshold = mcc if full.threshold is None else min(start, mcc)
            answer, _ = self.plan.walk(point, p, uncertainty)
            worst = unit_scores(calib, answer, label=1, unit=self.unit)
            answers.append(worst)
            errors = int((worst < start).sum())
            reached = reached and errors <= allowed
            results.append(self._passed(worst, threshold) if reached else self._tested(False, threshold, errors))
        starts = [point.start for point in self.plan.points if point.start is not None]
        if reached and starts:
            tops = climbed(answers, starts, allowed)
            results = [self._passed(worst, min(top, mcc)) for worst, top in zip(answers, tops, strict=True)]
        self.results = tuple(results)
        self.guarantees = (self.promise(self.active),)
        remedy = "raise the budget, relax the target or delta"
        stop_if_refused(self.name, self.guarantees, self.if_not_certifiable, remedy=remedy)
        self._measure_coverage(p, uncertainty)
        return self

    def _passed(self, scores: FloatArray, threshold: float) -> Tested:
        """A certified point, with the misses among its ``scores`` at the threshold that is used."""
        return self._tested(True, threshold, int((scores < threshold).sum()))

    def _tested(self, certified: bool, threshold: float, errors: int) -> Tested:
        from workzone.metrics.proportions import clopper_pearson_upper, n_needed_for  # not part of the light core

        withheld = not certified and self.if_not_certifiable == "abstain"
        return Tested(
            status="certified" if certified else "withheld" if withheld else "uncertified",
            threshold=None if withheld else threshold,
            errors=errors,
            bound=float(clopper_pearson_upper(errors, self.n, self.delta)) if self.n else 1.0,
            needed=int(n_needed_for(errors, self.target_fnr, self.delta)),
        )

    @property
    def certified_points(self) -> int:
        """How many points, from the dearest on, are certified at once."""
        return next((i for i, r in enumerate(self.results) if r.status != "certified"), len(self.results))

    def promise(self, point: int) -> Guarantee:
        """What is promised at operating point ``point``, or why nothing is."""
        result, count = self.results[point], len(self.results)
        certified = result.status == "certified"
        held = self.certified_points
        together = "" if held < 2 else f"; the {held} dearest points hold at once"
        promise = Guarantee(
            risk="false_negative_rate",
            status="certified" if certified else "not_certifiable",
            alpha=self.target_fnr,
            delta=self.delta,
            method=f"Clopper-Pearson, fixed sequence over {count} operating point{'s' if count > 1 else ''}{together}",
            unit=self.unit,
            n=self.n,
            errors=result.errors,
            bound=result.bound,
        )
        if certified:
            return promise
        # Without an error the bound is 1 - delta ** (1 / n).
        clean, needed = math.ceil(math.log(self.delta) / math.log1p(-self.target_fnr)), result.needed
        whole = "the full cost" if self.plan.models else "all views"
        cost = f"Operating point {point + 1} of {count} (mean cost {self.plan.points[point].cost:.0%} of {whole})"
        if needed <= self.n:
            reason = (
                f"{cost}: the sequence of tests ended before it, after {held} certified points, and nothing behind a "
                "failure is certified; this one alone passes."
            )
        else:
            reason = (
                f"{cost}: {result.errors} misses among {self.n} roadwork {self.unit}s; at least {needed} would be "
                f"needed with as many misses, {clean} without one; without a miss {self.n} could certify "
                f"{tightest_alpha(self.n, self.delta):.2%} at best."
            )
        return promise.model_copy(
            update={
                "needed": needed,
                "needed_without_errors": clean,
                "tightest": tightest_alpha(self.n, self.delta),
                "reason": reason,
            }
        )

    def decide(self, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None) -> Decisions:
        """Decisions for the probabilities (N,) of all views and the log-odds of the stages in ``needs``.

        What lies behind the stage where an image stops is not read, but the probability must be a number in [0, 1].

        Raises:
            DataError: NaN or values outside [0, 1], or a stage that an image reaches was not scored.
        """
        if not self.results:
            raise ValueError("the policy has no thresholds yet; call fit first")
        p, stop = self.plan.walk(self.active, checked_probability(probability), uncertainty)
        result = self.results[self.active]
        codes = np.full(len(p), Code.ABSTAIN, dtype=np.int8)
        if result.threshold is not None:
            codes[p < result.threshold] = Code.NO_ROADWORK
        codes[p >= self.t_high] = Code.ROADWORK
        decided = make_decisions(codes, p, _REASONS[result.status])
        reasons, stages = decided.reasons, len(self.plan.stages)
        if stages > 1:
            after = [f", after stage {s} of {stages}" for s in range(1, stages + 1)]
            reasons = [r + after[s - 1] for r, s in zip(reasons, stop.tolist(), strict=True)]
        return replace(decided, reasons=reasons, stage=stop, cost=self.plan.cost(stop, self.active))

    def parameters(self) -> dict[str, Any]:
        """The plan, the chosen point, the result of each point, the settings, and the coverage."""
        if not self.results:
            raise ValueError("the policy has no thresholds yet; call fit first")
        return {
            "plan": self.plan.to_dict(),
            "active": self.active,
            "budget": self.budget,
            "t_high": self.t_high,
            "results": [r.to_dict() for r in self.results],
            "n": self.n,
            **self._coverage_parameters(),
        }

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError on missing, unknown or contradictory values."""
        policy = rebuild(
            cls,
            parameters,
            numbers=("target_fnr", "delta", "min_coverage"),
            words=("if_not_certifiable", "unit"),
        )
        policy.plan = Plan.from_dict(parameters.get("plan"))
        policy.budget = read_float(parameters, "budget", low=0.0, high=float(len(policy.plan.order)))
        try:
            policy.active = policy.plan.point_within(policy.budget)
        except ConfigError as error:
            raise BundleError(f"the stored policy is impossible: {error.what}") from error
        policy.t_high = read_float(parameters, "t_high", low=0.0, high=1.0)
        policy.n = read_count(parameters.get("n"), "n", 10**9)
        policy.results = read_tested(
            parameters.get("results"),
            points=len(policy.plan.points),
            n=policy.n,
            most_t_low=policy.t_high,
            target_fnr=policy.target_fnr,
        )
        require_same_keys(policy, parameters)
        if type(parameters["active"]) is not int or parameters["active"] != policy.active:
            raise BundleError("the stored policy contradicts itself about its operating point")
        policy._read_coverage(parameters)
        return policy


_REASONS: Mapping[PointStatus, Mapping[Code, str]] = {
    "certified": {
        Code.NO_ROADWORK: "below the certified threshold of the cascade",
        Code.ROADWORK: "at or above the decision threshold",
        Code.ABSTAIN: "abstained: between the two thresholds",
    },
    "uncertified": {
        Code.NO_ROADWORK: "uncertified: below the threshold",
        Code.ROADWORK: "uncertified: at or above the decision threshold",
        Code.ABSTAIN: "abstained: between the two thresholds",
    },
    "withheld": {
        Code.NO_ROADWORK: "",
        Code.ROADWORK: "at or above the decision threshold",
        Code.ABSTAIN: "abstained: the error rate of a decision here could not be certified",
    },
}
