"""A tiny transformer with seeded weights, for the tests of the torch half."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from workzone.models.backbones import Backbone, BackboneSpec

TINY = BackboneSpec("tiny_vit", "vit", 8, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), "none", "cls")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Backbone]:
    from timm.models.vision_transformer import VisionTransformer

    def make(seed: int = 0, pooling: str = "cls", image_size: int = 32) -> Backbone:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = VisionTransformer(
                img_size=image_size, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0
            )
        return Backbone("tiny", TINY, network, image_size=image_size, pooling=pooling).eval()

    return make
