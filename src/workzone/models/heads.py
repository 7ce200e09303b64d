"""The head that looks at one embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workzone.models.standardise import Standardise


class ProbeHead(nn.Module):
    """Log-odds of roadwork from one embedding; linear, or with one hidden layer.

    Args:
        dim: width D of the embedding.
        hidden: width of the hidden layer, 0 for a linear head.
        dropout: share of features and hidden units dropped in training.
    """

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dim, self.hidden, self.dropout = dim, hidden, dropout
        self.standardise = Standardise(dim)
        self.body: nn.Module = scorer(dim, hidden, dropout)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Log-odds (N,) of embeddings (N, D)."""
        out: Tensor = self.body(self.standardise(embeddings))
        return out.squeeze(-1)

    def set_statistics(self, features: Tensor) -> None:
        """Standardise by the mean and deviation of training features (N, D)."""
        self.standardise.fit(features)

    def set_prior(self, prevalence: float) -> None:
        """Start from the log-odds of ``prevalence``."""
        set_bias(self.body, prevalence)


class FeatureDropout(nn.Module):
    """Dropout of input features; all views of an image (..., V, D) lose the same ones, for V times fewer draws."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, features: Tensor) -> Tensor:
        """``features`` (..., D), unchanged in evaluation mode."""
        if not self.training or not self.p:
            return features
        shape = (*features.shape[:-2], 1, features.shape[-1]) if features.ndim > 2 else features.shape
        return features * F.dropout(torch.ones(shape, device=features.device, dtype=features.dtype), self.p)


def scorer(dim: int, hidden: int, dropout: float) -> nn.Sequential:
    """Linear or one-hidden-layer map from ``dim`` features to one log-odds."""
    if not hidden:
        return nn.Sequential(FeatureDropout(dropout), last_layer(dim))
    return nn.Sequential(
        FeatureDropout(dropout),
        nn.Linear(dim, hidden),
        nn.LayerNorm(hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        last_layer(hidden),
    )


def last_layer(dim: int) -> nn.Linear:
    """Linear map to one log-odds that starts near 0."""
    # Small start: the first scores lie near the prior instead of being chance decisions.
    layer = nn.Linear(dim, 1)
    nn.init.normal_(layer.weight, std=0.01 / math.sqrt(dim))
    nn.init.zeros_(layer.bias)
    return layer


def set_bias(module: nn.Module, prevalence: float) -> None:
    """Set the last bias of ``module`` to the log-odds of ``prevalence``, clipped to [0.01, 0.99]."""
    last = [m for m in module.modules() if isinstance(m, nn.Linear)][-1]
    p = min(max(prevalence, 0.01), 0.99)
    with torch.no_grad():
        last.bias.fill_(math.log(p / (1.0 - p)))
