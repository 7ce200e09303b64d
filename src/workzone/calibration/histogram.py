"""Histogram binning with bins of equal mass (Zadrozny, Elkan 2001)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from workzone.calibration.base import Calibrator, as_number, bounded, read_numbers
from workzone.data.roles import CalibData
from workzone.errors import BundleError
from workzone.predictions import FloatArray

BINS = 10
_MAX_BINS = 10_000


class HistogramCalibrator(Calibrator):
    """Every image of a bin gets the share of roadwork in it; a baseline.

    Bins hold equal shares of the images, equal scores stay together, and the edges lie half-way between the scores they
    part. Shares are clipped to [1/(m+2), 1 - 1/(m+2)] for m images in the bin. The map is a step function: it ties all
    images of a bin, and nothing keeps it from falling from one bin to the next.
    """

    name: ClassVar[str] = "histogram"
    n_parameters: ClassVar[int] = 10

    def __init__(self, edges: FloatArray | None = None, probabilities: FloatArray | None = None) -> None:
        self.edges = np.zeros(0) if edges is None else edges
        self.probabilities = np.array([0.5]) if probabilities is None else probabilities

    def _fit(self, data: CalibData) -> None:
        scores, inverse = np.unique(bounded(data.scores), return_inverse=True)
        counts = np.bincount(inverse).astype(np.float64)
        # A block of equal scores goes where its middle falls, so that mirrored scores get mirrored bins.
        middle = (np.cumsum(counts) - counts / 2.0) / len(data)
        bin_of = np.unique(np.minimum((middle * BINS).astype(np.int64), BINS - 1), return_inverse=True)[1]
        mass = np.bincount(bin_of, weights=counts)
        share = np.bincount(bin_of, weights=np.bincount(inverse, weights=data.labels)) / mass
        end = 1.0 / (mass + 2.0)
        self.probabilities = np.clip(share, end, 1.0 - end)
        last = np.flatnonzero(np.diff(bin_of))
        self.edges = scores[last] + (scores[last + 1] - scores[last]) / 2.0

    def __call__(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities (N,) of ``log_odds`` (N,)."""
        u = bounded(log_odds)
        p = self.probabilities[np.searchsorted(self.edges, u, side="left").clip(max=len(self.edges))]
        return np.where(np.isnan(u), np.nan, p)

    def parameters(self) -> dict[str, Any]:
        """Edges between the bins and the probability of each bin."""
        return {"edges": self.edges.tolist(), "probabilities": self.probabilities.tolist()}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Rebuild; raises BundleError unless the edges rise and there is one probability more than edges."""
        probabilities = read_numbers(parameters, "probabilities", most=_MAX_BINS)
        stored = parameters.get("edges")
        if not isinstance(stored, list) or len(stored) != len(probabilities) - 1:
            raise BundleError(f"histogram calibrator needs {len(probabilities) - 1} edges between its bins")
        edges = np.array([as_number(v) for v in stored], dtype=np.float64)
        if not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
            raise BundleError("histogram calibrator stores edges that do not rise")
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise BundleError("histogram calibrator stores a probability outside [0, 1]")
        return cls(edges, probabilities)
