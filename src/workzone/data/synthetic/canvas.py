"""Drawing surface in street coordinates: polygons in metres, shaded by light and haze, supersampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from .camera import Projection
from .domains import Colour
from .lighting import Light, scaled

SUPERSAMPLING = 2
NEAR = 1.2

Point = tuple[float, float]


@dataclass(slots=True)
class Canvas:
    """Image with its projection and light. `glows` collects (x, y, radius, colour, strength) in final pixels."""

    image: Image.Image
    projection: Projection
    light: Light
    glows: list[tuple[float, float, float, Colour, float]] = field(default_factory=list)
    draw: ImageDraw.ImageDraw = field(init=False)
    veil: ImageDraw.ImageDraw = field(init=False)

    def __post_init__(self) -> None:
        self.draw = ImageDraw.Draw(self.image)
        self.veil = ImageDraw.Draw(self.image, "RGBA")

    def at(self, x: float, y: float, z: float) -> Point:
        """Canvas position of a point in metres."""
        px, py = self.projection.point(x, y, max(z, NEAR))
        return (px * SUPERSAMPLING, py * SUPERSAMPLING)

    def solid(self, points: Sequence[tuple[float, float, float]], colour: Colour, emit: float = 0.0,
              retro: float = 0.0) -> None:  # fmt: skip
        """Fill a polygon given in metres."""
        x, _, z = points[0]
        self.draw.polygon([self.at(*p) for p in points], fill=self.light.shade(colour, x, z, emit, retro))

    def faces(self, x: float, side: int, z0: float, z1: float) -> bool:
        """Whether a wall along the road at `x` that looks to one side (+1 right) is seen by the camera."""
        return (side > 0) == (self.at(x, 0, z1)[0] > self.at(x, 0, z0)[0])

    def block(self, x0: float, x1: float, y0: float, y1: float, z0: float, z1: float, colour: Colour,
              side: Colour | None = None) -> None:  # fmt: skip
        """Fill a box whose faces follow the road: visible side, top and the face towards the camera."""
        flank = side or scaled(colour, 0.72)
        for x in (x0, x1):
            if self.faces(x, 1 if x == x1 else -1, z0, z1):
                self.solid([(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)], flank)
        if y1 < self.projection.eye:
            top = scaled(colour, 1.12)
            self.solid([(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)], top)
        self.solid([(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)], colour)

    def glow(self, x: float, y: float, z: float, radius: float, colour: Colour, strength: float) -> None:
        """Add a halo of `radius` metres around a lamp."""
        px, py = self.projection.point(x, y, z)
        share = 1.0 - 0.7 * self.light.veil(z)
        self.glows.append((px, py, radius * self.projection.focal / z, colour, strength * share))

    def shadow(self, x: float, z: float, width: float, length: float = 0.5) -> None:
        """Darken the ground under something."""
        dark = (0.55 if self.light.weather == "clear" else 0.38) * (1.0 - self.light.veil(z))
        shift = 0.3 * width if self.light.weather == "clear" and self.light.darkness < 0.5 else 0.0
        x0, y0 = self.at(x - width * 0.58, 0, z + length)
        x1, y1 = self.at(x + width * 0.58 + shift, 0, max(z - 0.15, NEAR))
        self.veil.ellipse(
            (min(x0, x1), min(y0, y1) - 1, max(x0, x1), max(y0, y1) + 1), fill=(8, 8, 12, int(255 * dark))
        )

    def pen(self, x: float, z: float, base: float = 0.0) -> Pen:
        """Flat drawing pen for something upright at (x, z)."""
        ox, oy = self.at(x, base, z)
        return Pen(self, x, z, ox, oy, self.projection.focal / z * SUPERSAMPLING)


@dataclass(slots=True)
class Pen:
    """Draws in metres relative to the foot point of one upright object (u right, v up)."""

    canvas: Canvas
    x: float
    z: float
    ox: float
    oy: float
    scale: float

    def _fill(self, colour: Colour, emit: float, retro: float) -> tuple[int, int, int]:
        return self.canvas.light.shade(colour, self.x, self.z, emit, retro)

    def poly(self, points: Sequence[Point], colour: Colour, emit: float = 0.0, retro: float = 0.0) -> None:
        """Fill a polygon."""
        s, ox, oy = self.scale, self.ox, self.oy
        self.canvas.draw.polygon([(ox + u * s, oy - v * s) for u, v in points], fill=self._fill(colour, emit, retro))

    def rect(self, u0: float, v0: float, u1: float, v1: float, colour: Colour, emit: float = 0.0,
             retro: float = 0.0) -> None:  # fmt: skip
        """Fill a rectangle."""
        self.poly(((u0, v0), (u1, v0), (u1, v1), (u0, v1)), colour, emit, retro)

    def disc(self, u: float, v: float, ru: float, rv: float, colour: Colour, emit: float = 0.0) -> None:
        """Fill an ellipse with radii in metres."""
        s, cx, cy = self.scale, self.ox + u * self.scale, self.oy - v * self.scale
        self.canvas.draw.ellipse((cx - ru * s, cy - rv * s, cx + ru * s, cy + rv * s), fill=self._fill(colour, emit, 0))

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Stroke a line of `width` metres (at least one canvas pixel)."""
        s, ox, oy = self.scale, self.ox, self.oy
        self.canvas.draw.line([(ox + u * s, oy - v * s) for u, v in points], fill=self._fill(colour, 0, 0),
                              width=max(1, round(width * s)), joint="curve")  # fmt: skip

    def stripes(self, u0: float, v0: float, u1: float, v1: float, colours: tuple[Colour, Colour], pitch: float) -> None:
        """Fill a board with diagonal stripes of alternating retroreflecting colours."""
        self.rect(u0, v0, u1, v1, colours[0], retro=1.0)
        height = v1 - v0
        if pitch * self.scale < 1.5:
            return
        for k in range(math.floor((u0 - height) / pitch), math.ceil(u1 / pitch) + 1, 2):
            a, b = k * pitch, (k + 1) * pitch
            quad = np.clip([a, b, b + height, a + height], u0, u1).tolist()
            if (quad[1] <= u0 or quad[0] >= u1) and (quad[2] <= u0 or quad[3] >= u1):
                continue
            self.poly(((quad[0], v0), (quad[1], v0), (quad[2], v1), (quad[3], v1)), colours[1], retro=1.0)
