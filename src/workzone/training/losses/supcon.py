"""Supervised contrastive loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from workzone.training.losses.base import Loss, LossInput, Need, full_precision, need


class SupCon(Loss):
    """Pulls embeddings of one label together, in the form with the mean outside the logarithm.

    An image without another of its label in the batch is no anchor. With two classes the optimum is one point for each,
    so what tells images of a class apart is lost: a term beside cross-entropy, not a loss of its own.

    Args:
        temperature: above 0.

    Reference: Khosla et al. 2020, arXiv 2004.11362, equation 2.
    """

    name = "supcon"
    trains_logits = False

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        if temperature <= 0.0:
            raise ValueError("temperature must be above 0")
        self.temperature = temperature

    @property
    def needs(self) -> frozenset[Need]:
        """Embeddings."""
        return frozenset({"embeddings"})

    def compute(self, batch: LossInput) -> Tensor:
        """See ``Loss.forward``."""
        z = F.normalize(full_precision(need(batch.embeddings)), dim=1)
        own = torch.eye(len(z), dtype=torch.bool, device=z.device)
        similar = (z @ z.T / self.temperature).masked_fill(own, -torch.inf)
        log_p = (similar - similar.logsumexp(dim=1, keepdim=True)).masked_fill(own, 0.0)
        same = (batch.labels[:, None] == batch.labels[None, :]) & ~own
        count = same.sum(dim=1)
        anchors = count > 0
        if len(z) < 2 or not bool(anchors.any()):
            return z.sum() * 0.0
        each = -(log_p * same).sum(dim=1) / count.clamp_min(1)
        weights = 1.0 if batch.weights is None else batch.weights
        return (each * weights * anchors).sum() / anchors.sum()

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"temperature": self.temperature}
