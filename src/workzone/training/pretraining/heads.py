"""Heads of the self-supervised methods."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def byol_head(width: int, hidden: int, out: int) -> nn.Sequential:
    """Projector or predictor of BYOL (Grill et al. 2020): linear, batch norm, ReLU, linear."""
    return nn.Sequential(
        nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out)
    )


class DinoHead(nn.Module):
    """Three layers, unit length, then a linear layer with rows of unit length (Caron et al. 2021, arXiv 2104.14294)."""

    def __init__(self, width: int, hidden: int, bottleneck: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last = nn.Parameter(torch.randn(outputs, bottleneck))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K), cosines in [-1, 1]."""
        return F.linear(F.normalize(self.layers(x), dim=-1), F.normalize(self.last, dim=-1))


class SwavHead(nn.Module):
    """Projector to unit length and prototypes of unit length (Caron et al. 2020, arXiv 2006.09882)."""

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.projector = byol_head(width, hidden, bottleneck)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, bottleneck), dim=-1))

    def project(self, x: Tensor) -> Tensor:
        """Features (B, d) of unit length."""
        return F.normalize(cast(Tensor, self.projector(x)), dim=-1)

    def scores(self, features: Tensor) -> Tensor:
        """Cosines (B, K) between ``features`` of unit length and the prototypes."""
        return F.linear(features, self.prototypes)

    @torch.no_grad()
    def renormalise(self) -> None:
        """Bring the prototypes back to unit length, after each update."""
        self.prototypes.copy_(F.normalize(self.prototypes, dim=-1))
