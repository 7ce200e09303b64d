"""A weighted sum of losses."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from workzone.training.losses.base import Loss, LossInput, Need


class WeightedSum(Loss):
    """Sum of ``losses`` times ``weights``; it needs what any of them needs."""

    name = "sum"

    def __init__(self, losses: Sequence[Loss], weights: Sequence[float]) -> None:
        super().__init__()
        if len(losses) != len(weights) or not losses:
            raise ValueError("a sum has one weight for each loss")
        self.losses = nn.ModuleList(losses)
        self.weights = tuple(weights)
        self.soft_labels = all(loss.soft_labels for loss in losses)
        self.trains_logits = any(loss.trains_logits for loss in losses)
        self._needs = frozenset[Need]().union(*(loss.needs for loss in losses))

    @property
    def needs(self) -> frozenset[Need]:
        """Union of what the losses need."""
        return self._needs

    def compute(self, batch: LossInput) -> Tensor:
        """See ``Loss.forward``."""
        values = [weight * loss(batch) for weight, loss in zip(self.weights, self.losses, strict=True)]
        total: Tensor = sum(values[1:], start=values[0])
        return total
