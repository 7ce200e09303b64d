"""Which images an epoch shows, in which order."""

from __future__ import annotations

import torch
from torch import Tensor

_START = 0.5


def epoch_rows(
    labels: Tensor, admitted: Tensor | None = None, *, groups: Tensor | None = None, balanced: bool = False
) -> Tensor:
    """Rows of one epoch in random order, on the CPU.

    Args:
        labels: (N,) 0 or 1.
        admitted: rows that may be shown, None for all.
        groups: (N,) codes; images of one group follow each other.
        balanced: draw with replacement, both classes equally often.
    """
    n = len(labels) if admitted is None else len(admitted)
    if balanced:
        own = labels.cpu() if admitted is None else labels.cpu()[admitted]
        order = torch.multinomial(class_weights(own), n, replacement=True)
    else:
        order = torch.randperm(n)
    rows = order if admitted is None else admitted[order]
    if groups is None:
        return rows
    _, codes = groups.cpu().unique(return_inverse=True)  # type: ignore[no-untyped-call]
    turn = torch.randperm(int(codes.max()) + 1)
    return rows[turn[codes[rows]].argsort(stable=True)]


def class_weights(labels: Tensor) -> Tensor:
    """Weight (N,) ``n / (2 * n_class)`` of each image, under which both classes weigh the same; their mean is 1."""
    positive = labels > 0.5
    count = torch.where(positive, positive.sum(), (~positive).sum())
    return len(labels) / (2.0 * count.float())


def easiest(difficulty: Tensor, labels: Tensor, share: float) -> Tensor:
    """Rows of the ``share`` of each class with the least ``difficulty``, in order of rows.

    By class, because the easy images of a skewed set are those of the larger one.
    """
    kept = []
    for label in (0, 1):
        rows = ((labels > 0.5) == bool(label)).nonzero().squeeze(1).cpu()
        count = max(min(1, len(rows)), round(share * len(rows)))
        kept.append(rows[difficulty.cpu()[rows].argsort(stable=True)[:count]])
    return torch.cat(kept).sort().values


def pace(epoch: int, epochs: int, curriculum: float) -> float:
    """Share of the images that ``epoch`` admits: half at first, all from ``curriculum * epochs`` on.

    Bengio et al. 2009 (ICML); Wu et al. 2021 (arXiv 2012.03107) found little gain over random order without noise.
    """
    length = curriculum * epochs
    return 1.0 if epoch >= length else _START + (1.0 - _START) * epoch / length
