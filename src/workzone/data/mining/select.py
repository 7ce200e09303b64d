"""Confident mistakes, orange candidates, and pseudo-labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workzone.data.quality.orange import OrangeParts

Floats = NDArray[np.float64]


def confident_mistakes(labels: NDArray[np.int64], p: Floats, *, confidence: float = 0.9) -> NDArray[np.int64]:
    """Rows whose label is contradicted with at least ``confidence``, the surest mistake first.

    On images that the model was trained on there is little to find: it has learnt their labels.

    Args:
        labels: (N,) 0, 1, or -1 for unlabelled.
        p: (N,) calibrated probability of roadwork.
        confidence: least probability of the other class, above 0.5.
    """
    if not 0.5 < confidence <= 1:
        raise ValueError("confidence must be more than 0.5 and at most 1")
    other = np.where(labels == 1, 1 - p, np.where(labels == 0, p, 0.0))
    rows = np.flatnonzero(other >= confidence)
    return np.asarray(rows[np.argsort(-other[rows], kind="stable")])


def orange_candidates(
    labels: NDArray[np.int64],
    p: Floats,
    parts: Sequence[OrangeParts | None],
    *,
    least: float = 0.0005,
    fill: float = 0.3,
) -> tuple[NDArray[np.int64], Floats]:
    """Rows with an orange thing that the model or the label calls free of roadwork, and the score of each.

    Such an image is a negative that teaches what orange is not roadwork, or roadwork that was missed; colour and shape
    cannot tell, so a person looks. The score is the share of the picture of its largest compact orange part, times the
    probability that the model gives to no roadwork.

    Args:
        labels: (N,) 0, 1, or -1 for unlabelled; images labelled 1 are never candidates.
        p: (N,) calibrated probability.
        parts: orange parts of each image, None where it could not be read.
        least: least share of the picture of the largest part.
        fill: least share of its bounding box that the part covers.
    """
    compact = np.array([0.0 if o is None or o.fill < fill else o.largest for o in parts])
    score = np.where((labels != 1) & (compact >= least), compact * (1 - p), 0.0)
    rows = np.flatnonzero(score > 0)
    rows = rows[np.argsort(-score[rows], kind="stable")]
    return rows, score[rows]


@dataclass(frozen=True, slots=True)
class PseudoLabels:
    """Labels that a model gives to unlabelled images.

    Attributes:
        rows: chosen images.
        labels: label of each.
        confidence: calibrated probability of that label.
        eligible: images of class 0 and 1 that were sure enough, before classes were balanced.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    confidence: Floats
    eligible: tuple[int, int]


def pseudo_labels(
    p: Floats,
    *,
    confidence: float = 0.95,
    balance: Literal["equal", "prior", "none"] = "prior",
    prior: float | None = None,
    most: int | None = None,
) -> PseudoLabels:
    """Pseudo-labels of the images that are sure enough, the surest of each class first.

    The easier class has more of them; taken all, they would tilt the next model towards it. Therefore classes are cut
    to a
    share: ``equal``, or the ``prior`` share of roadwork, by default the mean of the calibrated probabilities.

    Args:
        p: (N,) calibrated probability of unlabelled images.
        confidence: least probability of the given label.
        balance: how classes are cut.
        prior: share of roadwork for ``prior``.
        most: largest number of images in all.

    Raises:
        ValueError: numbers out of range.
    """
    if not 0.5 < confidence <= 1 or (prior is not None and not 0 <= prior <= 1):
        raise ValueError("confidence must be in (0.5, 1] and prior in [0, 1]")
    sure = [np.flatnonzero(1 - p >= confidence), np.flatnonzero(p >= confidence)]
    sure = [rows[np.argsort(-np.abs(p[rows] - 0.5), kind="stable")] for rows in sure]
    eligible = (len(sure[0]), len(sure[1]))
    total = sum(eligible) if most is None else min(most, sum(eligible))
    share = 0.5 if balance == "equal" else float(p.mean() if prior is None and len(p) else prior or 0.0)
    if balance != "none" and total:
        for wanted, rows in ((1 - share, sure[0]), (share, sure[1])):
            if wanted > 0:
                total = min(total, int(np.floor(len(rows) / wanted + 1e-9)))
        counts = [round(total * (1 - share)), round(total * share)]
    else:
        # The surest of all, whatever their class.
        both = np.concatenate(sure)
        kept = set(both[np.argsort(-np.abs(p[both] - 0.5), kind="stable")][:total].tolist())
        counts = [sum(int(r) in kept for r in rows) for rows in sure]
    rows = np.concatenate([own[:n] for own, n in zip(sure, counts, strict=True)])
    labels = np.repeat([0, 1], [min(n, len(own)) for own, n in zip(sure, counts, strict=True)]).astype(np.int64)
    return PseudoLabels(rows.astype(np.int64), labels, np.where(labels == 1, p[rows], 1 - p[rows]), eligible)
