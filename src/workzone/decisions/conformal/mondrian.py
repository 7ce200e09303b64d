"""Class-conditional sets: a limit of its own for each label (Vovk 2012, arXiv 1209.2673)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from workzone.decisions.conformal.lac import Lac
from workzone.decisions.conformal.quantile import conformal_quantile
from workzone.errors import ConfigError
from workzone.predictions import FloatArray, IntArray


class Mondrian(Lac):
    """The scores of LAC with a limit per class: among images of class k the set holds k with probability 1 - alpha_k.

    Args:
        alpha: one number, or one per class.
    """

    name: ClassVar[str] = "mondrian"

    def __init__(self, alpha: float | Sequence[float] = 0.1) -> None:
        self.alphas = tuple(np.atleast_1d(np.asarray(alpha, dtype=np.float64)).tolist())
        for one in self.alphas:
            super().__init__(one)
        self.alpha = max(self.alphas)

    def check(self, classes: int) -> None:
        """Raise ConfigError unless there is one alpha, or one per class."""
        if len(self.alphas) not in (1, classes):
            raise ConfigError(f"{len(self.alphas)} values of alpha for {classes} classes", where="conformal 'mondrian'")

    def _limits(self, scores: FloatArray, labels: IntArray, classes: int) -> FloatArray:
        alphas = self.alphas if len(self.alphas) == classes else self.alphas * classes
        return np.array([conformal_quantile(scores[labels == k], alphas[k]) for k in range(classes)])
