"""What the validator does to a picture before it sends it, level by level and by protocol version.

Level 0 is the base view. Level 1 adds a rotation (and, in 2.0.4, a random resized crop of the whole picture, without
the base view). Levels 2 and 3 add distortions, each at a strength drawn from {0, 1} or {0, 1, 2}. Facts that surprise:

* flips are written in the validator's code but sit behind a branch that is never taken: nothing is ever mirrored;
* the rotation ignores its bilinear argument: nearest pixel, black corners;
* contrast is a factor below 1 on the pixel values, so pictures only get darker;
* "JPEG" shrinks and enlarges; real JPEG is what the wire does to each picture;
* noise and saturation work in YCbCr on values from 0 to 255 around a chroma centre of 0.5;
* strength 0 is the identity; any other one passes through 8 bits by truncation.

The crop of a synthetic picture is moved until it holds the centre of the painted area, where that is known
(``towards``); the base view and the letterbox version do not look at it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workzone.vision.streetvision import geometry, opencv
from workzone.vision.streetvision.geometry import SIDE

Bytes = NDArray[np.uint8]
MAX_ANGLE = 20.0
LEVELS = (0, 1, 2, 3)

STRENGTHS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "CS": (0.4, 0.3, 0.2, 0.1, 0.0),
        "CC": (0.85, 0.725, 0.6, 0.475, 0.35),
        "JPEG": (2, 3, 4, 5, 6),
        "GNC": (0.001, 0.002, 0.005, 0.01, 0.05),
        "GB": (7, 9, 13, 17, 21),
    }
)
"""Parameter of each distortion at strengths 1 to 5."""
DISTORTIONS: Mapping[int, tuple[tuple[str, ...], int]] = MappingProxyType(
    {0: ((), 0), 1: ((), 0), 2: (("CS", "CC", "JPEG"), 1), 3: (("CS", "CC", "JPEG", "GNC", "GB"), 2)}
)
"""Distortions of each level in their order, and the largest strength that is drawn."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """What differs between versions.

    Attributes:
        name: version.
        base: base view.
        crop: whether levels 1 to 3 take a random resized crop of the whole picture instead of the base view.
        levels: probability of each level.
        sources: share of each source of pictures.
    """

    name: str
    base: Literal["centre", "letterbox"]
    crop: bool
    levels: tuple[float, float, float, float]
    sources: Mapping[str, float]


_HALVES: Mapping[str, float] = MappingProxyType({"synthetic": 0.5, "real": 0.5})
_THIRDS: Mapping[str, float] = MappingProxyType({"synthetic": 1 / 3, "real": 1 / 3, "benchmark": 1 / 3})
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "2.0.4": Protocol("2.0.4", "centre", True, (0.25, 0.25, 0.25, 0.25), _HALVES),
        "letterbox": Protocol("letterbox", "letterbox", False, (0.25, 0.25, 0.25, 0.25), _HALVES),
        "0.4.1": Protocol("0.4.1", "letterbox", False, (1.0, 0.0, 0.0, 0.0), _THIRDS),
    }
)
"""By version: January 2026, the letterboxing of April 2026 with its levels, and May 2026, which uses the base only."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that was drawn for one picture; ``transform`` does the rest without chance.

    Attributes:
        level: 0 to 3.
        angle: of the rotation in degrees, against the clock.
        window: top, left and side of the crop in pixels of the picture; None without a crop.
        strengths: of the distortions of this level, by name.
        noise_seed: of the pattern of GNC.
    """

    level: int
    angle: float = 0.0
    window: tuple[int, int, int] | None = None
    strengths: Mapping[str, int] = field(default_factory=dict)
    noise_seed: int = 0


def draw(
    size: tuple[int, int],
    level: int,
    rng: np.random.Generator,
    protocol: Protocol,
    *,
    towards: tuple[int, int] | None = None,
) -> Recipe:
    """What happens to a picture of ``size`` (width, height) at ``level``.

    ``towards`` is the centre (x, y) of the painted area of a synthetic picture, in pixels, which the crop must hold.

    Raises:
        ValueError: unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"level must be 0 to 3, not {level}")
    if level == 0:
        return Recipe(0)
    angle = float(rng.uniform(-MAX_ANGLE, MAX_ANGLE))
    window = geometry.crop_window(*size, rng) if protocol.crop else None
    if window is not None and towards is not None:
        window = geometry.pull_window(window, *size, towards)
    names, strongest = DISTORTIONS[level]
    strengths = {name: int(rng.integers(0, strongest + 1)) for name in names}
    return Recipe(level, angle, window, strengths, int(rng.integers(2**63)))


def transform(image: Image.Image, recipe: Recipe, protocol: Protocol) -> Image.Image:
    """The RGB picture of 224 x 224 that the validator makes of ``image`` by ``recipe``."""
    picture = image if image.mode == "RGB" else image.convert("RGB")
    base = geometry.centre_square if protocol.base == "centre" else geometry.letterbox
    if recipe.level == 0:
        return base(picture)
    if recipe.window is not None:
        top, left, side = recipe.window
        turned = geometry.rotate(np.asarray(picture), recipe.angle, (top, left, side, side))
        unit = geometry.resize_unit(turned)
    else:
        unit = geometry.rotate(np.asarray(base(picture)), recipe.angle).astype(np.float32) / np.float32(255)
    rng = np.random.default_rng(recipe.noise_seed)
    for name, strength in recipe.strengths.items():
        unit = distort(unit, name, strength, rng)
    return Image.fromarray(_truncate(unit))


