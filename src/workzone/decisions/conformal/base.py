"""What every conformal classifier for K classes is: a nonconformity score per label, and a limit on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from workzone.decisions.conformal.quantile import conformal_quantile
from workzone.errors import ConfigError
from workzone.predictions import FloatArray, IntArray


class ConformalSets(ABC):
    """Prediction sets ``{k: score(x, k) <= limit_k}`` from class probabilities (N, K), K >= 2.

    The promise of every member: for images exchangeable with those given to ``fit``, the set holds the true label with
    probability at least ``1 - alpha`` in expectation over draws of these images. It holds whatever the probabilities
    are worth; poor ones give large sets.
    """

    name: ClassVar[str]

    def __init__(self, alpha: float = 0.1) -> None:
        if not 0.0 < alpha < 1.0:
            where = f"conformal {self.name!r}"
            raise ConfigError(f"alpha is {alpha}, but must lie strictly between 0 and 1", where=where)
        self.alpha = alpha
        self.limits: FloatArray | None = None

    @abstractmethod
    def scores(self, probability: FloatArray, u: FloatArray | None = None) -> FloatArray:
        """Nonconformity (N, K) of each label; ``u`` (N,) in [0, 1] only for the members that can randomise."""

    def check(self, classes: int) -> None:  # noqa: B027 - most members have nothing to check
        """Raise ConfigError where the settings mean nothing for this number of classes."""

    def fit(self, probability: FloatArray, labels: IntArray, u: FloatArray | None = None) -> Self:
        """Find the limits (K,) from probabilities (N, K) and labels (N,) the classifier was not trained on.

        Raises:
            ValueError: shapes or values that do not fit together.
        """
        p = as_classes(probability)
        self.check(p.shape[1])
        y = np.asarray(labels, dtype=np.int64)
        if y.shape != (len(p),) or (len(y) and not (y.min() >= 0 and y.max() < p.shape[1])):
            raise ValueError(f"labels must have shape ({len(p)},) and lie in 0..{p.shape[1] - 1}")
        self.limits = self._limits(self.scores(p, u)[np.arange(len(p)), y], y, p.shape[1])
        return self

    def _limits(self, scores: FloatArray, labels: IntArray, classes: int) -> FloatArray:
        return np.full(classes, conformal_quantile(scores, self.alpha))

    def __call__(self, probability: FloatArray, u: FloatArray | None = None) -> NDArray[np.bool_]:
        """Sets (N, K) of booleans."""
        if self.limits is None:
            raise ValueError("there are no limits yet; call fit first")
        p = as_classes(probability)
        if p.shape[1] != len(self.limits):
            raise ValueError(f"fitted on {len(self.limits)} classes, called with {p.shape[1]}")
        return np.asarray(self.scores(p, u) <= self.limits)

    def to_dict(self) -> dict[str, Any]:
        """Name, settings and limits (null: infinite), fit for JSON."""
        limits = None if self.limits is None else [float(v) if np.isfinite(v) else None for v in self.limits]
        return {"method": self.name, "alpha": self.alpha, "limits": limits}


def as_classes(probability: FloatArray) -> FloatArray:
    """``probability`` as float64 (N, K), K >= 2, rows in [0, 1] summing to 1; raises ValueError otherwise."""
    p = np.asarray(probability, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] < 2:
        raise ValueError(f"probability must have shape (N, K) with K >= 2, got {p.shape}")
    if not ((p >= 0.0) & (p <= 1.0)).all() or not np.allclose(p.sum(axis=1), 1.0, atol=1e-6):
        raise ValueError("each row must hold probabilities that sum to 1")
    return p


def binary(probability: FloatArray) -> FloatArray:
    """(N, 2) probabilities of no_roadwork and roadwork from those of roadwork (N,)."""
    return np.column_stack([1.0 - probability, probability])
