"""Cross-validation folds that keep groups whole and spread both classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workzone.predictions import IntArray, StrArray


def group_folds(labels: IntArray, groups: StrArray, folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Fold (N,) of each image; no group is split over two folds.

    Groups are dealt out in random order, large ones first, each to the fold that lacks most of what the group brings,
    relative to an even share of positives and negatives.
    """
    names, inverse = np.unique(groups, return_inverse=True)
    positives = np.bincount(inverse, weights=labels, minlength=len(names))
    negatives = np.bincount(inverse, weights=1 - labels, minlength=len(names))
    scale = (max(float(positives.sum()), 1.0), max(float(negatives.sum()), 1.0))
    order = rng.permutation(len(names))
    order = order[np.argsort(-(positives + negatives)[order], kind="stable")]
    have = [[0.0, 0.0] for _ in range(folds)]
    fold_of = np.zeros(len(names), dtype=np.int64)
    for g in order.tolist():
        a, b = float(positives[g]) / scale[0], float(negatives[g]) / scale[1]
        # The fold whose squared load grows least; the smaller one of equals.
        fold = min(range(folds), key=lambda k: (2.0 * (have[k][0] * a + have[k][1] * b), have[k][0] + have[k][1]))
        have[fold][0] += a
        have[fold][1] += b
        fold_of[g] = fold
    return np.asarray(fold_of[inverse], dtype=np.int64)
