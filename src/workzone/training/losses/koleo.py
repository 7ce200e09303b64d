"""Spread of embeddings."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from workzone.training.losses.base import Loss, LossInput, Need, full_precision, need, weighted_mean


class KoLeo(Loss):
    """Minus the mean logarithm of the distance to the nearest other image, on normalised embeddings.

    Of two equal images in a batch each gives ``-log eps`` and a large gradient: remove duplicates first. As a term of a
    classifier it works against the clustering of classes; DINOv2 weighs it 0.1.

    Args:
        eps: keeps the logarithm finite.

    Reference: Sablayrolles et al. 2018, arXiv 1806.03198; Oquab et al. 2023, arXiv 2304.07193.
    """

    name = "koleo"
    soft_labels = True
    trains_logits = False

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        if eps <= 0.0:
            raise ValueError("eps must be above 0")
        self.eps = eps

    @property
    def needs(self) -> frozenset[Need]:
        """Embeddings."""
        return frozenset({"embeddings"})

    def compute(self, batch: LossInput) -> Tensor:
        """See ``Loss.forward``."""
        z = F.normalize(full_precision(need(batch.embeddings)), dim=1, eps=self.eps)
        if len(z) < 2:
            return z.sum() * 0.0
        nearest = (z @ z.T).detach().fill_diagonal_(-2.0).argmax(dim=1)
        distance = F.pairwise_distance(z, z[nearest], eps=self.eps)
        return weighted_mean(-(distance + self.eps).log(), batch.weights)

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"eps": self.eps}
