"""Differences of error rates between the values of a column, tested against a threshold rather than read off.

A rule such as "at most 5 points apart" fires by chance where a value has few images: with 60 roadwork images the
standard error of a rate is 3 to 5 points. The verdict therefore asks whether the interval of the gap lies beyond the
threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from workzone.metrics.differences import Rates, rates
from workzone.metrics.sample import as_labels

Verdict = Literal["exceeds", "within", "cannot be told", "not defined"]
MEASURES = ("demographic_parity", "equal_opportunity", "equalised_odds")
_RATES = {
    "demographic_parity": ("selection",),
    "equal_opportunity": ("fnr",),
    "equalised_odds": ("fnr", "fpr"),
}
THRESHOLD = 0.05


@dataclass(frozen=True, slots=True)
class ValueRate:
    """One rate of one value of the column."""

    value: str
    rate: str
    share: float
    events: int
    n: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Largest difference of a rate between two values of a column.

    Attributes:
        measure: one of ``MEASURES``.
        value: largest difference, NaN where fewer than two values can be compared.
        low: the gap is at least this, with confidence ``level``; 0 where chance explains it.
        high: the gap is at most this, with confidence ``level``.
        level: for all pairs of values together (Bonferroni over pairs and rates).
        threshold: largest gap that is accepted.
        verdict: ``exceeds`` where ``low`` is above the threshold, ``within`` where ``high`` is not above it,
            else ``cannot be told``; ``not defined`` without two values.
        rate: rate in which the gap is largest: selection, fnr or fpr.
        worse: value with the higher rate.
        better: value with the lower rate.
        rates: every rate that was compared.
        left_out: values with fewer than the fewest images that the rate is a share of.
        compared: differences that were looked at.
    """

    measure: str
    value: float
    low: float
    high: float
    level: float
    threshold: float
    verdict: Verdict
    rate: str
    worse: str
    better: str
    rates: tuple[ValueRate, ...]
    left_out: tuple[str, ...]
    compared: int


def demographic_parity_difference(y: Any, decided: Any, values: Any, **options: Any) -> Gap:
    """Largest difference of P(answer roadwork) between values of a column; options as in ``fairness_gaps``.

    It should not vanish where roadwork itself is rarer at one value: judge by ``equal_opportunity_difference``.
    """
    return fairness_gaps(y, decided, values, measures=("demographic_parity",), **options)["demographic_parity"]


def equal_opportunity_difference(y: Any, decided: Any, values: Any, **options: Any) -> Gap:
    """Largest difference of the false-negative rate (Hardt et al. 2016, arXiv 1610.02413)."""
    return fairness_gaps(y, decided, values, measures=("equal_opportunity",), **options)["equal_opportunity"]


def equalised_odds_difference(y: Any, decided: Any, values: Any, **options: Any) -> Gap:
    """Largest difference of the false-negative or the false-positive rate (Hardt et al. 2016, arXiv 1610.02413)."""
    return fairness_gaps(y, decided, values, measures=("equalised_odds",), **options)["equalised_odds"]


def fairness_gaps(
    y: Any,
    decided: Any,
    values: Any,
    *,
    groups: Any = None,
    measures: tuple[str, ...] = MEASURES,
    threshold: float = THRESHOLD,
    level: float = 0.95,
    fewest: int = 5,
    n_resamples: int = 1000,
    seed: int = 42,
) -> dict[str, Gap]:
    """Gaps between the values of a column, each with its interval and verdict.

    Groups are drawn across all values at once, so a drive from day into night moves both rates. Standard errors are
    the bootstrap's, but never below those of independent shares with one event added to each side; ends are Student's
    t with the groups of the smaller value, Bonferroni-corrected over all pairs, so that the largest of many gaps is
    not called real for being the largest.

    Args:
        y: (N,) labels, 0 or 1.
        decided: (N,) decided labels, 0 or 1.
        values: (N,) value of the column for each image.
        groups: (N,) drive or place.
        measures: some of ``MEASURES``.
        threshold: largest accepted gap.
        level: confidence of the interval.
        fewest: a rate of fewer images is left out.
        n_resamples: B.
        seed: of the draws.

    Raises:
        ValueError: unequal lengths, values other than 0 and 1, an unknown measure, no images.
    """
    labels, answers = as_labels(y, "y"), as_labels(decided, "decided")
    column = np.asarray(values).astype(str)
    if not len(labels) == len(answers) == len(column):
        raise ValueError("y, decided and values must have the same length")
    if not 0 <= threshold < 1 or not 0 < level < 1:
        raise ValueError("threshold must lie in [0, 1), level strictly between 0 and 1")
    unknown = set(measures) - set(MEASURES)
    if unknown:
        raise ValueError(f"unknown measure {sorted(unknown)[0]!r}: {', '.join(MEASURES)}")
    names = np.unique(column).tolist()
    kinds = {
        "selection": (answers == 1, np.ones(len(labels), dtype=bool)),
        "fnr": (answers == 0, labels == 1),
        "fpr": (answers == 1, labels == 0),
    }
    of_value = column[:, None] == np.array(names)[None]
    events = np.concatenate([np.repeat(hit[:, None], len(names), axis=1) for hit, _ in kinds.values()], axis=1)
    among = np.concatenate([of_value & among[:, None] for _, among in kinds.values()], axis=1)
    found = rates(events, among, groups=groups, n_resamples=n_resamples, seed=seed)
    place = {(kind, name): k for k, (kind, name) in enumerate((kind, name) for kind in kinds for name in names)}
    return {m: _gap(m, names, place, found, threshold=threshold, level=level, fewest=fewest) for m in measures}


def _gap(
    measure: str,
    names: list[str],
    place: dict[tuple[str, str], int],
    found: Rates,
    *,
    threshold: float,
    level: float,
    fewest: int,
) -> Gap:
    kinds = _RATES[measure]
    able = {kind: [n for n in names if found.trials[place[kind, n]] >= max(fewest, 1)] for kind in kinds}
    kept = tuple(
        ValueRate(
            n,
            kind,
            float(found.value[place[kind, n]]),
            int(found.events[place[kind, n]]),
            int(found.trials[place[kind, n]]),
        )
        for kind in kinds
        for n in able[kind]
    )
    left_out = tuple(dict.fromkeys(n for kind in kinds for n in names if n not in able[kind]))
    pairs = [(kind, a, b) for kind in kinds for a, b in combinations(able[kind], 2)]
    # Each rate the measure speaks of needs a pair, or half of it would go unsaid.
    if any(len(able[kind]) < 2 for kind in kinds):
        nan = float("nan")
        return Gap(measure, nan, nan, nan, level, threshold, "not defined", "", "", "", kept, left_out, 0)
    tail = (1 - level) / 2 / len(pairs)
    largest, low, high = (-1.0, "", "", ""), 0.0, 0.0
    for kind, a, b in pairs:
        weights = np.zeros(len(found.value))
        weights[place[kind, a]], weights[place[kind, b]] = 1.0, -1.0
        value, left, right = found.interval(weights, tail)
        # One pair proves a gap of at least its nearer end; the largest gap is below the farthest end of all pairs.
        low, high = max(low, left, -right), max(high, -left, right)
        if abs(value) > largest[0]:
            largest = (abs(value), kind, *((a, b) if value > 0 else (b, a)))
    high = min(1.0, high)
    verdict: Verdict = "exceeds" if low > threshold else "within" if high <= threshold else "cannot be told"
    size, kind, worse, better = largest
    return Gap(measure, size, low, high, level, threshold, verdict, kind, worse, better, kept, left_out, len(pairs))
