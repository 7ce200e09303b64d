"""Entropy in nats, and its limit."""

from __future__ import annotations

import numpy as np

from workzone.errors import ConfigError
from workzone.predictions import FloatArray


def entropy(probability: FloatArray) -> FloatArray:
    """Entropy of classes (..., K) along the last axis, in nats, in [0, ln K]; 0 ln 0 is 0, NaN stays NaN."""
    p = np.asarray(probability, dtype=np.float64)
    terms = -p * np.log(np.where(p > 0, p, 1.0))
    # Rounding can carry the uniform distribution above the limit.
    return np.asarray(np.clip(terms.sum(axis=-1), 0.0, np.log(p.shape[-1])), dtype=np.float64)


def binary_entropy(probability: FloatArray) -> FloatArray:
    """Entropy of two classes from the probability of one, in [0, ln 2]."""
    p = np.asarray(probability, dtype=np.float64)
    return entropy(np.stack([p, 1.0 - p], axis=-1))


def require_entropy_threshold(threshold: float, classes: int = 2) -> float:
    """``threshold`` if an entropy of ``classes`` classes can exceed it.

    Raises:
        ConfigError: it does not lie in [0, ln K), so that a rule by it would never fire.
    """
    limit = float(np.log(classes))
    if not 0.0 <= threshold < limit:
        raise ConfigError(
            f"an entropy threshold of {threshold:g} is never exceeded: ln {classes} = {limit:.4f} is the maximum",
            fix=f"choose a threshold in [0, {limit:.4f})",
        )
    return float(threshold)
