"""Intervals for k events among n trials that stay honest where k is 0 or n."""

from __future__ import annotations

from typing import Any

import numpy as np

from workzone.metrics.sample import FloatArray


def _check(k: Any, n: Any, share: float, name: str) -> tuple[FloatArray, FloatArray]:
    events, trials = np.broadcast_arrays(np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.float64))
    if (events < 0).any() or (events > trials).any():
        raise ValueError("k must lie between 0 and n")
    if not 0 < share < 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1")
    return events, trials


def clopper_pearson(k: Any, n: Any, level: float = 0.95) -> tuple[Any, Any]:
    """Two-sided exact interval of a proportion (Clopper & Pearson 1934): covers with probability >= ``level``.

    Args:
        k: events, a number or an array.
        n: trials; with 0 trials the interval is (0, 1).
        level: probability of covering.

    Raises:
        ValueError: k outside [0, n] or level outside (0, 1).
    """
    events, trials = _check(k, n, level, "level")
    tail = (1 - level) / 2
    return 1 - _upper(trials - events, trials, tail), _upper(events, trials, tail)


def clopper_pearson_upper(k: Any, n: Any, delta: float = 0.05) -> Any:
    """One-sided exact upper bound of a proportion: exceeded by the truth with probability <= ``delta``.

    Raises:
        ValueError: k outside [0, n] or delta outside (0, 1).
    """
    events, trials = _check(k, n, delta, "delta")
    return _upper(events, trials, delta)


def _upper(k: FloatArray, n: FloatArray, delta: float) -> Any:
    from scipy.special import betaincinv

    # Beta parameters must be positive, so the cases with k = n are computed at a harmless n and overwritten.
    bound = betaincinv(k + 1, np.where(k < n, n - k, 1.0), 1 - delta)
    return np.where(k < n, bound, 1.0)[()]


def wilson(k: Any, n: Any, level: float = 0.95) -> tuple[Any, Any]:
    """Two-sided score interval of a proportion (Wilson 1927): narrower than exact, covers ``level`` on average.

    Raises:
        ValueError: k outside [0, n] or level outside (0, 1).
    """
    from scipy.special import ndtri

    events, trials = _check(k, n, level, "level")
    z2 = float(ndtri((1 + level) / 2)) ** 2
    size = np.maximum(trials, 1.0)
    centre = (events + z2 / 2) / (size + z2)
    half = np.sqrt(z2) / (size + z2) * np.sqrt(events * (size - events) / size + z2 / 4)
    low = np.where((trials == 0) | (events == 0), 0.0, np.maximum(centre - half, 0.0))
    high = np.where((trials == 0) | (events == trials), 1.0, np.minimum(centre + half, 1.0))
    return low[()], high[()]


def n_needed_for(errors: int, alpha: float, delta: float = 0.05) -> int:
    """Fewest trials with which ``errors`` events still prove a rate <= ``alpha`` at confidence 1 - ``delta``.

    Raises:
        ValueError: errors < 0, or alpha or delta outside (0, 1).
    """
    if errors < 0 or not 0 < alpha < 1 or not 0 < delta < 1:
        raise ValueError("errors must be >= 0, alpha and delta strictly between 0 and 1")
    low, high = errors, max(errors + 1, 2)
    while clopper_pearson_upper(errors, high, delta) > alpha:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if clopper_pearson_upper(errors, middle, delta) <= alpha:
            high = middle
        else:
            low = middle
    return high
