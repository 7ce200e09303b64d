"""Uncertainty of an image from repeated stochastic passes (Monte-Carlo dropout, ensembles)."""

from __future__ import annotations

import numpy as np

from workzone.decisions.uncertainty import names
from workzone.decisions.uncertainty.entropy import binary_entropy
from workzone.predictions import FloatArray


def from_samples(samples: FloatArray) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Mean probability (N,) and measures (N,) by name from sampled probabilities (S, N).

    ``entropy`` is that of the mean, ``expected_entropy`` the mean of the entropies, ``mutual_information`` their
    difference (Gal, Ghahramani 2016, arXiv 1506.02142), ``view_variance`` the variance over samples.

    Raises:
        ValueError: not (S, N) with S >= 2, or values outside [0, 1].
    """
    q = np.asarray(samples, dtype=np.float64)
    if q.ndim != 2 or len(q) < 2:
        raise ValueError(f"samples must have shape (S, N) with S >= 2, got {q.shape}")
    if not ((q >= 0.0) & (q <= 1.0)).all():
        raise ValueError("samples must be probabilities in [0, 1]")
    p = q.mean(axis=0)
    total, expected = binary_entropy(p), binary_entropy(q).mean(axis=0)
    ayes = (q >= 0.5).sum(axis=0)
    return p, {
        names.MAX_PROBABILITY: np.maximum(p, 1.0 - p),
        names.ENTROPY: total,
        names.EXPECTED_ENTROPY: expected,
        names.MUTUAL_INFORMATION: np.maximum(total - expected, 0.0),
        names.VIEW_VARIANCE: q.var(axis=0),
        names.MAX_MINUS_MEAN: np.maximum(q.max(axis=0) - p, 0.0),
        names.VIEW_DISAGREEMENT: np.minimum(ayes, len(q) - ayes) / len(q),
    }
