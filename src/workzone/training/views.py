"""Training on the whole image and some of its tiles, with one label for all of them (multiple instances).

Andrews et al. 2002 (NeurIPS 15): a positive image has at least one positive view.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from workzone.models.aggregators.logsumexp import log_mean_exp

Pool = Literal["topk_mean", "logsumexp"]


def draw_views(pixels: Tensor, tiles: int, generator: torch.Generator) -> Tensor:
    """The whole image and ``tiles`` different tiles of each, (B, 1 + tiles, ...) of (B, V, ...) whole first."""
    count, views = pixels.shape[:2]
    order = torch.rand(count, views - 1, generator=generator).argsort(dim=1)[:, :tiles] + 1
    rows = torch.cat([torch.zeros(count, 1, dtype=order.dtype), order], dim=1).to(pixels.device)
    return pixels[torch.arange(count, device=pixels.device)[:, None], rows]


def pool_views(scores: Tensor, how: Pool, k: int) -> Tensor:
    """Log-odds (B,) of images from those of their views (B, V): mean of the k highest, or log-mean-exp.

    A positive image moves the views that look most like it, a negative one those that look most unlike it.
    """
    if how == "topk_mean":
        return scores.topk(min(k, scores.shape[1]), dim=1).values.mean(dim=1)
    return log_mean_exp(scores, torch.ones_like(scores, dtype=torch.bool), scores.new_ones(()))


def top_views(images: Tensor, scores: Tensor, k: int) -> Tensor:
    """The k views (B, k, ...) of (B, V, ...) with the highest of ``scores`` (B, V)."""
    rows = scores.topk(k, dim=1).indices
    return images[torch.arange(len(images), device=images.device)[:, None], rows]
