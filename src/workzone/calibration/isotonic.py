"""Isotonic regression with centred blocks (Zadrozny, Elkan 2002; centring: Oron, Flournoy 2017, arXiv 1701.05964)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from workzone.calibration.base import Calibrator, as_number, bounded
from workzone.errors import BundleError
from workzone.predictions import FloatArray

_MAX_KNOTS = 100_000


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


class IsotonicCalibrator(Calibrator):
    """Monotone fit by pooling adjacent violators, read off by linear interpolation between block centres.

    A plain step function gives every image of a block one probability, which destroys the ranking inside the block
    (AUROC, risk-coverage and thresholds suffer). Here each block is one knot at its mean score and the map is strictly
    increasing between the knots; only beyond the outermost centres it is constant. Block means are clipped to
    [1/(n+2), 1 - 1/(n+2)], since n images cannot tell a probability from 0 or 1.
    """

    name: ClassVar[str] = "isotonic"
    n_parameters: ClassVar[int] = 20
    """About the number of blocks at the sample sizes met here; what counts is that it exceeds the smooth members'."""

    def __init__(self, scores: FloatArray | None = None, probabilities: FloatArray | None = None) -> None:
        self.scores = np.array([0.0]) if scores is None else scores
        self.probabilities = np.array([0.5]) if probabilities is None else probabilities

    def _fit(self, log_odds: FloatArray, labels: FloatArray) -> None:
        unique, inverse = np.unique(bounded(log_odds), return_inverse=True)
        weights = np.bincount(inverse).astype(np.float64)
        means, starts = pool_adjacent_violators(np.bincount(inverse, weights=labels) / weights, weights)
        centres = np.add.reduceat(unique * weights, starts) / np.add.reduceat(weights, starts)
        end = 1.0 / (len(labels) + 2.0)
        self.scores = centres
        self.probabilities = np.clip(means, end, 1.0 - end)

    def __call__(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities (N,) of ``log_odds`` (N,)."""
        return np.asarray(np.interp(bounded(log_odds), self.scores, self.probabilities), dtype=np.float64)

    def parameters(self) -> dict[str, Any]:
        """The knots: scores and their probabilities."""
        return {"scores": self.scores.tolist(), "probabilities": self.probabilities.tolist()}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError unless the knots are increasing scores with non-decreasing probabilities."""
        arrays: list[FloatArray] = []
        for key in ("scores", "probabilities"):
            value = parameters.get(key)
            if not isinstance(value, list) or not 1 <= len(value) <= _MAX_KNOTS:
                raise BundleError(f"stored parameter {key!r} must be a list of 1 to {_MAX_KNOTS} numbers")
            arrays.append(np.array([as_number(v) for v in value], dtype=np.float64))
        x, y = arrays
        if len(x) != len(y):
            raise BundleError(f"isotonic calibrator stores {len(x)} scores for {len(y)} probabilities")
        increasing = bool((np.diff(x) > 0).all() and (np.diff(y) >= 0).all())
        if not (np.isfinite(x).all() and increasing and ((y >= 0) & (y <= 1)).all()):
            raise BundleError("isotonic calibrator stores knots that are not monotone or outside [0, 1]")
        return cls(x, y)
