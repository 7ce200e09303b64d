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
    """Score of an image ``(1/r) log mean_v exp(r u_v)`` over its view scores u, with a learned r > 0.

    Weights are the derivatives of the score by each view's, ``softmax(r u)``. Being a mean inside the logarithm, the
    score does not rise with the number of views alone.

    Reference: Pinheiro and Collobert 2015 (arXiv 1411.6228).

    Args:
        sharpness: r at the start.
    """

    name: ClassVar[str] = "logsumexp"

    def __init__(self, dim: int, *, hidden: int, dropout: float, boxes: bool = False, sharpness: float = 1.0) -> None:
        super().__init__(dim, hidden=hidden, dropout=dropout, boxes=boxes)
        self.sharpness = sharpness
        self.scorer = scorer(self.input_dim, hidden, dropout)
        self.raw_sharpness = nn.Parameter(torch.tensor(math.log(math.expm1(sharpness))))

    def pool(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Aggregator.pool``."""
        views = hide(self.scorer(features).squeeze(-1), mask)
        r = F.softplus(self.raw_sharpness) + 1e-3
        count = mask.to(views.dtype).sum(dim=-1).clamp_min(1.0)
        log_odds = (torch.logsumexp(r * views, dim=-1) - count.log()) / r
        return log_odds, views, masked_softmax(r * views, mask)

    def set_prior(self, prevalence: float) -> None:
        """See ``Aggregator.set_prior``."""
        set_bias(self.scorer, prevalence)

    def settings(self) -> dict[str, Any]:
        """See ``Aggregator.settings``."""
        return super().settings() | {"sharpness": self.sharpness}
