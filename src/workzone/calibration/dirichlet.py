"""Dirichlet calibration with ODIR (Kull, Perello-Nieto, Kangsepp, Silva Filho, Song, Flach 2019, arXiv 1910.12656)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from workzone.calibration.base import COEFFICIENT_LIMIT, read_float
from workzone.calibration.folds import fixed_folds
from workzone.calibration.logistic import RIDGE
from workzone.calibration.multiclass import BinaryView, MulticlassCalibrator, read_array, read_classes
from workzone.calibration.softmax import fit_softmax, log_softmax, softmax
from workzone.predictions import FloatArray, IntArray, StrArray

PENALTIES = tuple(10.0**e for e in range(-5, 3))
"""Candidates of lambda and mu."""


class DirichletScaling(MulticlassCalibrator):
    """``softmax(W ln p + b)``, W (K, K), fitted by NLL with the off-diagonal and the biases pulled to zero (ODIR).

    The penalty is ``lambda / (K (K - 1)) * sum of squared off-diagonal W + mu / K * sum of squared b`` per image. Where
    ``penalty`` is not given, lambda = mu is chosen by the NLL of five folds of whole groups, then mu at that lambda;
    where no fold can be trained on every class, the largest of the candidates is taken.

    Nothing keeps W from reversing a ranking: for two classes this is beta calibration without its signs.

    Args:
        penalty: (lambda, mu), or None to choose them in ``fit``.
    """

    name: ClassVar[str] = "dirichlet"

    def __init__(self, penalty: tuple[float, float] | None = None) -> None:
        self.penalty = penalty
        self.weights = np.ones((0, 0))
        self.biases = np.zeros(0)
        self.chosen = (0.0, 0.0) if penalty is None else penalty

    def _fit(self, log_p: FloatArray, labels: IntArray, groups: StrArray) -> None:
        features = np.column_stack([log_p, np.ones(len(labels))])
        self.chosen = _choose(features, labels, groups) if self.penalty is None else self.penalty
        fitted = _odir(features, labels, self.chosen, None)
        self.weights, self.biases = fitted[:, :-1].copy(), fitted[:, -1].copy()

    def _map(self, log_p: FloatArray) -> FloatArray:
        return softmax(log_p @ self.weights.T + self.biases)

    def parameters(self) -> dict[str, Any]:
        """Number of classes, weights, biases and the penalties they were fitted with."""
        return {
            "classes": self.n_classes,
            "weights": self.weights.tolist(),
            "biases": self.biases.tolist(),
            "lambda": self.chosen[0],
            "mu": self.chosen[1],
        }

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError on missing or impossible numbers."""
        made = cls((read_float(parameters, "lambda", low=0.0), read_float(parameters, "mu", low=0.0)))
        k = made.n_classes = read_classes(parameters)
        made.weights = read_array(parameters, "weights", (k, k), limit=COEFFICIENT_LIMIT)
        made.biases = read_array(parameters, "biases", (k,), limit=COEFFICIENT_LIMIT)
        return made


class DirichletCalibrator(BinaryView):
    """Dirichlet calibration of two classes: beta calibration without its signs; for comparison, not for a product."""

    name: ClassVar[str] = "dirichlet"
    n_parameters: ClassVar[int] = 6
    kind: ClassVar[type[MulticlassCalibrator]] = DirichletScaling


def _odir(features: FloatArray, labels: IntArray, penalty: tuple[float, float], start: FloatArray | None) -> FloatArray:
    """Weights and biases (K, K + 1) under penalties (lambda, mu) per image."""
    k = features.shape[1] - 1
    precision = np.full((k, k + 1), 2.0 * len(labels) * penalty[0] / (k * (k - 1)))
    precision[:, -1] = 2.0 * len(labels) * penalty[1] / k
    np.fill_diagonal(precision, 0.0)
    return fit_softmax(
        features,
        labels,
        np.eye(k, k + 1),
        free=np.ones((k, k + 1), dtype=bool),
        precision=precision + RIDGE,
        start=start,
    )


def _choose(features: FloatArray, labels: IntArray, groups: StrArray) -> tuple[float, float]:
    """Penalties (lambda, mu) of the lowest NLL over folds; of equals the larger."""
    k = features.shape[1] - 1
    fold_of = fixed_folds(labels, groups)
    folds = [fold_of == f for f in np.unique(fold_of)]
    folds = [held_out for held_out in folds if len(np.unique(labels[~held_out])) == k]
    largest = PENALTIES[-1]
    if not folds:
        return largest, largest
    warm: list[FloatArray | None] = [None] * len(folds)

    def nll(penalty: tuple[float, float]) -> float:
        total = 0.0
        for i, held_out in enumerate(folds):
            warm[i] = fitted = _odir(features[~held_out], labels[~held_out], penalty, warm[i])
            y = labels[held_out]
            total -= float(log_softmax(features[held_out] @ fitted.T)[np.arange(len(y)), y].sum())
        return total

    along = {value: nll((value, value)) for value in reversed(PENALTIES)}
    best = min(along, key=lambda value: along[value])
    across = {value: along[best] if value == best else nll((best, value)) for value in reversed(PENALTIES)}
    return best, min(across, key=lambda value: across[value])
