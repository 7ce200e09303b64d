"""Chi-square test of homogeneity, for decisions."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from workzone.monitoring.drift.base import DriftTest, Kind, Result, permutation_p
from workzone.predictions import FloatArray

DRAWS = 1999
FEWEST_EXPECTED = 5.0


class ChiSquare(DriftTest):
    """Are the classes equally common in both samples? The statistic shown is Cramer's V.

    Where a cell is expected to hold fewer than five images the p-value is drawn from tables with the same margins
    (Patefield 1981), since the chi-square distribution is no guide there.
    """

    name: ClassVar[str] = "chi_square"
    kind: ClassVar[Kind] = "classes"
    title: ClassVar[str] = "chi-square"
    source: ClassVar[str] = "Pearson 1900"

    def _compare(self, reference: NDArray[Any], new: NDArray[Any], rng: np.random.Generator) -> Result:
        from scipy.stats import chi2

        classes = np.unique(np.concatenate([reference, new]))
        if len(classes) == 1:
            return Result(0.0, 1.0, len(reference), len(new))
        old = np.array([(reference == c).sum() for c in classes], dtype=np.float64)
        now = np.array([(new == c).sum() for c in classes], dtype=np.float64)
        total = old + now
        value = float(_statistic(now[None], total, len(new))[0])
        expected = total * min(len(reference), len(new)) / total.sum()
        if expected.min() >= FEWEST_EXPECTED:
            p = float(chi2.sf(value, len(classes) - 1))
        else:
            drawn = rng.multivariate_hypergeometric(total.astype(np.int64), len(new), size=DRAWS)
            p = permutation_p(value, _statistic(drawn.astype(np.float64), total, len(new)))
        return Result(float(np.sqrt(value / total.sum())), p, len(reference), len(new))


def _statistic(now: FloatArray, total: FloatArray, n_new: int) -> FloatArray:
    """Pearson's chi-square (B,) of tables whose second row is ``now`` (B, K)."""
    share = n_new / total.sum()
    gap = (now - share * total) ** 2
    return np.asarray((gap / (share * total) + gap / ((1 - share) * total)).sum(axis=1), dtype=np.float64)
