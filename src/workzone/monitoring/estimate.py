"""Error rates without labels, from calibrated probabilities, as long as those are calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workzone.predictions import FloatArray, IntArray

RESAMPLES, FEWEST_RESAMPLES, MOST_DRAWS = 1000, 200, 20_000_000
FEWEST_REVIEWED = 30
CONTRADICTION = 0.01


@dataclass(frozen=True, slots=True)
class Rate:
    """An estimated rate with a 95 % interval; NaN where nothing is counted."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the answers of a window are expected to be worth.

    Attributes:
        n: images.
        rates: by name: ``accuracy`` of the answered images, ``false_negative_rate`` (roadwork answered no_roadwork),
            ``false_positive_rate``, ``selective_error``, ``prevalence`` and ``abstention``.
        valid: whether nothing speaks against the calibration.
        reasons: what speaks against it.
    """

    n: int
    rates: dict[str, Rate]
    valid: bool
    reasons: tuple[str, ...]


def expected_rates(p: FloatArray, codes: NDArray[np.int64]) -> dict[str, FloatArray]:
    """Rates of B windows of N images; ``p`` is (B, N), probabilities or 0/1 labels, ``codes`` is (B, N) or (N,)."""
    yes, no, out = codes == 1, codes == 0, codes == -1

    def share(part: FloatArray, whole: FloatArray) -> FloatArray:
        top, below = np.broadcast_arrays(part.sum(axis=1), whole.sum(axis=1))
        found: FloatArray = np.divide(top, below, out=np.full(len(p), np.nan), where=below > 0)
        return found

    answered, ones = (yes | no) * np.ones_like(p), np.ones_like(p)
    wrong = yes * (1 - p) + no * p
    return {
        "accuracy": share(yes * p + no * (1 - p), answered),
        "false_negative_rate": share(no * p, p),
        "false_positive_rate": share(yes * (1 - p), 1 - p),
        "selective_error": share(wrong, answered),
        "prevalence": share(p, ones),
        "abstention": share(out * ones, ones),
    }


def estimate(p: FloatArray, codes: NDArray[np.int64], reasons: Sequence[str] = (), *, seed: int = 0) -> Estimate:
    """Confidence-based performance estimation: each answer is right with its own calibrated probability.

    The interval comes from drawn windows: images with replacement, then their labels. It covers the rate of the window
    and that of its population, if the probabilities are calibrated there. Whether they are takes labels to see.

    Args:
        p: (N,) calibrated probabilities of roadwork.
        codes: (N,) decisions, -1 for abstain.
        reasons: what speaks against the calibration.
        seed: of the draws.
    """
    n = len(p)
    if n == 0:
        return Estimate(0, {}, False, (*reasons, "no images"))
    values = {k: float(v[0]) for k, v in expected_rates(p[None], codes).items()}
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[FloatArray]] = {k: [] for k in values}
    resamples = min(RESAMPLES, max(FEWEST_RESAMPLES, MOST_DRAWS // n))
    block = max(1, 2_000_000 // n)
    for first in range(0, resamples, block):
        picks = rng.integers(0, n, size=(min(block, resamples - first), n))
        labels = (rng.random(picks.shape) < p[picks]).astype(np.float64)
        for name, rows in expected_rates(labels, codes[picks]).items():
            drawn[name].append(rows)
    rates = {}
    for name, blocks in drawn.items():
        rows = np.concatenate(blocks)
        rows = rows[np.isfinite(rows)]
        low, high = np.quantile(rows, [0.025, 0.975]) if len(rows) else (np.nan, np.nan)
        rates[name] = Rate(values[name], float(low), float(high))
    return Estimate(n, rates, not reasons, tuple(reasons))


def contradiction(labels: IntArray, p: FloatArray, weights: FloatArray | None = None) -> float:
    """P-value of "these probabilities are calibrated" on reviewed images; NaN below 30 of them.

    The smaller of two, times 2: do roadwork images come as often as announced, and are the squared errors as large
    (Spiegelhalter 1986)?

    Args:
        labels: (N,) reviewed labels.
        p: (N,) probabilities they had.
        weights: (N,) inverse sampling weights, equal where left out.
    """
    if len(labels) < FEWEST_REVIEWED:
        return float("nan")
    from scipy.stats import norm

    w = np.ones(len(p)) if weights is None else weights
    gap, variance = labels - p, p * (1 - p)
    found = []
    for slope in (np.ones(len(p)), 1 - 2 * p):
        spread = float(np.sqrt((w**2 * slope**2 * variance).sum()))
        top = float((w * slope * gap).sum())
        found.append(float(2 * norm.sf(abs(top) / spread)) if spread > 0 else (1.0 if abs(top) < 1e-9 else 0.0))
    return min(1.0, 2 * min(found))
