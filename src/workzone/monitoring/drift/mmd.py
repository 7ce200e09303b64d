"""Maximum mean discrepancy of embeddings."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from workzone.monitoring.drift.base import (
    DriftTest,
    Kind,
    Result,
    memberships,
    permutation_p,
    reduced,
    subsample,
)

MOST_ROWS = 500
"""Of each sample: the kernel is a matrix of all pairs."""
DIMENSIONS = 64
PERMUTATIONS = 300


class Mmd(DriftTest):
    """Unbiased squared MMD with a Gaussian kernel of median bandwidth and a permutation p-value.

    Gretton et al. 2012 (JMLR 13). At most 500 rows of each sample, along 64 principal axes of both together.
    """

    name: ClassVar[str] = "mmd"
    kind: ClassVar[Kind] = "vectors"
    title: ClassVar[str] = "maximum mean discrepancy"
    source: ClassVar[str] = "Gretton et al. 2012"

    def _compare(self, reference: NDArray[Any], new: NDArray[Any], rng: np.random.Generator) -> Result:
        a, b = subsample(reference, MOST_ROWS, rng), subsample(new, MOST_ROWS, rng)
        m, n = len(a), len(b)
        z = reduced(np.concatenate([a, b]), DIMENSIONS)
        square = (z**2).sum(axis=1)
        distance = np.maximum(square[:, None] + square[None] - 2 * z @ z.T, 0.0)
        apart = distance[np.triu_indices(m + n, 1)]
        spread = float(np.median(apart[apart > 1e-12])) if (apart > 1e-12).any() else 1.0
        kernel = np.exp(-distance / spread)
        np.fill_diagonal(kernel, 0.0)
        inside = memberships(m, n, PERMUTATIONS, rng).astype(np.float64)
        rows = kernel @ inside
        within = (inside * rows).sum(axis=0)
        between = rows.sum(axis=0) - within
        other = kernel.sum() - within - 2 * between
        values = within / (m * (m - 1)) + other / (n * (n - 1)) - 2 * between / (m * n)
        return Result(float(values[0]), permutation_p(float(values[0]), values[1:]), m, n)
