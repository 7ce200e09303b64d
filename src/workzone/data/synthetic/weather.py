"""Effects laid over the finished street: reflections on wet ground, lamp glow, rain streaks, snow flakes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .camera import Pixels, Projection
from .domains import Colour
from .lighting import Light
from .spec import stream


def add_reflections(pixels: Pixels, projection: Projection) -> None:
    """Mirror the upper half of the street, blurred, on the wet ground."""
    height, width = pixels.shape[:2]
    top = int(projection.horizon) + 2
    depth = min(height - top, top)
    source = Image.fromarray(np.clip(pixels[top - depth : top][::-1], 0, 255).astype(np.uint8))
    small = source.resize((width // 3, max(1, depth // 12)), Image.Resampling.BOX)
    mirror = np.asarray(small.resize((width, depth), Image.Resampling.BICUBIC), np.float32)
    weight = np.linspace(0.42, 0.26, depth, dtype=np.float32)[:, None, None]
    ground = pixels[top : top + depth]
    ground += (mirror - ground) * weight


@lru_cache(maxsize=64)
def _halo(radius: int) -> Pixels:
    axis = np.arange(-radius, radius + 1, dtype=np.float32) / radius
    squared = axis[:, None] ** 2 + axis[None, :] ** 2
    halo = 0.55 * np.exp(-5.0 * squared) + 0.9 * np.exp(-40.0 * squared)
    return (halo * np.clip(1.0 - squared, 0, 1)).astype(np.float32)


def add_glows(pixels: Pixels, glows: list[tuple[float, float, float, Colour, float]], wide: float) -> None:
    """Add halos; `wide` enlarges them in fog and rain."""
    height, width = pixels.shape[:2]
    for x, y, size, colour, strength in glows:
        radius = int(min(70, max(3, size * wide)))
        cx, cy = int(x), int(y)
        x0, x1, y0, y1 = (
            max(cx - radius, 0),
            min(cx + radius + 1, width),
            max(cy - radius, 0),
            min(cy + radius + 1, height),
        )
        if x0 >= x1 or y0 >= y1:
            continue
        halo = _halo(radius)[y0 - cy + radius : y1 - cy + radius, x0 - cx + radius : x1 - cx + radius]
        pixels[y0:y1, x0:x1] += halo[..., None] * (np.asarray(colour, np.float32) * np.float32(strength))


def add_precipitation(pixels: Pixels, light: Light, seed: int) -> None:
    """Rain streaks or snow flakes in front of everything."""
    if light.weather not in ("rain", "snow"):
        return
    height, width = pixels.shape[:2]
    layer = Image.new("L", (width, height))
    draw = ImageDraw.Draw(layer)
    rng = stream(seed, "precipitation")
    if light.weather == "rain":
        slant = float(rng.uniform(-0.25, 0.25))
        for x, y, length, tone in rng.random((170, 4)).tolist():
            reach = height * (0.03 + 0.07 * length)
            draw.line((x * width, y * height, x * width + slant * reach, y * height + reach), fill=int(40 + 70 * tone))
    else:
        for x, y, size, tone in rng.random((240, 4)).tolist():
            radius = 0.5 + 1.9 * size**3 * width / 448
            cx, cy = x * width, y * height
            draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=int(110 + 130 * tone))
        layer = layer.filter(ImageFilter.BoxBlur(0.5))
    tone = np.asarray(light.horizon, np.float32) * 0.5 + 90 * (1 - 0.6 * light.darkness)
    share = np.asarray(layer, np.float32)[..., None] / 255
    floor = 60 if light.weather == "rain" else 150
    pixels += np.maximum(np.maximum(tone, floor) - pixels, 0) * share
