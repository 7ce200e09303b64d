"""The head that looks once, in the form of an aggregator."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from workzone.models.aggregators.base import Aggregator, hide
from workzone.models.heads import scorer, set_bias


class GlobalView(Aggregator):
    """Score of an image: that of its first view, the global one; further views are scored and carry no weight."""

    name: ClassVar[str] = "global"

    def __init__(self, dim: int, *, hidden: int, dropout: float, boxes: bool = False) -> None:
        super().__init__(dim, hidden=hidden, dropout=dropout, boxes=boxes)
        self.scorer = scorer(self.input_dim, hidden, dropout)

    def pool(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Aggregator.pool``."""
        views = hide(self.scorer(features).squeeze(-1), mask)
        first = torch.cumsum(mask.to(views.dtype), dim=-1)
        weights = ((first == 1.0) & mask).to(views.dtype)
        return (weights * views).sum(dim=-1), views, weights

    def set_prior(self, prevalence: float, *, views: int = 1) -> None:
        """See ``Aggregator.set_prior``."""
        set_bias(self.scorer, prevalence)
