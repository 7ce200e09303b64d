"""The quantile that every conformal method rests on, with its finite-sample correction."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import numpy as np

from workzone.predictions import FloatArray


def conformal_rank(n: int, alpha: float) -> int:
    """``ceil((n + 1)(1 - alpha))``, with ``alpha`` read as the decimal that is written; above ``n``: too few."""
    if not 0.0 < alpha < 1.0:
        raise ValueError("alpha must lie strictly between 0 and 1")
    # In floats 100 * (1 - 0.29) is not 71, which would cost a rank.
    return ceil((n + 1) * (1 - Fraction(repr(float(alpha)))))


def conformal_quantile(scores: FloatArray, alpha: float) -> float:
    """The ``conformal_rank``-th smallest of ``scores`` (N,), infinite where there are too few.

    If a new score is exchangeable with ``scores``, it lies above this value with probability at most ``alpha``, and,
    where scores have no ties, at least ``alpha - 1/(n + 1)``. Both are averages over draws of ``scores``. The plain
    ``1 - alpha`` quantile does not have the first property. (Vovk, Gammerman, Shafer 2005.)
    """
    if np.isnan(scores).any():
        raise ValueError("scores must not hold NaN")
    n = len(scores)
    rank = conformal_rank(n, alpha)
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= n else float("inf")


def n_needed(alpha: float) -> int:
    """Fewest scores with a finite ``conformal_quantile``: the first n >= 1/alpha - 1."""
    return ceil(1 / Fraction(repr(float(alpha)))) - 1
