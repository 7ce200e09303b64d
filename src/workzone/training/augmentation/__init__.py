"""Augmentation of street images: presets, published policies, what StreetVision does, mixing of images, scale."""

from __future__ import annotations

import torch
from torch import Tensor

from workzone.training.augmentation.presets import RANGES, Ranges, Strength, apply_preset
from workzone.training.augmentation.streetvision import distort_as_streetvision

__all__ = ["RANGES", "Ranges", "Strength", "augment"]


def augment(images: Tensor, name: str, generator: torch.Generator) -> Tensor:
    """Randomly changed copies of ``images`` (N, 3, S, S) in [0, 1], each by its own draw from ``generator``.

    Args:
        images: what to change; ``none`` returns them as they are.
        name: a preset, ``streetvision``, or a policy of ``policies.POLICIES``.
        generator: on the CPU whatever the device, so that one seed means one set of images everywhere.

    Raises:
        ValueError: unknown name.
    """
    if name in RANGES:
        return apply_preset(images, name, generator)
    if name == "streetvision":
        return distort_as_streetvision(images, generator)
    from workzone.training.augmentation.policies import apply_policy

    return apply_policy(images, name, generator)
