"""Mean of the k largest view scores."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from workzone.models.aggregators.base import Aggregator, hide
from workzone.models.heads import scorer, set_bias


class TopKMean(Aggregator):
    """Score of an image: mean of its k largest view log-odds, or of all where it has fewer views.

    The score rises with the number of views (more chances), so the calibrator belongs to one layout and one k.

    Args:
        k: views averaged.
    """

    name: ClassVar[str] = "topk_mean"

    def __init__(self, dim: int, *, hidden: int, dropout: float, boxes: bool = False, k: int = 3) -> None:
        super().__init__(dim, hidden=hidden, dropout=dropout, boxes=boxes)
        self.k = k
        self.scorer = scorer(self.input_dim, hidden, dropout)

    def pool(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Aggregator.pool``."""
        views = hide(self.scorer(features).squeeze(-1), mask)
        # Ranks by comparing pairs: unlike topk this exports for any number of views, fewer than k included. Among equal
        # scores the earlier view ranks first.
        above = views.unsqueeze(-2) > views.unsqueeze(-1)
        equal = views.unsqueeze(-2) == views.unsqueeze(-1)
        order = torch.cumsum(torch.ones_like(views), dim=-1)
        earlier = order.unsqueeze(-2) < order.unsqueeze(-1)
        rank = (above | (equal & earlier)).to(views.dtype).sum(dim=-1)
        chosen = ((rank < self.k) & mask).to(views.dtype)
        weights = chosen / chosen.sum(dim=-1, keepdim=True).clamp_min(1.0)
        return (weights * views).sum(dim=-1), views, weights

    def set_prior(self, prevalence: float, *, views: int = 1) -> None:
        """See ``Aggregator.set_prior``."""
        set_bias(self.scorer, prevalence)

    def settings(self) -> dict[str, Any]:
        """See ``Aggregator.settings``."""
        return super().settings() | {"k": self.k}
