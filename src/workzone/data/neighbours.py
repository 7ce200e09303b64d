"""Pairs of images whose embeddings point the same way."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

EXACT_UP_TO = 30_000
_BLOCK = 2048
_PROBES = 3


def cosine_pairs(
    embeddings: NDArray[np.floating], similarity: float, *, exact_up_to: int = EXACT_UP_TO, seed: int = 0
) -> Iterator[tuple[int, int]]:
    """Yield pairs ``(i, j)`` with ``i < j`` whose cosine is ``similarity`` or more; a pair may come twice.

    Up to ``exact_up_to`` rows all pairs are compared. Beyond, rows are compared within cells around random rows, each
    row in the three nearest cells (an inverted file: Jegou, Douze, Schmid 2011); a few pairs near the threshold can be
    missed.

    Args:
        embeddings: (N, D); rows of zeros or with NaN have no neighbours.
        similarity: smallest cosine, more than 0 and at most 1.
        exact_up_to: number of rows up to which nothing is left to chance.
        seed: of the choice of cells.

    Raises:
        ValueError: ``similarity`` is out of range.
    """
    if not 0 < similarity <= 1:
        raise ValueError("similarity must be more than 0 and at most 1")
    values = np.asarray(embeddings, dtype=np.float32)
    length = np.linalg.norm(values, axis=1)
    rows = np.flatnonzero(np.isfinite(length) & (length > 0))
    unit = values[rows] / length[rows, None]
    # Rounding puts the cosine of equal rows a little below 1.
    limit = similarity - 1e-6
    if len(rows) <= exact_up_to:
        for i, j in _within(unit, np.arange(len(rows)), limit):
            yield int(rows[i]), int(rows[j])
        return
    centres = unit[np.random.default_rng(seed).choice(len(rows), round(len(rows) ** 0.5), replace=False)]
    nearest = np.empty((len(rows), _PROBES), dtype=np.int64)
    for at in range(0, len(rows), _BLOCK):
        closeness = unit[at : at + _BLOCK] @ centres.T
        nearest[at : at + _BLOCK] = np.argpartition(-closeness, _PROBES - 1, axis=1)[:, :_PROBES]
    order = np.argsort(nearest.ravel(), kind="stable")
    starts = np.searchsorted(nearest.ravel()[order], np.arange(len(centres) + 1))
    for low, high in pairwise(starts.tolist()):
        for i, j in _within(unit, np.sort(order[low:high] // _PROBES), limit):
            yield int(rows[i]), int(rows[j])


def _within(unit: NDArray[np.float32], members: NDArray[np.int64], limit: float) -> Iterator[tuple[int, int]]:
    for a in range(0, len(members), _BLOCK):
        left = unit[members[a : a + _BLOCK]]
        for b in range(a, len(members), _BLOCK):
            close = np.argwhere(left @ unit[members[b : b + _BLOCK]].T >= limit)
            for i, j in close[close[:, 0] + a < close[:, 1] + b].tolist():
                yield int(members[a + i]), int(members[b + j])
