"""Selection with guaranteed risk: how many images can be answered when at most r of the answers may be wrong.

Geifman, El-Yaniv 2017 (Selective Classification for Deep Neural Networks, arXiv 1705.08500).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from workzone.predictions import FloatArray

EVERYTHING = 1.0
"""Cut that accepts every image; doubt is below it by construction."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Result of ``guaranteed_selection``.

    Attributes:
        cut: images with doubt strictly below are answered; None where nothing could be proved.
        n: images answered at ``cut``, or at the smallest bound seen.
        errors: wrong ones among them.
        bound: Clopper-Pearson upper bound of the selective risk at ``delta_each``.
        delta_each: delta divided by the steps of the search.
    """

    cut: float | None
    n: int
    errors: int
    bound: float
    delta_each: float


def guaranteed_selection(doubt: FloatArray, wrong: NDArray[np.bool_], risk: float, delta: float) -> Selection:
    """Largest selection by ``doubt`` whose selective risk is proven to be at most ``risk``.

    Binary search over the number of images answered. Each of the at most ``ceil(log2(n + 1))`` steps compares an exact
    binomial bound at delta over steps with ``risk``; a pass makes the search bolder. Answered are images strictly below
    the cut, so that the image that defines it is not counted: those below are independent draws given the cut. The
    union bound counts the steps as if their cuts were fixed beforehand; which cut a step tests depends on the steps
    before, but where the risk rises with doubt a cut above the limit is first met on the one path that right answers
    would have taken.

    Args:
        doubt: (N,) below 1, higher for images less to be trusted.
        wrong: (N,) whether the answer would be wrong.
        risk: promised upper limit of the share of wrong among answered images.
        delta: probability that the promise fails.

    Raises:
        ValueError: ``risk`` or ``delta`` outside (0, 1), or a doubt of 1 or more.
    """
    from workzone.metrics.proportions import clopper_pearson_upper  # the predict path imports this module

    if not 0.0 < risk < 1.0 or not 0.0 < delta < 1.0:
        raise ValueError("risk and delta must lie strictly between 0 and 1")
    order = np.argsort(doubt, kind="stable")
    rising = doubt[order]
    m = len(rising)
    if m and not rising[-1] < EVERYTHING:
        raise ValueError("doubt must be below 1")
    each = delta / max(ceil(log2(m + 1)), 1)
    errors_upto = np.r_[0, np.cumsum(wrong[order])]
    best = Selection(None, 0, 0, 1.0, each)
    nearest = best
    low, high = 1, m
    while low <= high:
        j = (low + high + 1) // 2
        cut = float(rising[j]) if j < m else EVERYTHING
        n = int(np.searchsorted(rising, cut, side="left"))
        k = int(errors_upto[n])
        tested = Selection(cut, n, k, float(clopper_pearson_upper(k, n, each)) if n else 1.0, each)
        if tested.bound <= risk:
            best, low = tested, j + 1
        else:
            high = j - 1
            nearest = min(nearest, tested, key=lambda s: s.bound)
    if best.cut is not None:
        return best
    return Selection(None, nearest.n, nearest.errors, nearest.bound, each)
