"""A tiny transformer with seeded weights, for the tests of the torch half."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from workzone.models.aggregators import Aggregator, Ensemble
from workzone.models.backbones import Backbone, BackboneSpec

TINY = BackboneSpec("tiny_vit", "vit", 8, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), "none", "cls")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Backbone]:
    return tiny_backbone


def tiny_backbone(seed: int = 0, pooling: str = "cls", image_size: int = 32) -> Backbone:
    from timm.models.vision_transformer import VisionTransformer

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = VisionTransformer(
            img_size=image_size, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0
        )
    return Backbone("tiny", TINY, network, image_size=image_size, pooling=pooling).eval()


def unsettled(members: Sequence[Aggregator]) -> Ensemble:
    """An ensemble of ``members`` with drawn statistics, no parameter of which is where it began."""
    for member in members:
        member.set_statistics(torch.randn(40, member.dim) * 2 + 0.5)
        with torch.no_grad():
            for parameter in member.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return Ensemble(members).eval()
