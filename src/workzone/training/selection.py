"""The figures that training selects by, on raw log-odds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def select_scores(log_odds: NDArray[np.floating], labels: NDArray[np.integer]) -> dict[str, float]:
    """NLL in nats, AUROC, MCC and accuracy at log-odds 0; AUROC is 0.5 and MCC 0 where they are undefined."""
    z, y = np.asarray(log_odds, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    nll = float(np.mean(np.logaddexp(0.0, z) - y * z))
    said = z > 0
    return {
        "nll": nll,
        "auroc": _auroc(z, y),
        "mcc": _mcc(said, y == 1),
        "accuracy": float(np.mean(said == (y == 1))),
    }


def _auroc(z: Array, y: NDArray[np.int64]) -> float:
    positives, negatives = int((y == 1).sum()), int((y == 0).sum())
    if not positives or not negatives:
        return 0.5
    _, inverse, counts = np.unique(z, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2.0)[inverse]
    return float((ranks[y == 1].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def _mcc(said: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    tp, tn = float((said & truth).sum()), float((~said & ~truth).sum())
    fp, fn = float((said & ~truth).sum()), float((~said & truth).sum())
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / float(np.sqrt(product)) if product > 0 else 0.0
