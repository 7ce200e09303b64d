"""What abstaining by a score is worth: curves of risk and coverage as numbers, for the probability and for the policy's
own score.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from workzone.decisions.policies.base import Policy
from workzone.decisions.policies.gate import GatePolicy
from workzone.decisions.policies.scrc import SelectivePolicy
from workzone.decisions.uncertainty import from_views
from workzone.decisions.uncertainty.names import CERTAINTY
from workzone.evaluation.figures import Draws, Part, label_figures
from workzone.metrics import METRICS, Interval
from workzone.predictions import FloatArray, StrArray

SELECTIVE_FIGURES = tuple(name for name, metric in METRICS.items() if metric.kind == "selective")


def policy_confidence(
    policy: Policy, probability: FloatArray, view_log_odds: FloatArray | None
) -> tuple[str, FloatArray] | None:
    """Name and values (N,) of the score that the policy abstains by, higher for images it trusts more.

    None where that is the probability itself, so that there is nothing to compare.
    """
    if not policy.needs or view_log_odds is None:
        return None
    measures = from_views(probability, view_log_odds)
    if isinstance(policy, GatePolicy) and policy.model is not None:
        columns = np.column_stack([measures[name] for name in policy.model.names])
        return "predicted probability of a mistake", 1.0 - policy.model(columns)
    if isinstance(policy, SelectivePolicy):
        values = measures[policy.select_by]
        return policy.select_by.replace("_", " "), values if policy.select_by in CERTAINTY else -values
    return None


def as_probability(confidence: FloatArray) -> FloatArray:
    """(N,) numbers in [0.5, 1] in the order of ``confidence`` (N,), ties kept.

    Metrics read the confidence as max(p, 1 - p): with the label 1 everywhere and "right" as the decision, these stand
    for any score.
    """
    _, rank = np.unique(confidence, return_inverse=True)
    return np.asarray(0.5 + 0.5 * (rank + 1) / (rank.max(initial=0) + 1), dtype=np.float64)


def score_figures(
    right: NDArray[np.bool_], confidence: FloatArray, groups: StrArray, draws: Draws, *, prevalence: float
) -> dict[str, Interval]:
    """Selective figures with intervals of answers that are ``right`` (N,) or not, trusted by ``confidence`` (N,)."""
    part = Part(np.ones(len(right), dtype=np.int64), as_probability(confidence), right.astype(np.int8), groups)
    found = label_figures(part, draws, SELECTIVE_FIGURES, decided=right.astype(np.int64))
    return {name: replace(value, prevalence=prevalence) for name, value in found.items()}
