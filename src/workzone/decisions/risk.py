"""Thresholds with a proven error rate: fixed-sequence testing with exact binomial bounds.

Angelopoulos, Bates, Candes, Jordan, Lei 2021 (Learn then Test, arXiv 2110.01052); bound: Clopper, Pearson 1934.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from workzone.predictions import FloatArray, sigmoid

Side = Literal["below", "above"]

GRID: FloatArray = sigmoid(np.linspace(-10.0, 10.0, 2001))
"""Candidate thresholds, 0.01 apart in log-odds from -10 to 10 (p from 4.5e-5 to 1 - 4.5e-5).

Fixed before any data are seen, as the proof requires, and finest near 0 and 1, where exit thresholds lie.
"""
GRID.setflags(write=False)


@dataclass(frozen=True, slots=True)
class Search:
    """Result of ``certify_threshold``.

    Attributes:
        threshold: the boldest threshold that is certified, or None where not even the safest one is.
        errors: errors at ``threshold``, or at the safest threshold where there is none.
        n: scores the search rests on.
        bound: Clopper-Pearson upper bound of the error rate for ``errors`` in ``n`` at ``delta``.
    """

    threshold: float | None
    errors: int
    n: int
    bound: float


def certify_threshold(
    scores: FloatArray, grid: FloatArray, alpha: float, delta: float, *, side: Side = "below"
) -> Search:
    """Boldest threshold of ``grid`` whose error rate is proven to be at most ``alpha``.

    An error is a score below the threshold (``side="below"``: a positive that is let go), or one at or above it
    (``side="above"``: a negative that is raised). With r(t) the error probability of a new score and t* the result:
    if the ``scores`` are independent draws of the distribution that new scores come from, and ``grid`` and the map
    that made the scores were fixed without them, then ``P(t* exists and r(t*) > alpha) <= delta`` over the draw of
    ``scores``. The promise holds for each call on its own; of two calls at ``delta`` both hold with probability
    ``1 - 2 delta`` or more.

    Why: candidates are tested from the safe end onwards, each by "upper bound at ``delta`` <= ``alpha``", and the
    search stops at the first failure. It can only go wrong by passing the first candidate with r(t) > alpha, which
    happens with probability at most ``delta``; so nothing is paid for testing many. Errors never fall along the
    sequence, hence the last passing candidate is found by one comparison of counts.

    Args:
        scores: (N,) of one class, in any order; no NaN.
        grid: (G,) strictly increasing thresholds.
        alpha: promised upper limit, in (0, 1).
        delta: probability that the promise fails, in (0, 1).
        side: on which side of the threshold the errors lie.
    """
    if not 0.0 < alpha < 1.0 or not 0.0 < delta < 1.0:
        raise ValueError("alpha and delta must lie strictly between 0 and 1")
    if len(grid) == 0 or not (np.diff(grid) > 0).all():
        raise ValueError("grid must be strictly increasing and not empty")
    if np.isnan(scores).any():
        raise ValueError("scores must not hold NaN")
    n = len(scores)
    below = np.searchsorted(np.sort(scores), grid, side="left")
    # From safe to bold: upwards where errors lie below the threshold, downwards where they lie above it.
    thresholds, errors = (grid, below) if side == "below" else (grid[::-1], n - below[::-1])
    passed = int(np.searchsorted(errors, allowed_errors(n, alpha, delta), side="right"))
    chosen = max(passed - 1, 0)
    count = int(errors[chosen])
    return Search(
        threshold=float(thresholds[chosen]) if passed else None,
        errors=count,
        n=n,
        bound=_clopper_pearson()(count, n, delta) if n else 1.0,
    )


@lru_cache(maxsize=4096)
def allowed_errors(n: int, alpha: float, delta: float) -> int:
    """Most errors in ``n`` whose upper bound at ``delta`` is at most ``alpha``; -1 where even none is too many."""
    bound = _clopper_pearson()
    if n == 0 or bound(0, n, delta) > alpha:
        return -1
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        if bound(middle, n, delta) <= alpha:
            low = middle
        else:
            high = middle
    return low


def tightest_alpha(n: int, delta: float) -> float:
    """Smallest error rate that ``n`` images without a single error would certify: ``1 - delta ** (1 / n)``."""
    return float(-np.expm1(np.log(delta) / n)) if n else 1.0


def _clopper_pearson() -> Callable[[int, int, float], float]:
    from workzone.metrics.proportions import clopper_pearson_upper  # the predict path imports this package

    def upper(errors: int, n: int, delta: float) -> float:
        return float(clopper_pearson_upper(errors, n, delta))

    return upper
