"""One exit of the threshold policy: the search for its threshold and the promise that comes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from workzone.data.roles import CalibData
from workzone.decisions.certificate import Guarantee, Unit
from workzone.decisions.risk import GRID, Side, certify_threshold, tightest_alpha
from workzone.predictions import FloatArray

ExitStatus = Literal["certified", "uncertified", "withheld", "none"]
METHOD = "Clopper-Pearson, fixed sequence"


@dataclass(frozen=True, slots=True)
class Exit:
    """One threshold of the policy: certified, uncertified, withheld (the answer is never given), or without promise."""

    status: ExitStatus
    threshold: float | None


def unit_scores(data: CalibData, probability: FloatArray, *, label: int, unit: Unit) -> FloatArray:
    """Scores of the images with ``label``, or one per group that has any: the score nearest to an error."""
    chosen = data.labels == label
    p: FloatArray = probability[chosen]
    if unit == "image":
        return p
    names, inverse = np.unique(data.groups[chosen], return_inverse=True)
    worst = np.full(len(names), np.inf if label == 1 else -np.inf)
    (np.minimum if label == 1 else np.maximum).at(worst, inverse, p)
    return worst


def search_exit(
    which: Literal["low", "high"], data: CalibData, probability: FloatArray, alpha: float, delta: float, unit: Unit
) -> tuple[Exit, Guarantee]:
    """Certify the lower exit on the positives or the upper one on the negatives.

    Where not even the safest threshold passes, the exit has status "uncertified" and no threshold.
    """
    from workzone.metrics.proportions import n_needed_for  # the predict path imports this module

    side: Side = "below" if which == "low" else "above"
    scores = unit_scores(data, probability, label=1 if which == "low" else 0, unit=unit)
    found = certify_threshold(scores, GRID, alpha, delta, side=side)
    promise = Guarantee(
        risk="false_negative_rate" if which == "low" else "false_positive_rate",
        status="not_certifiable" if found.threshold is None else "certified",
        alpha=alpha,
        delta=delta,
        method=METHOD,
        unit=unit,
        n=found.n,
        errors=found.errors,
        bound=found.bound,
    )
    if found.threshold is not None:
        return Exit("certified", found.threshold), promise
    things = f"{'roadwork' if which == 'low' else 'no_roadwork'} {unit}s"
    clean, needed = int(n_needed_for(0, alpha, delta)), int(n_needed_for(found.errors, alpha, delta))
    tightest = tightest_alpha(found.n, delta)
    seen = f"{found.errors} error{'s' if found.errors > 1 else ''}"
    at_best = f", or {needed} with the {seen} seen at the safest threshold" if found.errors else ""
    reason = (
        f"There are {found.n} {things} to certify on and at least {clean} without an error are needed{at_best}; "
        f"without an error {found.n} could certify {tightest:.2%} at best."
    )
    return Exit("uncertified", None), promise.model_copy(
        update={"needed": needed, "needed_without_errors": clean, "tightest": tightest, "reason": reason}
    )


def count_errors(promise: Guarantee, threshold: float | None, data: CalibData, probability: FloatArray) -> Guarantee:
    """``promise`` with the errors, and their bound, at the threshold that is used in the end."""
    from workzone.metrics.proportions import clopper_pearson_upper  # the predict path imports this module

    if promise.status != "certified" or threshold is None:
        return promise
    positive = promise.risk == "false_negative_rate"
    scores = unit_scores(data, probability, label=1 if positive else 0, unit=promise.unit)
    errors = int((scores < threshold).sum() if positive else (scores >= threshold).sum())
    if promise.kind == "expectation":
        bound = (errors + 1) / (len(scores) + 1)
    else:
        bound = float(clopper_pearson_upper(errors, len(scores), promise.delta))
    return promise.model_copy(update={"errors": errors, "bound": bound})


def best_between(data: CalibData, probability: FloatArray, low: float, high: float) -> float:
    """Threshold in ``[low, high]`` (the ends and the grid) with the highest MCC on ``data``; the lowest of equals."""
    grid = np.unique(np.r_[low, GRID[(low <= GRID) & (high >= GRID)], high])
    missed = np.searchsorted(np.sort(probability[data.labels == 1]), grid, side="left").astype(np.float64)
    cleared = np.searchsorted(np.sort(probability[data.labels == 0]), grid, side="left").astype(np.float64)
    positives = float(data.n_positive)
    negatives = len(data) - positives
    caught, raised = positives - missed, negatives - cleared
    margin = (caught + raised) * (missed + cleared) * positives * negatives
    mcc = (caught * cleared - raised * missed) / np.sqrt(np.where(margin > 0, margin, 1.0))
    return float(grid[int(np.argmax(mcc))])
