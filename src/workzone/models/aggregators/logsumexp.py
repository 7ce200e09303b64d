"""Normalised log-sum-exp over view scores: between their mean and their maximum, and the sharpness is learned."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workzone.models.aggregators.base import Aggregator, hide, masked_softmax
from workzone.models.heads import scorer, set_bias


class LogSumExp(Aggregator):
    """Score of an image ``(1/r) log mean_v exp(r u_v)`` over its view scores u, with r > 0 learned or fixed.

    Weights are the derivatives of the score by each view's, ``softmax(r u)``. Being a mean inside the logarithm, the
    score does not rise with the number of views alone.

    Reference: Pinheiro and Collobert 2015 (arXiv 1411.6228).

    Args:
        sharpness: r, at the start if learned.
        learned: whether r is trained.
    """

    name: ClassVar[str] = "logsumexp"

    def __init__(
        self,
        dim: int,
        *,
        hidden: int,
        dropout: float,
        boxes: bool = False,
        sharpness: float = 1.0,
        learned: bool = True,
    ) -> None:
        super().__init__(dim, hidden=hidden, dropout=dropout, boxes=boxes)
        self.sharpness, self.learned = sharpness, learned
        self.scorer = scorer(self.input_dim, hidden, dropout)
        start = torch.tensor(inverse_softplus(sharpness))
        if learned:
            self.raw_sharpness = nn.Parameter(start)
        else:
            self.register_buffer("raw_sharpness", start)

    def pool(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Aggregator.pool``."""
        views = hide(self.scorer(features).squeeze(-1), mask)
        r = F.softplus(self.raw_sharpness) + 1e-3
        return log_mean_exp(views, mask, r), views, masked_softmax(r * views, mask)

    def set_prior(self, prevalence: float, *, views: int = 1) -> None:
        """See ``Aggregator.set_prior``."""
        set_bias(self.scorer, prevalence)

    def settings(self) -> dict[str, Any]:
        """See ``Aggregator.settings``."""
        return super().settings() | {"sharpness": self.sharpness, "learned": self.learned}


def log_mean_exp(views: Tensor, mask: Tensor, r: Tensor) -> Tensor:
    """``(1/r) log mean_v exp(r u_v)`` (B,) over the views (B, V) that exist; ``MASKED`` where one does not."""
    count = mask.to(views.dtype).sum(dim=-1).clamp_min(1.0)
    return (torch.logsumexp(r * views, dim=-1) - count.log()) / r


def inverse_softplus(value: float) -> float:
    """x with softplus(x) = value, for a value above 0."""
    return value + math.log(-math.expm1(-value))
