"""Kolmogorov-Smirnov test of two samples."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from workzone.monitoring.drift.base import DriftTest, Kind, Result


class Ks(DriftTest):
    """Largest gap of the two distribution functions (Kolmogorov 1933, Smirnov 1939); cautious where values tie."""

    name: ClassVar[str] = "ks"
    kind: ClassVar[Kind] = "scores"
    title: ClassVar[str] = "Kolmogorov-Smirnov"
    source: ClassVar[str] = "Smirnov 1939"

    def _compare(self, reference: NDArray[Any], new: NDArray[Any], rng: np.random.Generator) -> Result:
        from scipy.stats import ks_2samp

        exact = max(len(reference), len(new)) <= 1000
        found = ks_2samp(reference, new, method="exact" if exact else "asymp")
        return Result(float(found.statistic), float(min(1.0, found.pvalue)), len(reference), len(new))
