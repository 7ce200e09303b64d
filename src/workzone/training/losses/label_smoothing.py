"""Cross-entropy with smoothed labels."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from workzone.training.losses.base import Loss, LossInput


class LabelSmoothing(Loss):
    """Cross-entropy against ``(1 - epsilon) * label + epsilon / 2`` (Szegedy et al. 2016, arXiv 1512.00567).

    It caps confidence and ranks mistakes worse (Xia et al. 2024, arXiv 2403.14715), which is what abstaining lives on.

    Args:
        epsilon: in [0, 1).
    """

    name = "label_smoothing"
    soft_labels = True

    def __init__(self, epsilon: float = 0.1) -> None:
        super().__init__()
        if not 0.0 <= epsilon < 1.0:
            raise ValueError("epsilon must be in [0, 1)")
        self.epsilon = epsilon

    def compute(self, batch: LossInput) -> Tensor:
        """See ``Loss.forward``."""
        target = (1.0 - self.epsilon) * batch.labels + self.epsilon / 2.0
        return F.binary_cross_entropy_with_logits(batch.logits, target, weight=batch.weights)

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"epsilon": self.epsilon}
