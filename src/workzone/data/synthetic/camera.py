"""Pinhole projection onto the image and the finish a camera gives: bonnet, vignette, tint, noise, JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .domains import Domain
from .place import Place
from .spec import Box, View, stream

Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Projection:
    """Maps street metres (x right, y up, z ahead) to pixels of the final image."""

    width: int
    height: int
    focal: float
    centre_x: float
    horizon: float
    eye: float
    x_offset: float
    curve: float

    def point(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Pixel position of a point; `z` must be positive."""
        scale = self.focal / z
        return (
            self.centre_x + (x - self.x_offset + self.curve * z * z) * scale,
            self.horizon + (self.eye - y) * scale,
        )

    def box(self, x: float, z: float, width: float, height: float, base: float = 0.0) -> Box:
        """Unclipped pixel box of an upright rectangle centred at `x`, standing `base` metres above the ground."""
        x0, y0 = self.point(x - width / 2, base + height, z)
        x1, y1 = self.point(x + width / 2, base, z)
        return (x0, y0, x1, y1)

    def clip(self, box: Box) -> Box:
        """The part of a box inside the image."""
        return (
            min(max(box[0], 0.0), self.width), min(max(box[1], 0.0), self.height),
            min(max(box[2], 0.0), self.width), min(max(box[3], 0.0), self.height),
        )  # fmt: skip


def projection(profile: Domain, place: Place, view: View, width: int, height: int) -> Projection:
    """Projection of one picture."""
    return Projection(
        width, height, profile.focal * width, width * (0.5 + view.yaw), height * (0.47 + view.pitch),
        profile.camera_height, view.x_offset, place.curve,
    )  # fmt: skip


def draw_bonnet(draw: ImageDraw.ImageDraw, profile: Domain, width: int, height: int, light: float) -> None:
    """Paint the bonnet of the own car along the lower edge (pixels of the given canvas)."""
    if profile.bonnet is None:
        return
    top = height * 0.925
    shade = [tuple(int(c * light * k) for c in profile.bonnet) for k in (0.75, 1.0, 1.35)]
    for k, (inset, lift) in enumerate(((0.0, 0.0), (0.02, 0.012), (0.2, 0.03))):
        steps = [(width * (inset + (1 - 2 * inset) * t), top + height * (lift + 0.3 * (t - 0.5) ** 2))
                 for t in np.linspace(0.0, 1.0, 13).tolist()]  # fmt: skip
        draw.polygon([*steps, (width * (1 - inset), height), (width * inset, height)], fill=shade[k])


@lru_cache(maxsize=32)
def _vignette(width: int, height: int, strength: float) -> Pixels:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    radius = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) / 0.5
    out: Pixels = (1.0 - np.float32(strength) * radius**1.5)[..., None].astype(np.float32)
    return out


@lru_cache(maxsize=1)
def _grain() -> Pixels:
    return np.random.default_rng(20240501).standard_normal((1 << 20,), dtype=np.float32)


def finish(pixels: Pixels, profile: Domain, camera: int, seed: int, darkness: float) -> Image.Image:
    """Turn linear-looking pixels (height, width, 3) in 0..255 into what camera number `camera` of the fleet stores."""
    height, width = pixels.shape[:2]
    device = stream(camera, f"camera/{profile.name}")
    gains = np.asarray(profile.tint, np.float32) * device.uniform(0.97, 1.03, 3).astype(np.float32)
    contrast = np.float32(profile.contrast * device.uniform(0.96, 1.04))
    rng = stream(seed, "sensor")
    exposure = np.float32(rng.uniform(0.9, 1.1))
    pixels = pixels * (gains * exposure * contrast)
    pixels += np.float32(118) * (1 - contrast)
    pixels *= _vignette(width, height, profile.vignette)
    sigma = np.float32(profile.noise * (1.0 + 0.6 * darkness))
    grain, need = _grain(), height * width
    start = int(rng.integers(0, max(1, grain.size - need)))
    luma = (
        np.take(grain, np.arange(start, start + need), mode="wrap")
        if need > grain.size
        else grain[start : start + need]
    )
    pixels += (luma * sigma).reshape(height, width, 1)
    colour = (np.roll(luma, 4099) * (sigma * np.float32(0.5))).reshape(height, width)
    pixels[..., 0] += colour
    pixels[..., 2] -= colour
    image = Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=profile.jpeg_quality + int(rng.integers(-6, 7)))
    return Image.open(buffer).convert("RGB")
