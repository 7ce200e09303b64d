"""Biases by position on attention between views, as one dense tensor and as a FlexAttention score modification."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workzone.errors import ConfigError
from workzone.models.aggregators.base import MASKED

Spatial = Literal["proximity", "learned", "none"]
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

_WHOLE = 0.999
_OFFSET_HIDDEN = 16


class SpatialBias(nn.Module, ABC):
    """Bias (B, H, V, V) on the scores of query views (third axis) for key views (last axis)."""

    @abstractmethod
    def bias(self, boxes: Tensor) -> Tensor:
        """Bias (B, H or 1, V, V) of boxes (B, V, 4)."""

    @abstractmethod
    def score_mod(self, boxes: Tensor, mask: Tensor) -> ScoreMod:
        """The same with the mask, for FlexAttention; the tensors it reads are captured."""

    def dense(self, boxes: Tensor, mask: Tensor) -> Tensor:
        """Bias (B, H or 1, V, V) with ``MASKED`` at keys that do not exist, for scaled-dot-product attention."""
        return self.bias(boxes) + missing(mask)[:, None, None, :]


class Proximity(SpatialBias):
    """``-softplus(lambda_h) |c_q - c_k|^2``, 0 where one of the two is the whole image; lambda_h is learned.

    Args:
        heads: heads H; their reach at the start is spread from wide to narrow.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.raw_rate = nn.Parameter(torch.linspace(-1.0, 4.0, heads) if heads > 1 else torch.ones(1))

    def bias(self, boxes: Tensor) -> Tensor:
        """See ``SpatialBias.bias``."""
        offset, apart = offsets(boxes), parts(boxes)
        distance = offset.square().sum(dim=-1) * (apart[:, :, None] * apart[:, None, :])
        return -F.softplus(self.raw_rate)[None, :, None, None] * distance[:, None]

    def score_mod(self, boxes: Tensor, mask: Tensor) -> ScoreMod:
        """See ``SpatialBias.score_mod``."""
        centres, apart, absent, rate = centre(boxes), parts(boxes), missing(mask), F.softplus(self.raw_rate)

        def modify(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            dx, dy = centres[b, q, 0] - centres[b, k, 0], centres[b, q, 1] - centres[b, k, 1]
            return score - rate[h] * (dx * dx + dy * dy) * apart[b, q] * apart[b, k] + absent[b, k]

        return modify


class LearnedOffset(SpatialBias):
    """A network of two layers from the offset of the centres and the ratio of the scales to one bias per head.

    Reference: continuous position bias of Liu et al. 2021 (arXiv 2111.09883), with plain in place of logarithmic
    offsets, for boxes are shares of one image.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.first = nn.Linear(3, _OFFSET_HIDDEN)
        self.last = nn.Linear(_OFFSET_HIDDEN, heads, bias=False)

    def bias(self, boxes: Tensor) -> Tensor:
        """See ``SpatialBias.bias``."""
        scale = log_scale(boxes)
        ratio = (scale[:, :, None] - scale[:, None, :])[..., None]
        bias: Tensor = self.last(torch.tanh(self.first(torch.cat([offsets(boxes), ratio], dim=-1))))
        return bias.permute(0, 3, 1, 2)

    def score_mod(self, boxes: Tensor, mask: Tensor) -> ScoreMod:
        """See ``SpatialBias.score_mod``."""
        table, absent = self.bias(boxes), missing(mask)

        def modify(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return score + table[b, h, q, k] + absent[b, k]

        return modify


class NoBias(SpatialBias):
    """Attention blind to positions."""

    def bias(self, boxes: Tensor) -> Tensor:
        """See ``SpatialBias.bias``."""
        return torch.zeros_like(offsets(boxes)[..., 0])[:, None]

    def score_mod(self, boxes: Tensor, mask: Tensor) -> ScoreMod:
        """See ``SpatialBias.score_mod``."""
        absent = missing(mask)

        def modify(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return score + absent[b, k]

        return modify


def make_spatial(name: Spatial, heads: int) -> SpatialBias:
    """Bias ``name`` for ``heads`` heads; raises ConfigError for an unknown name."""
    if name == "proximity":
        return Proximity(heads)
    if name == "learned":
        return LearnedOffset(heads)
    if name == "none":
        return NoBias()
    raise ConfigError(f"unknown bias {name!r}", where="fuse.spatial", fix="take proximity, learned or none")


def centre(boxes: Tensor) -> Tensor:
    """Centres (B, V, 2) of boxes (B, V, 4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2.0


def offsets(boxes: Tensor) -> Tensor:
    """Centre of the query less that of the key, (B, V, V, 2)."""
    c = centre(boxes)
    return c[:, :, None] - c[:, None, :]


def log_scale(boxes: Tensor) -> Tensor:
    """Logarithm (B, V) of the root of the area."""
    size = (boxes[..., 2:] - boxes[..., :2]).clamp_min(1e-3)
    return size.log().sum(dim=-1) / 2.0


def parts(boxes: Tensor) -> Tensor:
    """1 (B, V) for a part of the image, 0 for the whole."""
    size = boxes[..., 2:] - boxes[..., :2]
    return 1.0 - ((size[..., 0] > _WHOLE) & (size[..., 1] > _WHOLE)).to(boxes.dtype)


def missing(mask: Tensor) -> Tensor:
    """0 (B, V) for a view that exists, ``MASKED`` for one that does not."""
    return torch.where(mask, 0.0, MASKED)
