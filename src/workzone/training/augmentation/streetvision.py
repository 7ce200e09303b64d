"""What the validator of StreetVision (protocol 2.0.4) does to a picture, on the views that training sees.

Level 0 leaves the view; level 1 turns it by up to 20 degrees (nearest pixel, black corners) and takes a square of 0.2
to 1.0 of its area; level 2 adds less saturation, less contrast and shrink-and-enlarge; level 3 stronger ones, noise and
blur. Every picture passes through JPEG of quality 75. Nothing is mirrored. The view was resized to a square before, so
what is a square here is a rectangle of the picture; on square pictures both are the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_ANGLE = 20.0
AREA = (0.2, 1.0)
SATURATION = (0.4, 0.3)
CONTRAST = (0.85, 0.725)
SHRINK = (2, 3)
NOISE = (0.001, 0.002)
BLUR = (7, 9)
QUALITY = 75
_Y = (0.299, 0.587, 0.114)


def distort_as_streetvision(images: Tensor, generator: torch.Generator) -> Tensor:
    """Copies of ``images`` (N, 3, S, S) in [0, 1] as a validator could have sent them."""
    done = torch.stack([_one(image, generator) for image in images.detach().cpu()])
    return done.to(images.device, images.dtype)


def _one(image: Tensor, generator: torch.Generator) -> Tensor:
    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    level = whole(0, 3)
    if level:
        image = rotate_and_crop(image, generator)
    if level >= 2:
        strongest = level - 1
        for change, values in ((saturation, SATURATION), (contrast, CONTRAST), (shrink_and_enlarge, SHRINK)):
            if strength := whole(0, strongest):
                image = change(_eight_bits(image), values[strength - 1])
    if level == 3:
        if strength := whole(0, 2):
            image = noise(_eight_bits(image), NOISE[strength - 1], generator)
        if strength := whole(0, 2):
            image = blur(_eight_bits(image), BLUR[strength - 1])
    return jpeg(image)


def rotate_and_crop(image: Tensor, generator: torch.Generator) -> Tensor:
    """Turn (3, S, S) about its centre, take a square of it and resize that to S."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as V

    size = image.shape[-1]
    angle, area, y, x = torch.rand(4, generator=generator).tolist()
    turned = V.rotate(image, (2 * angle - 1) * MAX_ANGLE, InterpolationMode.NEAREST, fill=[0.0])
    side = max(1, round(size * math.sqrt(AREA[0] + area * (AREA[1] - AREA[0]))))
    top, left = int(y * (size - side + 1)), int(x * (size - side + 1))
    found: Tensor = V.resize(turned[:, top : top + side, left : left + side], [size, size], antialias=True)
    return found


def saturation(image: Tensor, factor: float) -> Tensor:
    """Chroma of (3, S, S) times ``factor``; full range, which differs from the original by rounding only."""
    grey = torch.einsum("c,chw->hw", image.new_tensor(_Y), image)
    return (grey + (image - grey) * factor).clamp(0.0, 1.0)


def contrast(image: Tensor, factor: float) -> Tensor:
    """Values times ``factor``: pictures only get darker."""
    return image * factor


def shrink_and_enlarge(image: Tensor, factor: float) -> Tensor:
    """Bilinear without antialias to one ``factor``-th of the side, and back."""
    size = image.shape[-1]
    small = F.interpolate(image[None], size=max(1, size // int(factor)), mode="bilinear", align_corners=False)
    return F.interpolate(small, size=size, mode="bilinear", align_corners=False)[0]


def noise(image: Tensor, variance: float, generator: torch.Generator) -> Tensor:
    """Independent normal noise of ``variance`` on luma and chroma, in the video range of 16 to 235 and 240."""
    size = image.shape[-1]
    drawn = torch.randn(3, size, size, generator=generator) * math.sqrt(variance) * 255.0
    luma, cr, cb = drawn[0] / 219.0, drawn[1] / 224.0, drawn[2] / 224.0
    return (
        image + torch.stack([luma + 1.403 * cr, luma - 0.714 * cr - 0.344 * cb, luma + 1.773 * cb])
    ).clamp(0.0, 1.0)  # fmt: skip


def blur(image: Tensor, size: float) -> Tensor:
    """Normal kernel of ``size`` pixels with a deviation of a sixth of it."""
    from torchvision.transforms.v2 import functional as V

    blurred: Tensor = V.gaussian_blur(image, [int(size), int(size)], [size / 6, size / 6])
    return blurred


def jpeg(image: Tensor) -> Tensor:
    """(3, S, S) after JPEG of quality 75."""
    from torchvision.transforms.v2 import functional as V

    packed: Tensor = V.jpeg((_eight_bits(image) * 255.0).round().to(torch.uint8), QUALITY)
    return packed.to(torch.float32) / 255.0


def _eight_bits(image: Tensor) -> Tensor:
    return (image * 255.0).clamp(0.0, 255.0).floor() / 255.0
