"""Gatekeeper: a small model that is sure only where it is right."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from workzone.training.losses.base import Loss, LossInput, weighted_mean


class Gatekeeper(Loss):
    """Cross-entropy where the label is right, divergence from a coin flip where it is wrong.

    The paper tunes a trained model, so cross-entropy comes first, for ``start`` epochs. A low ``alpha`` gives better
    deferral for less accuracy. Images with a wrong label are pushed to 0.5, and so are rare hard positives.

    Args:
        alpha: share of the cross-entropy, in (0, 1).
        start: epochs of cross-entropy before. The epoch that is kept is the best by the selection figure, and may be
            one of these.

    Reference: Rabanser et al. 2025, arXiv 2502.19335.
    """

    name = "gatekeeper"

    def __init__(self, alpha: float = 0.5, start: float = 5.0) -> None:
        super().__init__()
        if not 0.0 < alpha < 1.0 or start < 0.0:
            raise ValueError("alpha must be between 0 and 1 and start 0 or more")
        self.alpha, self.start = alpha, start

    def compute(self, batch: LossInput) -> Tensor:
        """See ``Loss.forward``."""
        entropy_to_label = F.binary_cross_entropy_with_logits(batch.logits, batch.labels, reduction="none")
        if batch.epoch < self.start:
            return weighted_mean(entropy_to_label, batch.weights)
        log_p, log_q = F.logsigmoid(batch.logits), F.logsigmoid(-batch.logits)
        from_coin = math.log(2.0) + log_p.exp() * log_p + log_q.exp() * log_q
        right = ((batch.logits > 0) == (batch.labels > 0.5)).to(batch.logits)
        each = self.alpha * right * entropy_to_label + (1.0 - self.alpha) * (1.0 - right) * from_coin
        return weighted_mean(each, batch.weights)

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"alpha": self.alpha, "start": self.start}
