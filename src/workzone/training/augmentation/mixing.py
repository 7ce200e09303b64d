"""Batch methods on images: MixUp, CutMix and steps at another scale.

MixUp: Zhang et al. 2018 (arXiv 1710.09412). CutMix: Yun et al. 2019 (arXiv 1905.04899).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALES = (0.75, 1.25)
MIXED = 0.9
"""Share of the epochs that mix; the last ones see whole images as the bundle does."""


def mix(
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    *,
    mixup: float,
    cutmix: float,
    any_pair: bool = False,
    sets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One of the wanted methods on a batch, with soft labels.

    Args:
        images: (B, 3, S, S), or (B, V, 3, S, S) of which all views of an image are mixed with one share.
        labels: (B,) in [0, 1].
        generator: on the CPU.
        mixup: alpha of MixUp, 0 for none.
        cutmix: alpha of CutMix, 0 for none.
        any_pair: whether CutMix pastes into an image of the other class. The label then follows the area, which is
            wrong where the one cone of a picture was pasted over; without it both have the same label, which stays.
        sets: (B,) code of the data set of each image, where CutMix pastes from another data set only; None for any.
    """
    wanted = [name for name, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha]
    if not wanted or len(labels) < 2:
        return images, labels
    chosen = wanted[int(torch.randint(len(wanted), (), generator=generator))]
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if chosen == "mixup":
            return _apply(_method("MixUp", mixup), images, labels)
        if sets is not None:
            return paste_across(images, labels, sets, cutmix, any_pair=any_pair)
        if any_pair:
            return _apply(_method("CutMix", cutmix), images, labels)
        out = images.clone()
        for rows in (labels > 0.5, labels <= 0.5):
            if int(rows.sum()) > 1:
                out[rows] = _apply(_method("CutMix", cutmix), images[rows], labels[rows])[0]
        return out, labels


def paste_across(
    images: Tensor, labels: Tensor, sets: Tensor, alpha: float, *, any_pair: bool
) -> tuple[Tensor, Tensor]:
    """CutMix of which each image (B, 3, S, S) takes its rectangle from a random image of another data set.

    With ``any_pair`` the label follows the area, else the partner has the same label. An image without a partner stays
    as it is. One rectangle serves the batch, as in the paper; its share is drawn from Beta(alpha, alpha).
    """
    b, side = len(labels), images.shape[-1]
    allowed = sets.unsqueeze(0) != sets.unsqueeze(1)
    if not any_pair:
        positive = labels.cpu() > 0.5
        allowed &= positive.unsqueeze(0) == positive.unsqueeze(1)
    chance = torch.where(allowed, torch.rand(b, b), -1.0)
    partner = torch.where(allowed.any(dim=1), chance.argmax(dim=1), torch.arange(b)).to(images.device)
    concentration = torch.tensor(float(alpha))
    share = float(torch.distributions.Beta(concentration, concentration).sample())
    half = 0.5 * side * (1.0 - share) ** 0.5
    x, y = (float(v) * side for v in torch.rand(2))
    x0, y0 = (max(0, round(c - half)) for c in (x, y))
    x1, y1 = (min(side, round(c + half)) for c in (x, y))
    out = images.clone()
    out[..., y0:y1, x0:x1] = images[partner][..., y0:y1, x0:x1]
    pasted = (x1 - x0) * (y1 - y0) / side**2
    return out, labels + pasted * (labels[partner] - labels)


def _method(name: str, alpha: float) -> Any:
    from torchvision.transforms import v2

    return getattr(v2, name)(num_classes=2, alpha=alpha)


def _apply(method: Any, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    from torchvision import tv_tensors

    batch = tv_tensors.Video(images) if images.ndim == 5 else images
    # One-hot pairs keep labels that were soft already.
    mixed, pairs = method(batch, torch.stack([1.0 - labels, labels], dim=-1))
    return mixed.as_subclass(Tensor), pairs[:, 1]


def draw_side(size: int, patch: int, generator: torch.Generator) -> int:
    """A multiple of ``patch`` between 0.75 and 1.25 of ``size``, each equally likely."""
    low, high = (round(size * scale / patch) for scale in SCALES)
    return patch * int(torch.randint(max(1, low), high + 1, (), generator=generator))


def rescale(images: Tensor, side: int) -> Tensor:
    """Images (N, 3, S, S) resized to ``side`` (bilinear, antialias)."""
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


@contextmanager
def any_side(network: nn.Module, side: int, own: int) -> Iterator[None]:
    """Let a transformer of timm take pictures of ``side`` in place of ``own``: its positions are interpolated."""
    found = [m for m in network.modules() if hasattr(m, "patch_embed") and hasattr(m, "dynamic_img_size")]
    if side == own or not found:
        yield
        return
    from timm.layers.format import Format

    kept = []
    for module in found:
        embed = cast(Any, module.patch_embed)
        kept.append((embed.strict_img_size, embed.flatten, embed.output_fmt, module.dynamic_img_size))
        embed.strict_img_size, embed.flatten, embed.output_fmt = False, False, Format.NHWC
        cast(Any, module).dynamic_img_size = True
    try:
        yield
    finally:
        for module, (strict, flatten, form, dynamic) in zip(found, kept, strict=True):
            embed = cast(Any, module.patch_embed)
            embed.strict_img_size, embed.flatten, embed.output_fmt = strict, flatten, form
            cast(Any, module).dynamic_img_size = dynamic
