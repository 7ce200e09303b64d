"""Learn-then-Test: several risks certified at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from workzone.data.roles import CalibData
from workzone.decisions.certificate import Guarantee
from workzone.decisions.policies.base import (
    IfNotCertifiable,
    best_threshold,
    check_rates,
    check_word,
    fit_inputs,
    rebuild,
    stop_if_refused,
)
from workzone.decisions.policies.exits import Exit
from workzone.decisions.policies.scrc import halves
from workzone.decisions.policies.threshold import ThresholdPolicy
from workzone.predictions import FloatArray, IntArray, sigmoid

Family = Literal["fixed_sequence", "holm", "bonferroni"]
LEVELS: FloatArray = sigmoid(np.linspace(-6.0, 6.0, 49))
"""Candidate thresholds of the fixed sequence; of Holm and Bonferroni, which pay for each pair, every second one."""
LEVELS.setflags(write=False)


class LearnThenTestPolicy(ThresholdPolicy):
    """Two exit thresholds that keep limits on missed roadwork, false alarms and abstention all at once.

    Each pair t_low <= t_high of a grid fixed beforehand is a hypothesis "one of the risks exceeds its limit"; its
    p-value is the largest of the exact binomial p-values of the risks, so no risk needs a share of ``delta``. Rejected
    pairs are certified, and of these the one with the fewest abstentions, then errors, is used.

    Promise, with confidence ``1 - delta`` for all risks together: the false-negative rate is at most ``target_fnr``,
    the false-positive rate at most ``target_fpr``, the share of abstentions at most ``max_abstention``; None is no
    promise.

    ``family`` keeps the error over all pairs at ``delta``: "fixed_sequence" orders the pairs on half A by their
    p-values and tests on half B in that order until the first failure, at full ``delta`` each; "holm" and "bonferroni"
    test every pair on all images and pay for the number of pairs. Source: Angelopoulos, Bates, Candes, Jordan, Lei 2021
    (arXiv 2110.01052); split fixed sequence: ibid., section 3.

    Args:
        target_fnr: see above.
        target_fpr: see above.
        max_abstention: see above.
        delta: probability that any of the promises fails.
        family: see above.
        min_coverage: as ``ThresholdPolicy``.
        if_not_certifiable: as ``ThresholdPolicy``; as the risks are proved together, they fail together.
    """

    name: ClassVar[str] = "ltt"

    def __init__(
        self,
        *,
        target_fnr: float = 0.02,
        target_fpr: float | None = None,
        max_abstention: float | None = None,
        delta: float = 0.05,
        family: Family = "fixed_sequence",
        min_coverage: float = 0.70,
        if_not_certifiable: IfNotCertifiable = "uncertified",
    ) -> None:
        super().__init__(
            target_fnr=target_fnr,
            target_fpr=target_fpr,
            delta=delta,
            min_coverage=min_coverage,
            if_not_certifiable=if_not_certifiable,
        )
        check_rates(self.name, max_abstention=max_abstention)
        check_word(self.name, "family", family, get_args(Family))
        self.max_abstention = max_abstention
        self.family = family

    def fit(
        self, data: CalibData, probability: FloatArray, uncertainty: Mapping[str, FloatArray] | None = None
    ) -> Self:
        """Find and certify the thresholds.

        Raises:
            LeakageError: ``data`` is anything but ``CalibData``.
            DataError: a probability is NaN or outside [0, 1], or only one class is present.
            CheckFailedError: the promises cannot be given and ``if_not_certifiable`` is "stop".
        """
        calib, p = fit_inputs(data, probability, policy=self.name)
        mcc_threshold = best_threshold(calib, p)
        limits = [self.target_fnr, self.target_fpr, self.max_abstention]
        grid = LEVELS if self.family == "fixed_sequence" else LEVELS[::2]
        low, high = (i for i in np.triu_indices(len(grid)))
        if self.family == "fixed_sequence":
            first = halves(calib)
            order = np.argsort(joint_p(*counts(calib.labels[first], p[first], grid, low, high), limits), kind="stable")
            tested = counts(calib.labels[~first], p[~first], grid, low, high)
            failed = np.flatnonzero(joint_p(*tested, limits)[order] > self.delta)
            passed = order[: int(failed[0])] if len(failed) else order
        else:
            tested = counts(calib.labels, p, grid, low, high)
            passed = reject(joint_p(*tested, limits), self.delta, self.family)
        errors, n = tested
        nearest = int(passed[0]) if len(passed) else int(np.argmin(joint_p(errors, n, limits)))
        if len(passed):
            # Fewest abstentions, then fewest errors, then the lowest pair.
            nearest = int(passed[np.lexsort((passed, errors[0, passed] + errors[1, passed], errors[2, passed]))[0]])
        self.guarantees = self._promises(errors[:, nearest], n, limits, certified=bool(len(passed)), pairs=len(low))
        stop_if_refused(self.name, self.guarantees, self.if_not_certifiable)
        if len(passed):
            self.low = Exit("certified", float(grid[low[nearest]]))
            # Without a limit on false alarms nothing is promised about the upper threshold.
            self.high = Exit("certified" if self.target_fpr is not None else "none", float(grid[high[nearest]]))
        elif self.if_not_certifiable == "abstain":
            self.low = self.high = Exit("withheld", None)
        else:
            self.low = self.high = Exit("uncertified", mcc_threshold)
        self._measure_coverage(p)
        return self

    def _promises(
        self, errors: IntArray, n: IntArray, limits: list[float | None], *, certified: bool, pairs: int
    ) -> tuple[Guarantee, ...]:
        from workzone.metrics.proportions import clopper_pearson_upper, n_needed_for  # not on the predict path

        names = ("false_negative_rate", "false_positive_rate", "abstention")
        level = self.delta if self.family == "fixed_sequence" else self.delta / pairs
        found = []
        for risk, limit, k, of in zip(names, limits, errors.tolist(), n.tolist(), strict=True):
            if limit is None:
                continue
            promise = Guarantee(
                risk=risk,
                status="certified" if certified else "not_certifiable",
                alpha=limit,
                delta=self.delta,
                method=f"Learn-then-Test over {pairs} pairs, {self.family.replace('_', ' ')}, all risks together",
                n=of,
                errors=k,
                bound=float(clopper_pearson_upper(k, of, self.delta)) if of else 1.0,
            )
            if not certified and of and joint_p(np.array([[k]]), np.array([of]), [limit])[0] <= level:
                reason = (
                    f"No pair of thresholds keeps all limits at once; this one alone passes, with {k} errors in {of}."
                )
                promise = promise.model_copy(update={"reason": reason})
            elif not certified:
                clean, needed = n_needed_for(0, limit, level), n_needed_for(k, limit, level)
                reason = (
                    f"No pair of thresholds keeps all limits at once; at the nearest one this risk has {k} errors in "
                    f"{of}, and {clean} without an error, or {needed} with as many, are needed."
                )
                promise = promise.model_copy(
                    update={"needed": needed, "needed_without_errors": clean, "reason": reason}
                )
            found.append(promise)
        return tuple(found)

    def parameters(self) -> dict[str, Any]:
        """As ``ThresholdPolicy``, with the further settings."""
        stored = {key: value for key, value in super().parameters().items() if key != "unit"}
        return {**stored, "max_abstention": self.max_abstention, "family": self.family}

    @classmethod
    def _with_settings(cls, parameters: Mapping[str, Any]) -> Self:
        return rebuild(
            cls,
            parameters,
            numbers=("target_fnr", "delta", "min_coverage"),
            optional=("target_fpr", "max_abstention"),
            words=("if_not_certifiable", "family"),
        )


def counts(
    labels: IntArray, probability: FloatArray, grid: FloatArray, low: IntArray, high: IntArray
) -> tuple[IntArray, IntArray]:
    """Errors (3, M) of the pairs (``grid[low]``, ``grid[high]``) and units (3,): misses, false alarms, abstentions."""
    roadwork, other = np.sort(probability[labels == 1]), np.sort(probability[labels == 0])
    lost, kept = (np.searchsorted(scores, grid, side="left") for scores in (roadwork, other))
    below = lost + kept
    errors = np.stack([lost[low], len(other) - kept[high], below[high] - below[low]])
    return errors, np.array([len(roadwork), len(other), len(labels)])


def joint_p(errors: IntArray, n: IntArray, limits: list[float | None]) -> FloatArray:
    """p-value (M,) of "some risk exceeds its limit": the largest exact binomial one."""
    from scipy.special import bdtr

    parts = [bdtr(errors[j], int(n[j]), limit) for j, limit in enumerate(limits) if limit is not None]
    return np.asarray(np.max(parts, axis=0), dtype=np.float64)


def reject(p: FloatArray, delta: float, family: Family) -> NDArray[np.int64]:
    """Indices of the hypotheses rejected at family-wise error ``delta``."""
    m = len(p)
    if family == "bonferroni":
        return np.flatnonzero(p <= delta / m)
    order = np.argsort(p, kind="stable")
    failed = np.flatnonzero(p[order] > delta / (m - np.arange(m)))
    return np.asarray(order[: int(failed[0])] if len(failed) else order, dtype=np.int64)
