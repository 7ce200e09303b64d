"""Standardisation of embeddings by stored statistics, part of every head."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

_ROWS = 4096


class Standardise(nn.Module):
    """Subtract the training mean and divide by the training deviation of each of ``dim`` features."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("inverse_std", torch.ones(dim))

    def fit(self, features: Tensor) -> None:
        """Take the statistics of ``features`` (N, D); a constant feature is centred and left unscaled."""
        # In parts: doubles of all views of some thousand images would not fit in memory.
        parts = torch.split(features, _ROWS)
        mean = torch.stack([part.to(torch.float64).sum(dim=0) for part in parts]).sum(dim=0) / len(features)
        squares = torch.stack([(part.to(torch.float64) - mean).square().sum(dim=0) for part in parts])
        std = (squares.sum(dim=0) / len(features)).sqrt()
        # A dead unit must not become noise divided by almost nothing.
        floor = 1e-3 * std.median().clamp_min(1e-6)
        with torch.no_grad():
            cast(Tensor, self.mean).copy_(mean)
            cast(Tensor, self.inverse_std).copy_(torch.where(std > floor, 1.0 / std.clamp_min(1e-12), 1.0))

    def forward(self, features: Tensor) -> Tensor:
        """Standardised ``features`` (..., D)."""
        return (features - cast(Tensor, self.mean)) * cast(Tensor, self.inverse_std)
