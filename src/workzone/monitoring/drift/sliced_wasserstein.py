"""Sliced Wasserstein distance of embeddings."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from workzone.monitoring.drift.base import DriftTest, Kind, Result, memberships, permutation_p, subsample

MOST_ROWS = 500
DIRECTIONS = 32
PERMUTATIONS = 199


class SlicedWasserstein(DriftTest):
    """Mean of the 1-Wasserstein distances along 32 random directions, with a permutation p-value.

    Rabin et al. 2011; Bonneel et al. 2015. At most 500 rows of each sample.
    """

    name: ClassVar[str] = "sliced_wasserstein"
    kind: ClassVar[Kind] = "vectors"
    title: ClassVar[str] = "sliced Wasserstein"
    source: ClassVar[str] = "Bonneel et al. 2015"

    def _compare(self, reference: NDArray[Any], new: NDArray[Any], rng: np.random.Generator) -> Result:
        a, b = subsample(reference, MOST_ROWS, rng), subsample(new, MOST_ROWS, rng)
        m, n = len(a), len(b)
        directions = rng.normal(size=(a.shape[1], DIRECTIONS))
        directions /= np.linalg.norm(directions, axis=0)
        along = np.concatenate([a, b]) @ directions
        steps = np.where(memberships(m, n, PERMUTATIONS, rng), 1 / m, -1 / n)
        values = np.zeros(PERMUTATIONS + 1)
        for d in range(DIRECTIONS):
            order = np.argsort(along[:, d], kind="stable")
            gaps = np.diff(along[order, d])
            # Between neighbours the distribution functions differ by the running sum of the signed weights.
            values += gaps @ np.abs(np.cumsum(steps[order], axis=0)[:-1])
        values /= DIRECTIONS
        return Result(float(values[0]), permutation_p(float(values[0]), values[1:]), m, n)
