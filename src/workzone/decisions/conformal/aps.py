"""Adaptive prediction sets (Romano, Sesia, Candes 2020, arXiv 2006.02544)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from workzone.decisions.conformal.base import ConformalSets, as_classes
from workzone.predictions import FloatArray, IntArray


class Aps(ConformalSets):
    """Labels in falling order of probability until their sum reaches the limit.

    Score of a label: the probability of the labels ranked before it, plus ``u`` times its own. Without ``u`` (None)
    the own probability counts fully and the label that crosses the limit is included: nothing is random, no set is
    empty, and coverage is at least ``1 - alpha``, usually more. With ``u`` (uniform, drawn by the caller anew for each
    image) coverage is exact but the sets of one image differ from call to call. Sets are larger than those of LAC on
    average; they adapt to the difficulty of an image.
    """

    name: ClassVar[str] = "aps"

    def scores(self, probability: FloatArray, u: FloatArray | None = None) -> FloatArray:
        """Cumulative probability (N, K), ties in the order of the classes."""
        order, _ = ranks(probability)
        falling = np.take_along_axis(probability, order, axis=1)
        own = falling if u is None else falling * np.asarray(u, dtype=np.float64)[:, None]
        found = np.empty_like(probability)
        np.put_along_axis(found, order, np.cumsum(falling, axis=1) - falling + own, axis=1)
        # Sums of all probabilities differ from 1 by rounding, which would decide whether the last label is in.
        return np.minimum(np.round(found, 12), 1.0)

    def __call__(self, probability: FloatArray, u: FloatArray | None = None) -> NDArray[np.bool_]:
        """Sets (N, K) of booleans; never empty without ``u``."""
        inside = super().__call__(probability, u)
        if u is not None or self.limits is None:
            return inside
        p = as_classes(probability)
        order, _ = ranks(p)
        score = np.take_along_axis(self.scores(p), order, axis=1)
        before = np.column_stack([np.full(len(p), -np.inf), score[:, :-1]])
        reached = np.empty_like(inside)
        np.put_along_axis(reached, order, before < self.limits[order], axis=1)
        return np.asarray(inside | reached)


def ranks(probability: FloatArray) -> tuple[IntArray, IntArray]:
    """Labels in falling order of probability (N, K), and the rank of each label (N, K), 1 for the most probable."""
    order = np.argsort(-probability, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(1, probability.shape[1] + 1)[None, :].repeat(len(order), axis=0), axis=1)
    return order, rank