def distort(
    unit: NDArray[np.float32], name: str, strength: int, rng: np.random.Generator | None = None
) -> NDArray[np.float32]:
    """RGB picture (H, W, 3) in [0, 1] after distortion ``name``; strength 0 gives the same values.

    Args:
        unit: the picture.
        name: key of ``STRENGTHS``.
        strength: 0 to 5.
        rng: needed by GNC.

    Raises:
        ValueError: unknown name or strength.
    """
    if name not in STRENGTHS or not 0 <= strength <= len(STRENGTHS[name]):
        raise ValueError(f"there is no distortion {name!r} of strength {strength}")
    if strength == 0:
        return unit
    bgr = _truncate(unit)[..., ::-1]
    done = _APPLY[name](bgr, STRENGTHS[name][strength - 1], rng or np.random.default_rng(0))
    return np.ascontiguousarray(done[..., ::-1]).astype(np.float32) / np.float32(255)


def _truncate(unit: NDArray[np.float32]) -> Bytes:
    return np.asarray(unit * np.float32(255)).clip(0, 255).astype(np.uint8)


def _saturation(bgr: Bytes, factor: float, rng: np.random.Generator) -> Bytes:
    ycbcr = _to_ycbcr(bgr)
    ycbcr[..., 1:] = np.float32(0.5) + (ycbcr[..., 1:] - np.float32(0.5)) * np.float32(factor)
    # Towards grey nothing leaves the range by more than rounding; the clip keeps that from wrapping around.
    return np.clip(_from_ycbcr(ycbcr), 0, 255).astype(np.uint8)


def _contrast(bgr: Bytes, factor: float, rng: np.random.Generator) -> Bytes:
    return (bgr.astype(np.float32) * np.float32(factor)).astype(np.uint8)


def _shrink_and_enlarge(bgr: Bytes, factor: float, rng: np.random.Generator) -> Bytes:
    height, width = bgr.shape[:2]
    small = opencv.resize(bgr, width // int(factor), height // int(factor))
    return opencv.resize(small, width, height)


def _noise(bgr: Bytes, variance: float, rng: np.random.Generator) -> Bytes:
    ycbcr = _to_ycbcr(bgr) / np.float32(255)
    noisy = (ycbcr + math.sqrt(variance) * rng.standard_normal(ycbcr.shape)) * 255
    return np.clip(_from_ycbcr(noisy.astype(np.float32)), 0, 255).astype(np.uint8)


def _blur(bgr: Bytes, size: float, rng: np.random.Generator) -> Bytes:
    return opencv.gaussian_blur(bgr, int(size), size / 6)


_APPLY: Mapping[str, Callable[[Bytes, float, np.random.Generator], Bytes]] = {
    "CS": _saturation,
    "CC": _contrast,
    "JPEG": _shrink_and_enlarge,
    "GNC": _noise,
    "GB": _blur,
}


def _to_ycbcr(bgr: Bytes) -> NDArray[np.float32]:
    ycbcr = opencv.bgr_to_ycrcb(bgr.astype(np.float32))[..., (0, 2, 1)]
    return (ycbcr * _SPAN + np.float32(16)) / np.float32(255)


def _from_ycbcr(ycbcr: NDArray[np.float32]) -> NDArray[np.float32]:
    full = (ycbcr * np.float32(255) - np.float32(16)) / _SPAN
    return opencv.ycrcb_to_bgr(full[..., (0, 2, 1)])


_SPAN = np.array([219, 224, 224], dtype=np.float32)


def wire(image: Image.Image) -> bytes:
    """JPEG file of ``image`` as it is sent: Pillow's default quality, 75."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG")
    return buffer.getvalue()


def augment(
    image: Image.Image,
    rng: np.random.Generator,
    protocol: Protocol | str = "2.0.4",
    *,
    towards: tuple[int, int] | None = None,
) -> Image.Image:
    """A picture as a miner may get it: level drawn as ``protocol`` does, transformed, and through the JPEG of the wire.

    Args:
        image: RGB picture of any size.
        rng: source of all chance.
        protocol: version, or its name.
        towards: centre (x, y) of the painted area of a synthetic picture, in pixels.

    Returns:
        RGB picture of 224 x 224.
    """
    version = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
    level = int(rng.choice(len(LEVELS), p=version.levels))
    sent = transform(image, draw(image.size, level, rng, version, towards=towards), version)
    return Image.open(io.BytesIO(wire(sent))).convert("RGB")


__all__ = [
    "DISTORTIONS", "LEVELS", "PROTOCOLS", "Protocol", "Recipe", "SIDE", "STRENGTHS", "augment", "distort", "draw",
    "transform", "wire",
]  # fmt: skip
