"""Presets that keep the label: never upside down, never far from the colours.

Orange is what cones and signs are painted in, so the hue moves by 0.05 of a turn at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Strength = Literal["none", "light", "standard"]
"""Names of the presets."""

_TO_YIQ = ((0.299, 0.587, 0.114), (0.59590059, -0.27455667, -0.32134392), (0.21153661, -0.52273617, 0.31119955))


@dataclass(frozen=True, slots=True)
class Ranges:
    """How far each property may move.

    Attributes:
        flip: probability of a left-right mirror.
        zoom: smallest share of the side that a crop shows.
        shift: largest displacement of the crop as a share of the side, beyond what the zoom allows.
        brightness, contrast, saturation: largest relative change.
        hue: largest change as a share of a full turn.
    """

    flip: float = 0.0
    zoom: float = 1.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0


RANGES: dict[Strength, Ranges] = {
    "none": Ranges(),
    "light": Ranges(flip=0.5, zoom=0.9, shift=0.02, brightness=0.1, contrast=0.1, saturation=0.1, hue=0.01),
    "standard": Ranges(flip=0.5, zoom=0.75, shift=0.05, brightness=0.25, contrast=0.25, saturation=0.25, hue=0.03),
}


def apply_preset(images: Tensor, strength: Strength, generator: torch.Generator) -> Tensor:
    """Randomly changed copies of ``images`` (N, 3, S, S) in [0, 1], each by its own draw from ``generator``."""
    ranges = RANGES[strength]
    if ranges == Ranges():
        return images
    n, device = len(images), images.device

    def draw(low: float, high: float, *shape: int) -> Tensor:
        # Drawn on the CPU whatever the device, so that one seed means one set of images everywhere.
        return (torch.rand(n, *shape, generator=generator) * (high - low) + low).to(device)

    mirror = torch.where(draw(0.0, 1.0) < ranges.flip, -1.0, 1.0)
    scale = draw(ranges.zoom, 1.0)
    slack = (1.0 - scale) + 2.0 * ranges.shift
    centre = draw(-1.0, 1.0, 2) * slack.unsqueeze(-1)
    out = _crop(images, mirror * scale, scale, centre)
    return _colour(
        out,
        brightness=draw(1.0 - ranges.brightness, 1.0 + ranges.brightness),
        contrast=draw(1.0 - ranges.contrast, 1.0 + ranges.contrast),
        saturation=draw(1.0 - ranges.saturation, 1.0 + ranges.saturation),
        turn=draw(-ranges.hue, ranges.hue),
    )


def _crop(images: Tensor, across: Tensor, down: Tensor, centre: Tensor) -> Tensor:
    theta = torch.zeros(len(images), 2, 3, device=images.device, dtype=images.dtype)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = across, down, centre
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _colour(images: Tensor, *, brightness: Tensor, contrast: Tensor, saturation: Tensor, turn: Tensor) -> Tensor:
    """Saturation and hue as one linear map in YIQ, then contrast about the mean grey, then brightness."""
    to_yiq = torch.tensor(_TO_YIQ, device=images.device, dtype=images.dtype)
    angle = 2.0 * math.pi * turn
    rotate = torch.zeros(len(images), 3, 3, device=images.device, dtype=images.dtype)
    rotate[:, 0, 0] = 1.0
    rotate[:, 1, 1] = rotate[:, 2, 2] = saturation * angle.cos()
    rotate[:, 2, 1] = saturation * angle.sin()
    rotate[:, 1, 2] = -rotate[:, 2, 1]
    matrix = torch.linalg.inv(to_yiq) @ rotate @ to_yiq
    out = torch.einsum("nij,njhw->nihw", matrix, images)
    grey = out.mean(dim=(1, 2, 3), keepdim=True)
    out = (out - grey) * contrast.view(-1, 1, 1, 1) + grey
    return (out * brightness.view(-1, 1, 1, 1)).clamp(0.0, 1.0)
