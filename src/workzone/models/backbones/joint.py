"""Several frozen backbones side by side: their embeddings of a view, one after the other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from workzone.models.backbones.base import Backbone

SEPARATOR = "+"


class JointBackbone(Backbone):
    """Concatenates the embeddings of ``parts``, which see the same views; each normalises them for itself.

    Args:
        parts: two or more backbones of one image size.
    """

    def __init__(self, parts: Sequence[Backbone]) -> None:
        nn.Module.__init__(self)
        if len(parts) < 2 or len({(p.image_size, p.image_width) for p in parts}) != 1:
            raise ValueError("a joint backbone needs two or more parts of one image size")
        self.network = nn.ModuleList(parts)
        self.name = SEPARATOR.join(p.name for p in parts)
        self.image_size, self.image_width = parts[0].image_size, parts[0].image_width
        self.embedding_dim = sum(p.embedding_dim for p in parts)
        self.patch = math.lcm(*(p.patch for p in parts))
        self.licence = " and ".join(dict.fromkeys(p.licence for p in parts))

    @property
    def parts(self) -> list[Backbone]:
        """The backbones, in order."""
        return [cast(Backbone, p) for p in self.network.children()]

    def normalise(self, images: Tensor) -> Tensor:
        """The images as they are: every part has its own normalisation."""
        return images

    def features(self, images: Tensor) -> Tensor:
        """Embeddings (N, D) of images (N, 3, S, S) in [0, 1]."""
        return torch.cat([part.features(part.normalise(images)) for part in self.parts], dim=1)

    def fingerprint(self) -> str:
        """SHA-256 over the fingerprints of the parts."""
        return hashlib.sha256("|".join(part.fingerprint() for part in self.parts).encode()).hexdigest()
