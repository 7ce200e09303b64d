"""Domain-adversarial training: hidden units from which the data set of an image cannot be told."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """``x`` as it is; its gradient comes back times ``-strength``."""
    out: Tensor = _Reverse.apply(x, strength)
    return out


def ramp(progress: float) -> float:
    """Strength ``2 / (1 + exp(-10 t)) - 1`` at the share t of the training that is done (Ganin et al. 2016)."""
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


class DomainTerm(nn.Module):
    """Cross-entropy of a head that guesses the data set from hidden units, with reversed gradient.

    Ganin et al. 2016 (arXiv 1505.07818). Where data sets differ in their share of roadwork, equal distributions of
    features force errors (Zhao et al. 2019, arXiv 1901.09453); therefore each image is weighed by ``balance``, under
    which every data set holds both classes equally, and data sets that lack a class are left out for the class they
    have.

    Args:
        dim: width of the hidden units.
        sets: number of data sets K.
        hidden: width of the head.
    """

    def __init__(self, dim: int, sets: int, *, hidden: int = 64) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, sets))

    def forward(self, hidden: Tensor, sets: Tensor, weights: Tensor, strength: float) -> Tensor:
        """Mean loss over images (B, dim) of data sets (B,), weighed by (B,); 0 where all weights are 0."""
        each = F.cross_entropy(self.head(reverse_gradient(hidden, strength)), sets, reduction="none")
        return (each * weights).sum() / weights.sum().clamp_min(1e-6)


def balance(labels: Tensor, sets: Tensor) -> Tensor:
    """(N,) weights under which each data set weighs the same and holds both classes equally; their mean is 1.

    A data set with one class gets 0: to hide it would mean to hide the class.
    """
    positive = (labels > 0.5).long()
    cells = torch.bincount(sets * 2 + positive, minlength=2 * (int(sets.max()) + 1)).view(-1, 2)
    both = (cells > 0).all(dim=1)
    weights = torch.where(both[sets], 1.0 / cells[sets, positive].float(), torch.zeros(len(sets), device=sets.device))
    return weights * len(sets) / weights.sum().clamp_min(1e-12)
