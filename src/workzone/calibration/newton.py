"""Newton's method for a convex function of a few coefficients, some of which must not be negative."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from workzone.predictions import FloatArray

_MAX_STEPS = 200


def minimise(
    value: Callable[[FloatArray], float],
    derivatives: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
    start: FloatArray,
    nonnegative: NDArray[np.bool_],
) -> FloatArray:
    """Minimiser (D,) of a strictly convex function by an active-set Newton method.

    Args:
        value: the function, infinite outside its domain.
        derivatives: gradient (D,) and positive definite Hessian (D, D).
        start: (D,) feasible.
        nonnegative: (D,) coefficients held at zero or above.
    """
    x = start.copy()
    current = value(x)
    for _ in range(_MAX_STEPS):
        gradient, hessian = derivatives(x)
        step = _step(x, gradient, hessian, nonnegative)
        decrement = float(gradient @ step)
        if decrement <= 1e-18 * max(1.0, abs(current)):
            break
        # No further than the first coefficient to reach zero; there it is held from the next step on.
        shrinking = nonnegative & (step > 0)
        reach = np.where(shrinking, x / np.where(shrinking, step, 1.0), np.inf)
        first = int(np.argmin(reach))
        size, moved = min(1.0, float(reach[first])), False
        touches = size == reach[first]
        while size > 1e-14:
            trial = x - size * step
            if touches:
                trial[first] = 0.0
            trial[nonnegative] = np.maximum(trial[nonnegative], 0.0)
            reached = value(trial)
            # Close to the optimum the decrease is smaller than the rounding of the sum; the full step is right there.
            if reached <= current - 1e-4 * size * decrement + 1e-13 * max(1.0, abs(current)):
                x, current, moved = trial, reached, True
                break
            size, touches = size / 2.0, False
        if not moved:  # rounding hides any further decrease
            break
    return x


def _step(x: FloatArray, gradient: FloatArray, hessian: FloatArray, nonnegative: NDArray[np.bool_]) -> FloatArray:
    """Newton step of the coefficients that are free to move; those at zero that would go below it are held."""
    at_zero = nonnegative & (x <= 0.0)
    held = at_zero & (gradient > 0.0)
    while True:
        free = np.flatnonzero(~held)
        step = np.zeros_like(x)
        if len(free):
            step[free] = np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        blocked = at_zero & ~held & (step > 0.0)
        if not blocked.any():
            return step
        held |= blocked
