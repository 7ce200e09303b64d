"""Labels in doubt, by confident learning on probabilities that were predicted without the image and its group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workzone.errors import DataError, needs_extra

FOLDS = 5
_C = 0.01


def out_of_fold(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    groups: Sequence[str],
    *,
    folds: int = FOLDS,
    repeats: int = 3,
    seed: int = 0,
    strength: float = _C,
) -> NDArray[np.float64]:
    """(N,) probability of roadwork of each image by logistic regressions that saw neither it nor its group.

    Args:
        features: (N, D) of a frozen network.
        labels: (N,) 0 or 1.
        groups: N names; a group lies in one fold, else a copy of an image would vouch for a wrong label.
        folds: stratified folds of groups; fewer where a class has fewer groups.
        repeats: dealings whose log-odds are averaged.
        seed: of the first dealing.
        strength: inverse regularisation C on standardised features.

    Raises:
        DataError: a class with fewer than two groups.
        MissingExtraError: scikit-learn is not installed.
    """
    with needs_extra("scikit-learn", "train", feature="the search for label errors"):
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedGroupKFold
    names = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)[1]
    fewest = min(len(np.unique(names[labels == c])) for c in (0, 1))
    if fewest < 2:
        raise DataError("a class has fewer than two groups, so no image can be judged by others", fix="add images")
    total = np.zeros(len(labels))
    for repeat in range(repeats):
        dealt = StratifiedGroupKFold(min(folds, fewest), shuffle=True, random_state=seed + repeat)
        for seen, held in dealt.split(features, labels, names):
            if len(np.unique(labels[seen])) < 2:
                raise DataError("a fold left one class only", fix="give more groups of the rarer class")
            mean, spread = features[seen].mean(axis=0), features[seen].std(axis=0) + 1e-6
            model = LogisticRegression(C=strength, max_iter=500)
            model.fit((features[seen] - mean) / spread, labels[seen])
            total[held] += model.decision_function((features[held] - mean) / spread)
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(total / repeats, -40, 40))))


@dataclass(frozen=True, slots=True)
class LabelDoubts:
    """Result of confident learning.

    Attributes:
        joint: (2, 2) estimated share of images by given (row) and true (column) label.
        thresholds: (2,) mean probability of each class among the images that carry its label.
        rows: images in doubt, the most doubtful first.
        margin: probability of the other label less that of the given one, for each of ``rows``.
        probability: probability of the other label, for each of ``rows``.
    """

    joint: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    rows: NDArray[np.int64]
    margin: NDArray[np.float64]
    probability: NDArray[np.float64]


def confident_joint(labels: NDArray[np.int64], probability: NDArray[np.float64]) -> NDArray[np.int64]:
    """(2, 2) counts of images by given label and by the class that they are confidently of.

    An image is confidently of class j if its probability of j is at least the mean over the images labelled j; of
    several such classes the most probable counts (Northcutt, Jiang, Chuang 2021, arXiv 1911.00068, equation 1).
    """
    p = np.stack([1.0 - probability, probability], axis=1)
    limits = np.array([p[labels == c, c].mean() for c in (0, 1)])
    above = np.where(p >= limits - 1e-12, p, -1.0)
    confident = above.max(axis=1) >= 0
    counts = np.zeros((2, 2), dtype=np.int64)
    np.add.at(counts, (labels[confident], above.argmax(axis=1)[confident]), 1)
    return counts


def find_label_doubts(labels: NDArray[np.int64], probability: NDArray[np.float64]) -> LabelDoubts:
    """Images whose label is in doubt, by the rule "prune by noise rate".

    The counts are scaled to the images of each given label; from each off-diagonal cell come the images with the
    largest margin for the other class. An image whose given label is the more probable one is never among them.

    Args:
        labels: (N,) given labels, both classes.
        probability: (N,) out-of-fold probability of roadwork.

    Raises:
        ValueError: shapes that do not fit, or one class only.
    """
    if labels.shape != probability.shape or set(np.unique(labels)) != {0, 1}:
        raise ValueError("labels and probabilities must be (N,), with both classes")
    counts = confident_joint(labels, probability).astype(np.float64)
    given = np.bincount(labels, minlength=2).astype(np.float64)
    sums = counts.sum(axis=1)
    # Without one confident image, a class is taken as it is labelled.
    counts[sums == 0] = np.diag(given)[sums == 0]
    scaled = counts / counts.sum(axis=1, keepdims=True) * given[:, None]
    p = np.stack([1.0 - probability, probability], axis=1)
    margin = p[np.arange(len(labels)), 1 - labels] - p[np.arange(len(labels)), labels]
    rows: list[int] = []
    for c in (0, 1):
        own = np.flatnonzero(labels == c)
        take = own[np.argsort(-margin[own], kind="stable")[: round(float(scaled[c, 1 - c]))]]
        rows += take[margin[take] > 0].tolist()
    order = np.array(sorted(rows, key=lambda i: (-margin[i], i)), dtype=np.int64)
    limits = np.array([p[labels == c, c].mean() for c in (0, 1)])
    return LabelDoubts(scaled / scaled.sum(), limits, order, margin[order], p[order, 1 - labels[order]])
