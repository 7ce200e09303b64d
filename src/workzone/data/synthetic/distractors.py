"""Orange things that are no roadwork: they make hard negatives, and stand beside roadwork just as often."""

from __future__ import annotations

import math
from collections.abc import Callable

from .actors import ORANGE, paint_person, paint_vehicle
from .canvas import Canvas
from .domains import Colour
from .lighting import scaled
from .spec import SceneObject
from .street import paint_tree


def _shade(variant: int) -> Colour:
    return ((240, 112, 22), (228, 98, 30), (246, 134, 34), (214, 92, 28))[variant % 4]


def _car(canvas: Canvas, item: SceneObject) -> None:
    paint_vehicle(canvas, item, "car", _shade(item.variant // 2))


def _bus(canvas: Canvas, item: SceneObject) -> None:
    paint_vehicle(canvas, item, "bus", (240, 156, 26) if item.variant % 3 else ORANGE)


def _van(canvas: Canvas, item: SceneObject) -> None:
    paint_vehicle(canvas, item, "van", _shade(item.variant // 2))


def _bin(canvas: Canvas, item: SceneObject) -> None:
    canvas.shadow(item.x, item.depth, 0.6, 0.4)
    pen, h, colour = canvas.pen(item.x, item.depth), item.height, _shade(item.variant)
    pen.poly(((-0.24, 0.05), (0.24, 0.05), (0.3, h - 0.12), (-0.3, h - 0.12)), colour)
    pen.poly(((0.1, 0.05), (0.24, 0.05), (0.3, h - 0.12), (0.14, h - 0.12)), scaled(colour, 0.76))
    pen.rect(-0.34, h - 0.14, 0.34, h, (74, 60, 54))
    pen.disc(-0.2, 0.07, 0.08, 0.08, (28, 28, 30))


def _tree(canvas: Canvas, item: SceneObject) -> None:
    leaves: Colour = ((222, 118, 30), (206, 94, 32), (230, 150, 40))[item.variant % 3]
    paint_tree(canvas, item.x, item.depth, item.height, item.variant, leaves)


def _awning(canvas: Canvas, item: SceneObject) -> None:
    """An awning hanging from a wall that runs along the street; `width` is its length along the street."""
    wall, a, b = item.x, item.depth, item.depth + item.width
    out = wall - math.copysign(1.3, wall)
    top, low = item.base + item.height, item.base + item.height * 0.45
    colour = _shade(item.variant)
    parts = 8
    for k in range(parts):
        z0, z1 = a + (b - a) * k / parts, a + (b - a) * (k + 1) / parts
        tone: Colour = (236, 226, 206) if item.variant % 2 and k % 2 else colour
        canvas.solid([(wall, top, z0), (wall, top, z1), (out, low, z1), (out, low, z0)], tone)
        dim = scaled(tone, 0.8)
        canvas.solid([(out, low, z0), (out, low, z1), (out, item.base, z1), (out, item.base, z0)], dim)
    canvas.solid([(wall, top, a), (out, low, a), (out, item.base, a), (wall, item.base, a)], scaled(colour, 0.68))


def _banner(canvas: Canvas, item: SceneObject) -> None:
    pen, half, h = canvas.pen(item.x, item.depth, item.base), item.width / 2, item.height
    pen.rect(-half - 0.08, -item.base, -half, h, (108, 110, 112))
    pen.poly(((-half, 0), (half, 0.1), (half, h - 0.05), (-half, h)), _shade(item.variant))
    for k in range(3):
        v = h * (0.72 - 0.22 * k)
        pen.rect(-half * 0.6, v, half * (0.6 - 0.3 * (k == 2)), v + h * 0.1, (250, 240, 226))


def _ball(canvas: Canvas, item: SceneObject) -> None:
    canvas.shadow(item.x, item.depth, 0.3, 0.2)
    pen = canvas.pen(item.x, item.depth)
    r = item.height / 2
    pen.disc(0, r, r, r, (222, 110, 40))
    pen.line([(-r, r), (r, r)], (40, 26, 20), 0.02)
    pen.line([(0, 0), (0, 2 * r)], (40, 26, 20), 0.02)


def _shirt(canvas: Canvas, item: SceneObject) -> None:
    paint_person(canvas, item, _shade(item.variant))


def _planter(canvas: Canvas, item: SceneObject) -> None:
    canvas.shadow(item.x, item.depth, item.width, 0.5)
    pen, half, h = canvas.pen(item.x, item.depth), item.width / 2, item.height
    pen.poly(((-half * 0.85, 0), (half * 0.85, 0), (half, h * 0.55), (-half, h * 0.55)), (128, 120, 112))
    for k in range(9):
        u = half * (k - 4) / 4.6
        pen.disc(
            u, h * (0.66 + 0.14 * ((k * 5 + item.variant) % 3)), 0.13, 0.12, (70, 112, 54) if k % 3 == 1 else _shade(k)
        )


def _sky(canvas: Canvas, item: SceneObject) -> None:
    """The sunset is painted with the sky; nothing stands in the street."""


PAINTERS: dict[str, Callable[[Canvas, SceneObject], None]] = {
    "orange_car": _car, "orange_bus": _bus, "orange_van": _van, "orange_bin": _bin, "autumn_tree": _tree,
    "orange_awning": _awning, "orange_banner": _banner, "basketball": _ball, "orange_shirt": _shirt,
    "orange_flowers": _planter, "sunset_sky": _sky,
}  # fmt: skip
SIZES: dict[str, tuple[float, float]] = {
    "orange_car": (1.8, 1.45), "orange_bus": (2.5, 3.1), "orange_van": (2.0, 2.3), "orange_bin": (0.68, 1.1),
    "autumn_tree": (3.9, 6.5), "orange_awning": (5.0, 1.2), "orange_banner": (0.8, 2.2), "basketball": (0.26, 0.26),
    "orange_shirt": (0.56, 1.74), "orange_flowers": (1.3, 0.9),
}  # fmt: skip
