"""Softmax regression with free and fixed coefficients: what the calibrators over K classes share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workzone.calibration.newton import minimise
from workzone.predictions import FloatArray, IntArray, sigmoid


def log_softmax(logits: FloatArray) -> FloatArray:
    """Log-probabilities (N, K) of ``logits`` (N, K)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), dtype=np.float64)


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities (N, K) of ``logits`` (N, K)."""
    if logits.shape[1] == 2:  # monotone to the last bit, which a quotient of exponentials is not
        difference = logits[:, 1] - logits[:, 0]
        return np.stack([sigmoid(-difference), sigmoid(difference)], axis=1)
    return np.asarray(np.exp(log_softmax(logits)), dtype=np.float64)


def fit_softmax(
    features: FloatArray,
    labels: IntArray,
    origin: FloatArray,
    *,
    free: NDArray[np.bool_],
    precision: FloatArray,
    nonnegative: NDArray[np.bool_] | None = None,
    start: FloatArray | None = None,
) -> FloatArray:
    """Coefficients (K, F) that minimise the summed NLL of ``softmax(features @ coefficients.T)`` and a quadratic.

    Args:
        features: (N, F), finite.
        labels: (N,) classes 0 to K - 1.
        origin: (K, F) coefficients that change nothing.
        free: (K, F) coefficients that are fitted; the others stay at ``origin``.
        precision: (K, F) positive; adds ``sum(precision * (coefficients - origin)^2) / 2``.
        nonnegative: (K, F) coefficients held at zero or above; none by default.
        start: (K, F) first guess; ``origin`` by default.
    """
    k, f = np.nonzero(free)
    rows = np.arange(len(labels))
    columns = features[:, f]
    same_class = k[:, None] == k[None, :]
    weight, pull = precision[free], origin[free]

    def full(w: FloatArray) -> FloatArray:
        coefficients = origin.copy()
        coefficients[free] = w
        return coefficients

    def value(w: FloatArray) -> float:
        log_p = log_softmax(features @ full(w).T)
        return float(-log_p[rows, labels].sum() + 0.5 * np.sum(weight * (w - pull) ** 2))

    def derivatives(w: FloatArray) -> tuple[FloatArray, FloatArray]:
        q = np.exp(log_softmax(features @ full(w).T))
        residual = q.copy()
        residual[rows, labels] -= 1.0
        gradient = np.sum(columns * residual[:, k], axis=0) + weight * (w - pull)
        weighted = columns * q[:, k]
        hessian = np.where(same_class, weighted.T @ columns, 0.0) - weighted.T @ weighted
        return gradient, hessian + np.diag(weight)

    bounds = np.zeros(len(k), dtype=bool) if nonnegative is None else nonnegative[free]
    return full(minimise(value, derivatives, (origin if start is None else start)[free], bounds))
