"""Weights of a mixture of probabilities: non-negative, summing to one, fitted by a convex loss."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from workzone.calibration.newton import minimise
from workzone.predictions import FloatArray

MAX_MEMBERS = 8
_RIDGE = 1e-9
_TINY = 1e-300


def weights_by_nll(likelihoods: FloatArray) -> FloatArray:
    """Weights (M,) that minimise the mean of ``-ln(likelihoods @ w)``.

    With a multiplier of one the constraint ``sum(w) = 1`` becomes a term ``sum(w)``: the loss is homogeneous in w, so
    its minimum over non-negative weights lies on the simplex by itself.

    Args:
        likelihoods: (N, M) probability that each member gave to what happened, positive.
    """
    n, m = likelihoods.shape
    origin = np.full(m, 1.0 / m)

    def value(w: FloatArray) -> float:
        mixed = np.maximum(likelihoods @ w, _TINY)
        return float(-np.log(mixed).mean() + w.sum() + 0.5 * _RIDGE * np.sum((w - origin) ** 2))

    def derivatives(w: FloatArray) -> tuple[FloatArray, FloatArray]:
        ratio = likelihoods / np.maximum(likelihoods @ w, _TINY)[:, None]
        gradient = 1.0 - ratio.mean(axis=0) + _RIDGE * (w - origin)
        return gradient, ratio.T @ ratio / n + _RIDGE * np.eye(m)

    w = minimise(value, derivatives, origin, np.ones(m, dtype=bool))
    return np.asarray(w / w.sum(), dtype=np.float64)


def weights_by_brier(probabilities: FloatArray, outcomes: FloatArray) -> FloatArray:
    """Weights (M,) on the simplex that minimise the squared error of ``probabilities @ w``.

    The optimum over each face of the simplex is one linear system; the best one that is feasible is the optimum.

    Args:
        probabilities: (N, M) of each member; for K classes N counts image-class pairs.
        outcomes: (N,) 0 or 1.
    """
    n, m = probabilities.shape
    if m > MAX_MEMBERS:
        raise ValueError(f"a mixture holds at most {MAX_MEMBERS} members")
    quadratic = probabilities.T @ probabilities / n + _RIDGE * np.eye(m)
    linear = probabilities.T @ outcomes / n + _RIDGE / m
    best, lowest = np.full(m, 1.0 / m), np.inf
    for size in range(1, m + 1):
        for face in combinations(range(m), size):
            system = np.ones((size + 1, size + 1))
            system[:-1, :-1], system[-1, -1] = quadratic[np.ix_(face, face)], 0.0
            solution = np.linalg.solve(system, np.append(linear[list(face)], 1.0))[:-1]
            if solution.min() < 0.0:
                continue
            w = np.zeros(m)
            w[list(face)] = solution
            loss = float(w @ quadratic @ w - 2.0 * linear @ w)
            if loss < lowest:
                best, lowest = w / w.sum(), loss
    return best
