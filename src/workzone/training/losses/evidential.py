"""Evidential loss: the score as the mean of a Dirichlet distribution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workzone.training.losses.base import Loss, LossInput, Need, full_precision, need, weighted_mean

_LARGEST = 30.0


class Evidential(Loss):
    """Expected squared error under a Dirichlet distribution, and the divergence of evidence for the wrong class.

    The score is ``log(alpha1 / alpha0)``, so the head and its export stay as they are. The second number of the head,
    how much evidence there is in all, comes from the embedding by a linear layer of this loss, for training alone: it
    is the evidence for both classes beyond the least that the score implies. Every pair of evidences that are 0 or
    more is one score and one such number.

    What it calls vacuity depends on ``anneal`` and does not vanish with data (Bengs et al. 2022, arXiv 2203.06102).

    Args:
        dim: width D of the embeddings.
        anneal: epochs until the divergence counts fully.

    Reference: Sensoy, Kaplan, Kandemir 2018, arXiv 1806.01768, equations 5 to 7.
    """

    name = "evidential"

    def __init__(self, dim: int, anneal: float = 10.0) -> None:
        super().__init__()
        if anneal <= 0.0:
            raise ValueError("anneal must be above 0")
        self.dim, self.anneal = dim, anneal
        self.strength = nn.Linear(dim, 1)

    @property
    def needs(self) -> frozenset[Need]:
        """Embeddings."""
        return frozenset({"embeddings"})

    def alpha(self, logits: Tensor, embeddings: Tensor) -> Tensor:
        """Dirichlet parameters (B, 2) of no_roadwork and roadwork, 1 or more."""
        strength: Tensor = self.strength(full_precision(embeddings))
        return alpha_of(logits, F.softplus(strength.squeeze(-1)))

    def compute(self, batch: LossInput) -> Tensor:
        """See ``Loss.forward``."""
        alpha = self.alpha(batch.logits, need(batch.embeddings))
        return weighted_mean(self.each(alpha, batch.labels, batch.epoch), batch.weights)

    def each(self, alpha: Tensor, labels: Tensor, epoch: int) -> Tensor:
        """Loss (B,) of Dirichlet parameters ``alpha`` (B, 2) after ``epoch`` epochs."""
        total = alpha.sum(dim=1)
        p = alpha[:, 1] / total
        error = 2.0 * (labels - p) ** 2 + 2.0 * p * (1.0 - p) / (total + 1.0)
        wrong = torch.where(labels > 0.5, alpha[:, 0], alpha[:, 1])
        # Divergence of Beta(1, b) from the uniform distribution.
        divergence = wrong.log() - (wrong - 1.0) / wrong
        return error + min(1.0, epoch / self.anneal) * divergence

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"dim": self.dim, "anneal": self.anneal}


def alpha_of(logits: Tensor, extra: Tensor) -> Tensor:
    """Dirichlet parameters (B, 2) with log-odds ``logits`` and ``extra`` evidence (0 or more) beyond the least."""
    z = logits.clamp(-_LARGEST, _LARGEST)
    size = z.abs()
    less = 1.0 + extra * torch.sigmoid(-size)
    more = size.exp() + extra * torch.sigmoid(size)
    return torch.stack([torch.where(z >= 0, less, more), torch.where(z >= 0, more, less)], dim=1)
