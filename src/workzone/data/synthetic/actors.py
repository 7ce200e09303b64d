"""Vehicles and pedestrians, ordinary or orange, seen along the street."""

from __future__ import annotations

import math

from .canvas import Canvas
from .domains import Colour
from .lighting import scaled
from .spec import SceneObject

PAINTS: tuple[Colour, ...] = (
    (188, 190, 194), (236, 236, 234), (40, 42, 46), (92, 98, 106), (44, 66, 116), (132, 30, 34), (58, 88, 72),
    (150, 140, 122), (110, 130, 150), (70, 40, 52),
)  # fmt: skip
ORANGE: Colour = (240, 112, 22)
_SKIN: tuple[Colour, ...] = ((226, 180, 150), (172, 120, 88), (110, 74, 54))
_CLOTHES: tuple[Colour, ...] = ((52, 64, 96), (122, 38, 46), (70, 72, 76), (196, 190, 178), (62, 96, 84), (96, 70, 110))
_LENGTH = {"car": 4.2, "van": 5.2, "truck": 7.5, "bus": 10.5}


def paint_vehicle(canvas: Canvas, item: SceneObject, body: str, paint: Colour | None = None) -> None:
    """A car, van, truck or bus; an odd variant comes towards the camera."""
    oncoming = item.variant % 2 == 1
    colour = paint or PAINTS[(item.variant // 2) % len(PAINTS)]
    x, z, half = item.x, item.depth, item.width / 2
    length = _LENGTH[body]
    canvas.shadow(x, z, item.width * 1.1, length)
    _wheels(canvas, x, z, half, length)
    if body == "car":
        canvas.block(x - half, x + half, 0.28, 0.9, z, z + length, colour)
        _cabin(canvas, x, z, half, item.height, colour, oncoming)
    else:
        canvas.block(x - half, x + half, 0.35, item.height, z, z + length, colour)
        _tall_details(canvas, item, body, colour, length, oncoming)
    _lights(canvas, item, half, oncoming, 0.62 if body == "car" else 0.8)


def _cabin(canvas: Canvas, x: float, z: float, half: float, height: float, colour: Colour, oncoming: bool) -> None:
    z0, z1 = (z + 1.1, z + 3.4) if oncoming else (z + 0.35, z + 2.7)
    low, top, y0 = half * 0.93, half * 0.72, 0.88
    glass: Colour = (38, 46, 56)
    for sign in (-1, 1):
        a, b = x + sign * low, x + sign * top
        if canvas.faces(a, sign, z0, z1):
            canvas.solid([(a, y0, z0), (b, height, z0 + 0.5), (b, height, z1 - 0.4), (a, y0, z1)], glass)
    roof = scaled(colour, 1.05)
    canvas.solid(
        [(x - low, y0, z0), (x + low, y0, z0), (x + top, height, z0 + 0.45), (x - top, height, z0 + 0.45)], colour
    )
    canvas.solid(
        [
            (x - low * 0.88, y0 + 0.06, z0),
            (x + low * 0.88, y0 + 0.06, z0),
            (x + top * 0.9, height - 0.07, z0 + 0.4),
            (x - top * 0.9, height - 0.07, z0 + 0.4),
        ],
        (66, 80, 96),
    )
    canvas.solid([(x - top, height - 0.05, z0 + 0.45), (x + top, height - 0.05, z0 + 0.45), (x + top, height, z1 - 0.4),
                  (x - top, height, z1 - 0.4)], roof)  # fmt: skip


def _wheels(canvas: Canvas, x: float, z: float, half: float, length: float) -> None:
    for sign in (-1, 1):
        edge = x + sign * half
        canvas.solid(
            [(edge - sign * 0.25, 0, z), (edge, 0, z), (edge, 0.4, z), (edge - sign * 0.25, 0.4, z)], (18, 18, 20)
        )
        if canvas.faces(edge, sign, z, z + length):
            canvas.solid([(edge, 0.05, z + 0.2), (edge, 0.05, z + length - 0.2), (edge, 0.35, z + length - 0.2),
                          (edge, 0.35, z + 0.2)], (16, 16, 18))  # fmt: skip


def _side_wheels(canvas: Canvas, x: float, z: float, half: float, length: float) -> None:
    for sign in (-1, 1):
        edge = x + sign * (half + 0.01)
        if z > 40 or not canvas.faces(edge, sign, z, z + length):
            continue
        for centre in (z + length * 0.2, z + length * 0.8):
            ring = [
                (edge, 0.34 + 0.33 * math.sin(k * math.pi / 5), centre + 0.33 * math.cos(k * math.pi / 5))
                for k in range(10)
            ]
            canvas.solid(ring, (20, 20, 22))


def _tall_details(canvas: Canvas, item: SceneObject, body: str, colour: Colour, length: float, oncoming: bool) -> None:
    x, z, half, height = item.x, item.depth, item.width / 2, item.height
    glass: Colour = (46, 56, 68)
    pen = canvas.pen(x, z)
    if oncoming or body == "bus":
        pen.rect(-half * 0.88, height * 0.48, half * 0.88, height * 0.82, glass)
    else:
        shade = scaled(colour, 0.82)
        pen.rect(-0.03, 0.5, 0.03, height * 0.95, shade)
        if body == "van":
            pen.rect(-half * 0.8, height * 0.58, -0.1, height * 0.85, glass)
            pen.rect(0.1, height * 0.58, half * 0.8, height * 0.85, glass)
    pen.rect(-half, 0.35, half, 0.52, (44, 46, 50))
    if body == "bus":
        pen.rect(-half * 0.6, height * 0.86, half * 0.6, height * 0.95, (24, 24, 26))
        pen.rect(-half * 0.45, height * 0.885, half * 0.35, height * 0.925, (255, 210, 90), emit=0.9)
    for sign in (-1, 1):
        edge = x + sign * (half + 0.01)
        if not canvas.faces(edge, sign, z, z + length):
            continue
        if body == "bus":
            for k in range(5):
                a, b = z + 0.5 + k * 2.0, z + 2.2 + k * 2.0
                canvas.solid([(edge, height * 0.5, a), (edge, height * 0.8, a), (edge, height * 0.8, b),
                              (edge, height * 0.5, b)], glass)  # fmt: skip
        elif body == "van":
            a, b = (z + 0.6, z + 1.8) if oncoming else (z + length - 1.8, z + length - 0.6)
            canvas.solid([(edge, height * 0.55, a), (edge, height * 0.85, a), (edge, height * 0.85, b),
                          (edge, height * 0.55, b)], glass)  # fmt: skip


def _lights(canvas: Canvas, item: SceneObject, half: float, oncoming: bool, v: float) -> None:
    x, z, light = item.x, item.depth, canvas.light
    _side_wheels(canvas, x, z, half, 4.2)
    pen = canvas.pen(x, z)
    pen.rect(-half, 0.28, half, 0.42, (36, 38, 42))
    pen.rect(-0.26, 0.44, 0.26, 0.56, (226, 226, 218), retro=0.4)
    on = light.lamps_on or light.weather in ("rain", "fog", "snow")
    for sign in (-1, 1):
        u = sign * half * 0.78
        lamp: Colour = (255, 248, 226) if oncoming else (206, 24, 22)
        pen.rect(u - 0.17, v, u + 0.17, v + 0.15, lamp, emit=(1.0 if on else 0.4) if oncoming else (0.9 if on else 0.0))
        if on and (light.darkness > 0.2 or oncoming):
            strength = (0.95 if oncoming else 0.5) * max(light.darkness, 0.3)
            canvas.glow(
                x + u, v + 0.07, z, 0.95 if oncoming else 0.55, (255, 240, 210) if oncoming else (255, 40, 24), strength
            )


def paint_person(canvas: Canvas, item: SceneObject, shirt: Colour | None = None) -> None:
    """A pedestrian in ordinary clothes, or in a shirt of the given colour."""
    v = item.variant
    canvas.shadow(item.x, item.depth, 0.55, 0.3)
    pen = canvas.pen(item.x, item.depth)
    h = item.height
    trousers = _CLOTHES[(v // 3) % 3]
    stride = 0.1 + 0.06 * (v % 3)
    pen.poly(((-0.13, h * 0.48), (0.02, h * 0.48), (-stride + 0.1, 0), (-stride - 0.04, 0)), trousers)
    pen.poly(((-0.02, h * 0.48), (0.13, h * 0.48), (stride + 0.06, 0), (stride - 0.08, 0)), trousers)
    top = shirt or _CLOTHES[v % len(_CLOTHES)]
    pen.poly(((-0.2, h * 0.8), (0.2, h * 0.8), (0.15, h * 0.46), (-0.15, h * 0.46)), top)
    pen.poly(((-0.2, h * 0.8), (-0.13, h * 0.8), (-0.2, h * 0.48), (-0.28, h * 0.5)), scaled(top, 0.8))
    pen.poly(((0.2, h * 0.8), (0.13, h * 0.8), (0.2, h * 0.48), (0.28, h * 0.5)), scaled(top, 0.8))
    pen.disc(0, h * 0.9, 0.105, 0.13, _SKIN[v % 3])
    pen.poly(((-0.11, h * 0.91), (0.11, h * 0.91), (0.08, h * 0.985), (-0.08, h * 0.985)), (48, 36, 30))
