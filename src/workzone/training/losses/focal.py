"""Focal loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from workzone.training.losses.base import Loss, LossInput, weighted_mean


class Focal(Loss):
    """Cross-entropy times ``(1 - p_t) ** gamma``: images that are right already count less.

    ``alpha`` is the weight of roadwork images and 1 - alpha that of the others. The paper's 0.25 belongs to detection
    with a thousand negatives for each positive; here it would weigh a missed roadwork a third of a false alarm, so the
    default is 0.5, which is neutral. Scores come out under-confident and are for calibration.

    Args:
        gamma: 0 or more; 0 with alpha 0.5 is half the cross-entropy.
        alpha: in (0, 1).

    Reference: Lin et al. 2017, arXiv 1708.02002.
    """

    name = "focal"
    soft_labels = True

    def __init__(self, gamma: float = 2.0, alpha: float = 0.5) -> None:
        super().__init__()
        if gamma < 0.0 or not 0.0 < alpha < 1.0:
            raise ValueError("gamma must be 0 or more and alpha between 0 and 1")
        self.gamma, self.alpha = gamma, alpha

    def compute(self, batch: LossInput) -> Tensor:
        """See ``Loss.forward``."""
        log_p, log_q = F.logsigmoid(batch.logits), F.logsigmoid(-batch.logits)
        # Powers as exponentials of logarithms: their derivative is finite where the probability is 0.
        positive = -self.alpha * (self.gamma * log_q).exp() * log_p
        negative = -(1.0 - self.alpha) * (self.gamma * log_p).exp() * log_q
        return weighted_mean(batch.labels * positive + (1.0 - batch.labels) * negative, batch.weights)

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"gamma": self.gamma, "alpha": self.alpha}
