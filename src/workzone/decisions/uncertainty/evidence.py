"""Uncertainty of an image from Dirichlet evidence."""

from __future__ import annotations

import numpy as np

from workzone.decisions.uncertainty import names
from workzone.decisions.uncertainty.entropy import entropy
from workzone.predictions import FloatArray


def from_evidence(alpha: FloatArray) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Class probabilities (N, K) and measures (N,) by name from Dirichlet parameters (N, K), all > 0.

    ``vacuity`` is K over their sum, 1 without evidence (Sensoy, Kaplan, Kandemir 2018, arXiv 1806.01768). Under the
    Dirichlet, ``entropy`` is that of the mean, ``expected_entropy`` the mean of the entropies, ``mutual_information``
    their difference (Malinin, Gales 2018, arXiv 1802.10501), ``view_variance`` the variance of the probability of the
    last class.

    Raises:
        ValueError: not (N, K) with K >= 2, or values that are not positive and finite.
    """
    a = np.asarray(alpha, dtype=np.float64)
    if a.ndim != 2 or a.shape[1] < 2:
        raise ValueError(f"alpha must have shape (N, K) with K >= 2, got {a.shape}")
    if not (np.isfinite(a) & (a > 0)).all():
        raise ValueError("Dirichlet parameters must be positive and finite")
    strength = a.sum(axis=1)
    p = a / strength[:, None]
    total = entropy(p)
    expected = np.clip((p * (digamma(strength + 1.0)[:, None] - digamma(a + 1.0))).sum(axis=1), 0.0, total)
    return p, {
        names.MAX_PROBABILITY: p.max(axis=1),
        names.ENTROPY: total,
        names.EXPECTED_ENTROPY: expected,
        names.MUTUAL_INFORMATION: total - expected,
        names.VIEW_VARIANCE: p[:, -1] * (1.0 - p[:, -1]) / (strength + 1.0),
        names.VACUITY: np.minimum(a.shape[1] / strength, 1.0),
    }


def digamma(x: FloatArray) -> FloatArray:
    """Digamma for x > 0, to about 1e-12; scipy's is not part of the runtime."""
    x = np.asarray(x, dtype=np.float64)
    shift = np.zeros_like(x)
    for _ in range(8):
        small = x < 8.0
        shift = shift - np.where(small, 1.0 / x, 0.0)
        x = np.where(small, x + 1.0, x)
    f = 1.0 / (x * x)
    series = f * (1 / 12 - f * (1 / 120 - f * (1 / 252 - f * (1 / 240 - f * (1 / 132 - f * 691 / 32760)))))
    return np.asarray(shift + np.log(x) - 0.5 / x - series, dtype=np.float64)
