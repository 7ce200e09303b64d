"""Binary cross-entropy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from workzone.training.losses.base import Loss, LossInput


class CrossEntropy(Loss):
    """Binary cross-entropy of log-odds.

    Args:
        pos_weight: weight of a roadwork image; other than 1 it shifts the prior, which calibration undoes.
    """

    name = "cross_entropy"
    soft_labels = True

    def __init__(self, pos_weight: float = 1.0) -> None:
        super().__init__()
        if not 0.0 < pos_weight < float("inf"):
            raise ValueError("pos_weight must be above 0")
        self.pos_weight = pos_weight

    def compute(self, batch: LossInput) -> Tensor:
        """See ``Loss.forward``."""
        weight = None if self.pos_weight == 1.0 else torch.tensor(self.pos_weight).to(batch.logits)
        return F.binary_cross_entropy_with_logits(batch.logits, batch.labels, weight=batch.weights, pos_weight=weight)

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"pos_weight": self.pos_weight}
