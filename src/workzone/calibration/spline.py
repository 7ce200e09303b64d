"""Spline calibration (Gupta, Rahimi, Ajanthan, Mensink, Sminchisescu, Hartley 2021, arXiv 2006.12800)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from workzone.calibration.base import bounded
from workzone.calibration.isotonic import pool_adjacent_violators
from workzone.calibration.knots import KnotCalibrator
from workzone.data.roles import CalibData
from workzone.predictions import FloatArray, sigmoid

KNOTS = 6
"""Knots of the spline, as in the paper."""
_STORED = 512


class SplineCalibrator(KnotCalibrator):
    """A natural cubic spline through the cumulated residuals; its slope is what has to be added to the score.

    With images in the order of their score p = sigmoid(u), ``h(t)`` is the sum of ``y - p`` over the first share t of
    them, divided by n. A spline with six equally spaced knots is fitted to h by least squares and
    ``q = p + h'(t)``. Three things differ from the paper: q is made non-decreasing by pooling adjacent violators, which
    keeps its mean (the method itself may reverse a ranking); images with equal scores share one value; and q is
    clipped to [1/(n+2), 1 - 1/(n+2)]. At most 512 points of the map are stored; beyond the outermost it is constant.
    """

    name: ClassVar[str] = "spline"
    n_parameters: ClassVar[int] = 7

    def _fit(self, data: CalibData) -> None:
        n = len(data)
        scores, inverse = np.unique(bounded(data.scores), return_inverse=True)
        counts = np.bincount(inverse).astype(np.float64)
        p = sigmoid(scores)
        ends = np.concatenate([[0.0], np.cumsum(counts) / n])
        residuals = np.concatenate([[0.0], np.cumsum(np.bincount(inverse, weights=data.labels) - counts * p) / n])
        # One point per image: inside a block of equal scores h is a straight line.
        t = np.arange(n + 1) / n
        knots = np.linspace(0.0, 1.0, min(KNOTS, len(scores) + 1))
        heights = np.linalg.lstsq(natural_spline(knots, t), np.interp(t, ends, residuals), rcond=None)[0]
        # The slope of the spline averaged over each block, without a derivative.
        slopes = np.diff(natural_spline(knots, ends) @ heights) / np.diff(ends)
        means, starts = pool_adjacent_violators(p + slopes, counts)
        end = 1.0 / (n + 2.0)
        values = np.clip(np.repeat(means, np.diff([*starts, len(scores)])), end, 1.0 - end)
        kept = np.unique(np.linspace(0, len(scores) - 1, min(_STORED, len(scores))).round().astype(np.int64))
        self.scores, self.probabilities = scores[kept], values[kept]


def natural_spline(knots: FloatArray, at: FloatArray) -> FloatArray:
    """Matrix (len(at), len(knots)) that turns heights at equally spaced ``knots`` into the natural cubic spline.

    Args:
        knots: (M,) equally spaced, M >= 2.
        at: (N,) within the knots.
    """
    m, width = len(knots), float(knots[1] - knots[0])
    identity = np.eye(m)
    # Second derivatives at the knots: zero at both ends, and a tridiagonal system between.
    curvature = np.zeros((m, m))
    if m > 2:
        system = 4.0 * np.eye(m - 2) + np.eye(m - 2, k=1) + np.eye(m - 2, k=-1)
        curvature[1:-1] = np.linalg.solve(system, 6.0 / width**2 * np.diff(identity, n=2, axis=0))
    left = np.clip(((at - knots[0]) / width).astype(np.int64), 0, m - 2)
    b = ((at - knots[left]) / width)[:, None]
    a = 1.0 - b
    bend = (a**3 - a) * curvature[left] + (b**3 - b) * curvature[left + 1]
    return np.asarray(a * identity[left] + b * identity[left + 1] + width**2 / 6.0 * bend, dtype=np.float64)
