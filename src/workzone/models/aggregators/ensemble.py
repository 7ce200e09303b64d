"""Heads from different seeds as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from workzone.models.aggregators.base import Aggregator


class Ensemble(nn.Module):
    """Mean of the scores, view scores and weights of its members.

    The mean of log-odds is the log-odds of the geometric mean of the members' odds; calibration comes after it.

    Args:
        members: at least one aggregator, all of one width.
    """

    def __init__(self, members: Sequence[Aggregator]) -> None:
        super().__init__()
        if not members or len({m.dim for m in members}) != 1:
            raise ValueError("an ensemble needs members of one width")
        self.members = nn.ModuleList(members)
        self.dim = members[0].dim

    def forward(self, embeddings: Tensor, boxes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Aggregator.forward``."""
        parts = [cast(tuple[Tensor, Tensor, Tensor], member(embeddings, boxes, mask)) for member in self.members]
        log_odds, views, weights = (torch.stack(part).mean(dim=0) for part in zip(*parts, strict=True))
        return log_odds, views, weights
