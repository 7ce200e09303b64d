"""Cross-validation folds that keep groups whole and spread the classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workzone.predictions import FloatArray, IntArray, StrArray

_FOLDS, _SEED = 5, 0


def group_folds(labels: IntArray, groups: StrArray, folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Fold (N,) of each image; no group is split over two folds.

    Groups are dealt out in random order, large ones first, each to the fold that lacks most of what the group brings,
    relative to an even share of each class of ``labels`` (0, 1, ...).
    """
    names, inverse = np.unique(groups, return_inverse=True)
    classes = max(int(labels.max(initial=1)) + 1, 2)
    counts = np.zeros((len(names), classes))
    np.add.at(counts, (inverse, labels), 1.0)
    shares = counts / np.maximum(counts.sum(axis=0), 1.0)
    order = rng.permutation(len(names))
    order = order[np.argsort(-counts.sum(axis=1)[order], kind="stable")]
    have = [[0.0] * classes for _ in range(folds)]
    fold_of = np.zeros(len(names), dtype=np.int64)
    for g in order.tolist():
        share = shares[g].tolist()
        # The fold whose squared load grows least; the smaller one of equals.
        fold = min(
            range(folds), key=lambda k: (2.0 * sum(h * s for h, s in zip(have[k], share, strict=True)), sum(have[k]))
        )
        have[fold] = [h + s for h, s in zip(have[fold], share, strict=True)]
        fold_of[g] = fold
    return np.asarray(fold_of[inverse], dtype=np.int64)


def fixed_folds(labels: IntArray, groups: StrArray) -> NDArray[np.int64]:
    """Fold (N,) of each image, of five or as many as there are groups: what a calibrator with a setting chooses by."""
    return group_folds(labels, groups, min(_FOLDS, len(np.unique(groups))), np.random.default_rng(_SEED))


def mean_and_se(values: FloatArray, groups: IntArray) -> tuple[float, float]:
    """Mean over images and its standard error with ``groups`` (N,), numbered from 0, as the independent units."""
    mean = float(values.mean())
    residuals = np.bincount(groups, weights=values - mean)
    n_groups = len(residuals)
    return mean, float(np.sqrt(n_groups / (n_groups - 1.0) * np.sum(residuals**2)) / len(values))
