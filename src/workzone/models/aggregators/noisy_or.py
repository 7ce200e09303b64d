"""Noisy-or over views: the image shows roadwork when at least one view does."""

from __future__ import annotations

import math
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workzone.models.aggregators.base import Aggregator, hide, masked_softmax
from workzone.models.heads import scorer

# Below, the logarithm of softplus is its argument to float32; above, softplus is far from underflow.
_FAR = -15.0
# Below, log(expm1(s)) by its series, where the direct form would lose digits.
_SMALL = 0.5


class NoisyOr(Aggregator):
    """Score of an image ``logit(1 - prod_v (1 - p_v))`` with ``p_v = sigmoid(u_v)``, views taken as independent.

    With ``s = sum_v softplus(u_v) = -log prod_v (1 - p_v)`` that is ``log(exp(s) - 1)``, which is finite for any
    scores. Weights are ``p_v / sum p``, the derivatives of the score by each view's up to their sum. The score is at
    least the largest view score and rises with the number of views, so the calibrator belongs to one layout.

    Reference: Maron and Lozano-Perez 1998 (NIPS 10, A framework for multiple-instance learning).
    """

    name: ClassVar[str] = "noisy_or"

    def __init__(self, dim: int, *, hidden: int, dropout: float, boxes: bool = False) -> None:
        super().__init__(dim, hidden=hidden, dropout=dropout, boxes=boxes)
        self.scorer = scorer(self.input_dim, hidden, dropout)

    def pool(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Aggregator.pool``."""
        views = hide(self.scorer(features).squeeze(-1), mask)
        return noisy_or(views), views, masked_softmax(F.logsigmoid(views), mask)

    def set_prior(self, prevalence: float, *, views: int = 1) -> None:
        """See ``Aggregator.set_prior``; each view gets the share that makes ``views`` of them reach ``prevalence``."""
        p = min(max(prevalence, 0.01), 0.99)
        # Independent views at this share reach p together: 1 - (1 - q)^views = p.
        q = -math.expm1(math.log1p(-p) / views)
        with torch.no_grad():
            cast(nn.Linear, self.scorer[-1]).bias.fill_(math.log(q) - math.log1p(-q))


def noisy_or(view_log_odds: Tensor) -> Tensor:
    """Log-odds (B,) of at least one of the views (B, V), ``MASKED`` for a view that does not exist."""
    far = view_log_odds < _FAR
    # What a branch does not take is replaced before it, so that its gradient is 0 and not NaN.
    log_each = torch.where(far, view_log_odds, F.softplus(torch.where(far, 0.0, view_log_odds)).log())
    log_s = torch.logsumexp(log_each, dim=-1)
    s = F.softplus(view_log_odds).sum(dim=-1)
    small = s < _SMALL
    low, high = torch.where(small, s, 0.0), torch.where(small, _SMALL, s)
    series = log_s + low / 2.0 + low.square() / 24.0
    direct = high + torch.log1p(-torch.exp(-high))
    return torch.where(small, series, direct)
