"""Graded corruptions of pictures: what weather, night, motion and transmission do to a street image.

Each corruption takes an (H, W, 3) uint8 picture, a level from 1 to 5 and a seed, and returns a new picture of the same
size. The kinds and the five levels follow Hendrycks & Dietterich 2019 (arXiv 1903.12261); the strengths are our own,
relative to the size of the picture. The same seed draws the same pattern at each level, so only the strength grows.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Picture = NDArray[np.uint8]
LEVELS = (1, 2, 3, 4, 5)
_Corruption = Callable[[Picture, int, np.random.Generator], Picture]


def _to_bytes(values: NDArray[np.floating]) -> Picture:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)


def _side(picture: Picture) -> int:
    return int(min(picture.shape[:2]))


def _gaussian_noise(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Independent noise of each sample, as of a sensor in little light."""
    spread = (6.0, 12.0, 20.0, 32.0, 50.0)[level - 1]
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    return _to_bytes(picture.astype(np.float32) + spread * noise)


def _blur(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Lens out of focus."""
    radius = (0.002, 0.004, 0.008, 0.014, 0.024)[level - 1] * _side(picture)
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(max(radius, 0.2 * level))))


def _motion_blur(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Mean along a short line, as of a camera that moves; the direction is drawn."""
    half = max(level, round((0.005, 0.01, 0.0175, 0.0275, 0.04)[level - 1] * _side(picture)))
    angle = rng.uniform(-0.35, 0.35)
    steps = np.arange(-half, half + 1)
    total = np.zeros(picture.shape, dtype=np.float32)
    height, width = picture.shape[:2]
    rows, columns = np.arange(height), np.arange(width)
    for step in steps:
        down, right = round(step * np.sin(angle)), round(step * np.cos(angle))
        # Beyond the edge the last row or column goes on, so that no dark border gives the corruption away.
        total += picture[np.clip(rows + down, 0, height - 1)[:, None], np.clip(columns + right, 0, width - 1)[None]]
    return _to_bytes(total / len(steps))


def _jpeg(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Strong compression."""
    quality = (40, 25, 15, 8, 4)[level - 1]
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _brightness(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Too much light."""
    return _to_bytes(picture.astype(np.float32) + (20, 40, 60, 85, 115)[level - 1])


def _contrast(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Everything moves towards the mean colour."""
    kept = (0.75, 0.55, 0.4, 0.25, 0.13)[level - 1]
    values = picture.astype(np.float32)
    mean = values.mean(axis=(0, 1), keepdims=True)
    return _to_bytes(mean + kept * (values - mean))


def _cloud(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """(H, W) smooth pattern in [0, 1]: noise of four sizes, the larger the stronger."""
    height, width = shape
    total = np.zeros(shape, dtype=np.float32)
    for cells, weight in ((3, 8.0), (6, 4.0), (12, 2.0), (24, 1.0)):
        small = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        total += weight * np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def _fog(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Uneven light grey veil, denser towards the top, where the distance lies."""
    strength = (0.25, 0.4, 0.55, 0.7, 0.83)[level - 1]
    height, width = picture.shape[:2]
    density = 0.6 + 0.25 * _cloud((height, width), rng) + 0.15 * np.linspace(1, 0, height, dtype=np.float32)[:, None]
    veil = (strength * density)[:, :, None]
    return _to_bytes(picture * (1 - veil) + 215.0 * veil)


def _rain(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Slanted bright streaks over a darker picture."""
    share, darker = ((0.004, 0.96), (0.008, 0.92), (0.014, 0.87), (0.022, 0.82), (0.034, 0.75))[level - 1]
    height, width = picture.shape[:2]
    # A drop that falls at one level falls at every higher one.
    drops = (rng.random((height, width), dtype=np.float32) < share).astype(np.float32)
    length = max(4, round(0.05 * _side(picture)))
    slant = rng.uniform(-0.3, 0.3)
    streaks = np.zeros_like(drops)
    for step in range(length):
        streaks = np.maximum(streaks, _shifted(drops, step, round(step * slant)))
    light = (0.55 * streaks)[:, :, None]
    return _to_bytes(darker * picture * (1 - light) + 225.0 * light)


def _shifted(values: NDArray[np.float32], down: int, right: int) -> NDArray[np.float32]:
    return np.roll(values, (down, right), axis=(0, 1))


def _low_light(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Night: less light, and noise that grows as light gets scarce."""
    kept = (0.6, 0.42, 0.28, 0.17, 0.09)[level - 1]
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    light = kept * (picture.astype(np.float32) / 255) ** (1 + 0.12 * level)
    return _to_bytes(255 * light + 1.6 * level * noise)


def _downscale(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """A picture made of fewer pixels, shown at the old size."""
    factor = (1.5, 2.2, 3.2, 5.0, 8.0)[level - 1]
    height, width = picture.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    image = Image.fromarray(picture).resize(small, Image.Resampling.BOX)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


CORRUPTIONS: Mapping[str, _Corruption] = {
    "gaussian_noise": _gaussian_noise,
    "blur": _blur,
    "motion_blur": _motion_blur,
    "jpeg": _jpeg,
    "brightness": _brightness,
    "contrast": _contrast,
    "fog": _fog,
    "rain": _rain,
    "low_light": _low_light,
    "downscale": _downscale,
}


def corrupt(picture: Picture, name: str, level: int, seed: int = 0) -> Picture:
    """A corrupted copy of ``picture`` (H, W, 3) uint8.

    Args:
        picture: RGB picture.
        name: key of ``CORRUPTIONS``.
        level: 0 (a plain copy) to 5 (strongest).
        seed: of the pattern; equal arguments give equal pictures.

    Raises:
        ValueError: another shape or type, an unknown name or level.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"picture must have shape (H, W, 3) and type uint8, not {picture.shape} {picture.dtype}")
    if name not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {name!r}: {', '.join(CORRUPTIONS)}")
    if level not in (0, *LEVELS):
        raise ValueError(f"level must be 0 to {LEVELS[-1]}, not {level}")
    if level == 0:
        return picture.copy()
    rng = np.random.default_rng([seed, list(CORRUPTIONS).index(name)])
    return CORRUPTIONS[name](picture, level, rng)


def psnr(first: Picture, second: Picture) -> float:
    """Peak signal-to-noise ratio in dB, infinite for equal pictures.

    Raises:
        ValueError: unequal shapes.
    """
    if first.shape != second.shape:
        raise ValueError(f"pictures differ in shape: {first.shape} and {second.shape}")
    error = float(np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255.0**2 / error))
