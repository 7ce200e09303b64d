"""In which order the views of an image are worth looking at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from workzone.predictions import FloatArray, IntArray


def greedy_order(
    score: Callable[[Sequence[int]], FloatArray], labels: IntArray, views: int, *, first: int | None = None
) -> tuple[int, ...]:
    """Order of ``views`` views: the whole picture first, then always the one that lowers the log-loss most.

    It takes about ``first * views`` scores of all images.

    Args:
        score: log-odds (N,) of labelled images seen through some of their views only.
        labels: (N,) 0 or 1.
        views: number of views V; view 0 is the whole picture.
        first: how many are ordered so, None for all; the others follow by number.

    Returns:
        A permutation of range(V) that starts with 0; of equal views the one with the lower number comes first.
    """
    if views < 1:
        raise ValueError("an image has at least one view")
    order, rest = [0], list(range(1, views))
    sign = np.where(np.asarray(labels) == 1, -1.0, 1.0)
    while len(rest) > 1 and (first is None or len(order) < first):
        losses = [float(np.logaddexp(0.0, sign * score([*order, view])).mean()) for view in rest]
        order.append(rest.pop(int(np.argmin(losses))))
    return (*order, *rest)
