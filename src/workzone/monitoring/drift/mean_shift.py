"""Shift of the mean embedding."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from workzone.monitoring.drift.base import DriftTest, Kind, Result, memberships, permutation_p, subsample

MOST_ROWS = 2000
PERMUTATIONS = 300


class MeanShift(DriftTest):
    """Distance of the two mean vectors in pooled standard deviations, root mean square over dimensions, permuted."""

    name: ClassVar[str] = "mean_shift"
    kind: ClassVar[Kind] = "vectors"
    title: ClassVar[str] = "shift of the mean"
    source: ClassVar[str] = "permutation test, Pitman 1937"

    def _compare(self, reference: NDArray[Any], new: NDArray[Any], rng: np.random.Generator) -> Result:
        a, b = subsample(reference, MOST_ROWS, rng), subsample(new, MOST_ROWS, rng)
        m, n = len(a), len(b)
        z = np.concatenate([a, b])
        z = z - z.mean(axis=0)
        spread = z.std(axis=0)
        varied = spread > 1e-12 * max(1.0, float(np.abs(np.concatenate([a, b])).max()))
        if not varied.any():
            return Result(0.0, 1.0, m, n)
        z = z[:, varied] / spread[varied]
        inside = memberships(m, n, PERMUTATIONS, rng).astype(np.float64)
        # The pooled mean is 0, so the mean of one part gives that of the other.
        first = z.T @ inside / m
        values = np.sqrt(((first * (1 + m / n)) ** 2).mean(axis=0))
        return Result(float(values[0]), permutation_p(float(values[0]), values[1:]), m, n)
