"""Isotonic regression with centred blocks (Zadrozny, Elkan 2002; centring: Oron, Flournoy 2017, arXiv 1701.05964)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from workzone.calibration.base import bounded
from workzone.calibration.knots import KnotCalibrator
from workzone.data.roles import CalibData
from workzone.predictions import FloatArray


def pool_adjacent_violators(values: FloatArray, weights: FloatArray) -> tuple[FloatArray, list[int]]:
    """Weighted least-squares non-decreasing fit in linear time.

    Args:
        values: (N,) in the order of the predictor.
        weights: (N,) positive.

    Returns:
        Strictly increasing block means (B,) and the first index of each block.
    """
    means: list[float] = []
    masses: list[float] = []
    starts: list[int] = []
    for i, (value, weight) in enumerate(zip(values.tolist(), weights.tolist(), strict=True)):
        start = i
        while means and means[-1] >= value:
            mass = masses.pop()
            value = (means.pop() * mass + value * weight) / (mass + weight)
            weight += mass
            start = starts.pop()
        means.append(value)
        masses.append(weight)
        starts.append(start)
    return np.array(means), starts


class IsotonicCalibrator(KnotCalibrator):
    """Monotone fit by pooling adjacent violators, read off by linear interpolation between block centres.

    A plain step function gives every image of a block one probability, which destroys the ranking inside the block
    (AUROC, risk-coverage and thresholds suffer). Here each block is one knot at its mean score and the map is strictly
    increasing between the knots; only beyond the outermost centres it is constant. Block means are clipped to
    [1/(n+2), 1 - 1/(n+2)], since n images cannot tell a probability from 0 or 1.
    """

    name: ClassVar[str] = "isotonic"
    n_parameters: ClassVar[int] = 20
    """About the number of blocks at the sample sizes met here; what counts is that it exceeds the smooth members'."""
    fewest_images: ClassVar[int] = 1000
    """Below, it overfits (the documentation of scikit-learn gives the same number)."""

    def _fit(self, data: CalibData) -> None:
        unique, inverse = np.unique(bounded(data.scores), return_inverse=True)
        weights = np.bincount(inverse).astype(np.float64)
        means, starts = pool_adjacent_violators(np.bincount(inverse, weights=data.labels) / weights, weights)
        centres = np.add.reduceat(unique * weights, starts) / np.add.reduceat(weights, starts)
        end = 1.0 / (len(data) + 2.0)
        self.scores = centres
        self.probabilities = np.clip(means, end, 1.0 - end)
