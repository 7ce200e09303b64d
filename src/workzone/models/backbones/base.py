"""What every backbone is: pixels in, one embedding per view out, normalisation inside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from workzone.models.backbones.registry import BackboneSpec, Pooling


class Backbone(nn.Module):
    """A network that turns views into embeddings.

    Args:
        name: key in ``BACKBONES``.
        spec: that row.
        network: the timm model without classifier.
        image_size: side S of a view in pixels, or its height.
        image_width: width W of a view that is not square, 0 for S.
        pooling: how tokens become one embedding; ``cls_avg`` concatenates class token and mean patch token,
            ``avg_max`` the mean and the maximum over patch tokens or cells.

    Attributes:
        embedding_dim: D.
        patch: S and W are multiples of it.
    """

    def __init__(
        self,
        name: str,
        spec: BackboneSpec,
        network: nn.Module,
        *,
        image_size: int,
        pooling: Pooling,
        image_width: int = 0,
    ) -> None:
        super().__init__()
        self.name = name
        self.spec = spec
        self.network = network
        self.image_size = image_size
        self.image_width = image_width or image_size
        self.pooling: Pooling = pooling
        width = int(cast(Any, network).num_features)
        self.embedding_dim = 2 * width if pooling in ("cls_avg", "avg_max") else width
        self.patch = spec.patch
        self.mean = spec.mean
        self.std = spec.std
        self.licence = spec.licence
        self._prefix = int(getattr(network, "num_prefix_tokens", 0))
        std = torch.tensor(spec.std)
        self.register_buffer("scale", (1.0 / std).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", (-torch.tensor(spec.mean) / std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embeddings (N, D) float32 of views (N, S, W, 3) uint8 RGB."""
        return self.features(self.normalise(to_unit(pixels)))

    def normalise(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) in [0, 1] as the pretraining saw them."""
        return images * cast(Tensor, self.scale) + cast(Tensor, self.shift)

    def features(self, images: Tensor) -> Tensor:
        """Embeddings (N, D) of normalised images (N, 3, S, S)."""
        network = cast(Any, self.network)
        if self.spec.family == "conv":
            if self.pooling == "avg":
                return cast(Tensor, network(images))
            cells = network.forward_features(images).flatten(2).transpose(1, 2)
            return self._pool(cells, cells)
        tokens = network.forward_features(images)
        return self._pool(tokens, tokens[:, self._prefix :])

    def _pool(self, tokens: Tensor, cells: Tensor) -> Tensor:
        """Embeddings (N, D) of tokens (N, T, W), of which ``cells`` (N, L, W) stand for places in the picture."""
        parts = {
            "cls": lambda: tokens[:, 0],
            "avg": lambda: cells.mean(dim=1),
            "max": lambda: cells.amax(dim=1),
        }
        found = [parts[name]() for name in self.pooling.split("_")]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def fingerprint(self) -> str:
        """SHA-256 over architecture, image size, pooling and every tensor; the key of cached features."""
        return fingerprint_tensors(
            {
                "architecture": self.spec.timm_name.split(".")[0],
                "image_size": self.image_size,
                **({} if self.image_width == self.image_size else {"image_width": self.image_width}),
                "pooling": self.pooling,
                "mean": list(self.mean),
                "std": list(self.std),
            },
            self.network.state_dict(),
        )


def to_unit(pixels: Tensor) -> Tensor:
    """Views (N, S, S, 3) uint8 as images (N, 3, S, S) float32 in [0, 1]."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32) * (1.0 / 255.0)


def fingerprint_tensors(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of ``header`` and of the names, types, shapes and bytes of ``tensors``, whatever their order."""
    digest = hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
