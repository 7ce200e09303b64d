"""Regularised adaptive prediction sets (Angelopoulos, Bates, Malik, Jordan 2021, arXiv 2009.14193)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from workzone.decisions.conformal.aps import Aps, ranks
from workzone.errors import ConfigError
from workzone.predictions import FloatArray


class Raps(Aps):
    """APS with a penalty ``lam * max(0, rank - k_reg)`` on unlikely labels, which keeps sets of many classes small.

    Args:
        alpha: share of images whose set may lack the true label.
        k_reg: labels without penalty; must be below the number of classes, or the penalty is always zero.
        lam: penalty per rank.
    """

    name: ClassVar[str] = "raps"

    def __init__(self, alpha: float = 0.1, k_reg: int = 1, lam: float = 0.01) -> None:
        super().__init__(alpha)
        if k_reg < 0 or lam < 0 or not np.isfinite(lam):
            raise ConfigError("k_reg and lam must not be negative", where="conformal 'raps'")
        self.k_reg = k_reg
        self.lam = lam

    def check(self, classes: int) -> None:
        """Raise ConfigError where no label can be penalised."""
        if self.k_reg >= classes:
            raise ConfigError(
                f"with k_reg {self.k_reg} and {classes} classes no rank exceeds k_reg, so the penalty is always zero",
                where="conformal 'raps'",
                fix=f"use k_reg < {classes}, or APS",
            )

    def scores(self, probability: FloatArray, u: FloatArray | None = None) -> FloatArray:
        """Score of APS plus penalty (N, K)."""
        _, rank = ranks(probability)
        penalty = self.lam * np.maximum(0, rank - self.k_reg)
        return np.asarray(super().scores(probability, u) + penalty, dtype=np.float64)
