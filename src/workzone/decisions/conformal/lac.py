"""Least ambiguous sets (Sadinle, Lei, Wasserman 2019, arXiv 1609.00451; split conformal: Papadopoulos et al. 2002)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from workzone.decisions.conformal.base import ConformalSets
from workzone.predictions import FloatArray


class Lac(ConformalSets):
    """Score ``1 - p_k``: the smallest sets on average; may be empty where no label is likely enough."""

    name: ClassVar[str] = "lac"

    def scores(self, probability: FloatArray, u: FloatArray | None = None) -> FloatArray:
        """``1 - p`` (N, K)."""
        return np.asarray(1.0 - probability, dtype=np.float64)
