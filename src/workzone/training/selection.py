"""The figures that training selects by, on raw log-odds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workzone.metrics.classification import accuracy, confusion, mcc
from workzone.metrics.comparison import midranks


def select_scores(log_odds: NDArray[np.floating], labels: NDArray[np.integer]) -> dict[str, float]:
    """NLL in nats, AUROC, MCC and accuracy at log-odds 0; AUROC is 0.5 and MCC 0 where they are undefined.

    Log-odds are never turned into probabilities here: those of a sure network would tie at 1 and be clipped.
    """
    z, y = np.asarray(log_odds, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    table = confusion(y, (z > 0).astype(np.int64))
    return {
        "nll": float(np.mean(np.logaddexp(0.0, z) - y * z)),
        "auroc": _auroc(z, y),
        "mcc": float(mcc(table)),
        "accuracy": float(accuracy(table)),
    }


def _auroc(z: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    positives = int(y.sum())
    pairs = positives * (len(y) - positives)
    if not pairs:
        return 0.5
    return float((midranks(z)[0, y == 1].sum() - positives * (positives + 1) / 2.0) / pairs)
