"""Logistic regression by Newton's method with signs that may be constrained: what the smooth calibrators share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from workzone.predictions import FloatArray, sigmoid

RIDGE = 1e-6
"""Weight of the pull towards the start, in units of summed NLL.

It keeps the optimum finite where the classes are separable and leaves directions the data say nothing about (constant
scores) at the start; with ten informative images it moves a coefficient by about 1e-6.
"""
_MAX_STEPS = 200


def fit_logistic(
    features: FloatArray,
    targets: FloatArray,
    start: Sequence[float],
    *,
    nonnegative: Sequence[int] = (),
    precision: Sequence[float] | None = None,
) -> FloatArray:
    """Coefficients (D,) that minimise the summed NLL of ``targets`` plus ``sum(precision * (w - start)^2) / 2``.

    The problem is strictly convex, so the constrained optimum is the best of the optima over the faces where some of
    the ``nonnegative`` coefficients are fixed at zero and the others come out non-negative.

    Args:
        features: (N, D), finite.
        targets: (N,) in [0, 1].
        start: (D,) the calibrator that changes nothing.
        nonnegative: indices of coefficients that must be at least zero.
        precision: (D,) positive, one over the variance of a Gaussian prior around ``start``; ``RIDGE`` by default.
    """
    ridge = np.full(len(start), RIDGE) if precision is None else np.asarray(precision, dtype=np.float64)
    origin = np.asarray(start, dtype=np.float64)
    free_optimum = _newton(features, targets, origin, ridge, np.ones(len(origin), dtype=bool))
    if all(free_optimum[i] >= 0 for i in nonnegative):
        return free_optimum
    faces = [face for size in range(1, len(nonnegative) + 1) for face in combinations(nonnegative, size)]
    optima = [_newton(features, targets, origin, ridge, ~np.isin(np.arange(len(origin)), face)) for face in faces]
    feasible = [w for w in optima if all(w[i] >= 0 for i in nonnegative)]
    return min(feasible, key=lambda w: _objective(features, targets, origin, ridge, w))


def _objective(
    features: FloatArray, targets: FloatArray, origin: FloatArray, ridge: FloatArray, w: FloatArray
) -> float:
    t = features @ w
    return float(np.sum(np.logaddexp(0.0, t) - targets * t) + 0.5 * np.sum(ridge * (w - origin) ** 2))


def _newton(
    features: FloatArray, targets: FloatArray, origin: FloatArray, ridge: FloatArray, free: NDArray[np.bool_]
) -> FloatArray:
    """Minimise over the ``free`` coefficients, the others held at zero."""
    w = np.where(free, origin, 0.0)
    x = features[:, free]
    value = _objective(features, targets, origin, ridge, w)
    for _ in range(_MAX_STEPS):
        p = sigmoid(features @ w)
        gradient = x.T @ (p - targets) + (ridge * (w - origin))[free]
        hessian = (x * (p * (1.0 - p))[:, None]).T @ x + np.diag(ridge[free])
        step = np.linalg.solve(hessian, gradient)
        decrement = float(gradient @ step)
        if decrement <= 1e-18 * max(1.0, abs(value)):
            break
        size, moved = 1.0, False
        while size > 1e-12:
            trial = w.copy()
            trial[free] -= size * step
            trial_value = _objective(features, targets, origin, ridge, trial)
            # Close to the optimum the decrease is smaller than the rounding of the sum; the full step is right there.
            if trial_value <= value - 1e-4 * size * decrement + 1e-13 * max(1.0, abs(value)):
                w, value, moved = trial, trial_value, True
                break
            size /= 2.0
        if not moved:  # rounding of the objective hides any further decrease
            break
    return w
