"""What every way of pretraining is to the loop that runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from workzone.models.backbones import Backbone


@dataclass(slots=True)
class StepResult:
    """One step.

    Attributes:
        loss: what is minimised.
        terms: each term without its weight.
        embeddings: (B, D) features that are watched for collapse.
        signs: further figures that are watched, such as the entropy of the teacher's outputs.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    embeddings: Tensor
    signs: dict[str, float] = field(default_factory=dict)


class Objective(nn.Module, ABC):
    """Networks, heads and the loss of one method.

    Everything that a step changes is a parameter or a buffer, so that ``state_dict`` is all a checkpoint needs.
    """

    @abstractmethod
    def parts(self) -> list[tuple[nn.Module, float]]:
        """Modules that are trained, each with its factor of the learning rate."""

    @abstractmethod
    def step(self, rows: Sequence[int], images: Tensor, generator: torch.Generator, done: float) -> StepResult:
        """Loss on ``images`` (B, 3, C, C), which are ``rows`` of the stored images, with ``done`` of the steps over."""

    def after_update(self, done: float) -> None:
        """Called when the weights have moved."""

    @abstractmethod
    def result(self) -> Backbone:
        """The backbone that is wanted, perhaps with adapters on it."""


def any_size(backbone: Backbone) -> Backbone:
    """Let ``backbone`` take images of any multiple of its patch, interpolating position embeddings; changes it."""
    network: Any = backbone.network
    if backbone.spec.family != "conv":
        from timm.layers import PatchEmbed
        from timm.layers.format import Format

        embed = network.patch_embed
        assert isinstance(embed, PatchEmbed)
        network.dynamic_img_size = True
        embed.strict_img_size, embed.flatten, embed.output_fmt = False, False, Format.NHWC
    return backbone


def grow(sides: int, patch: int) -> int:
    """``sides`` rounded to a multiple of ``patch``, at least one."""
    return max(1, round(sides / patch)) * patch
