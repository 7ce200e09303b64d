"""Fixed furniture of a street: skyline, buildings with windows, trees, lamps, permanent signs."""

from __future__ import annotations

import math

import numpy as np

from .canvas import Canvas
from .domains import Colour
from .lighting import mix, scaled
from .place import Facade, Place, Plant
from .spec import stream

_SHOP: tuple[Colour, ...] = ((60, 84, 120), (150, 40, 44), (46, 96, 72), (216, 206, 182), (88, 74, 96))
_LIT: tuple[Colour, ...] = ((255, 214, 140), (255, 236, 190), (220, 232, 255), (255, 190, 110))


def paint_skyline(canvas: Canvas, place: Place) -> None:
    """Far silhouettes on the horizon, the same for every picture of a place."""
    rng = stream(place.key, "skyline")
    projection = canvas.projection
    tone = mix((70, 92, 74) if place.kind != "downtown" else (104, 110, 122), canvas.light.horizon, 0.45)
    colour = canvas.light.shade(tone, 60, 90)
    y = projection.horizon * 2 + 2
    x = -40.0
    while x < projection.width * 2 + 40:
        width = float(rng.uniform(14, 60))
        height = float(rng.uniform(6, 34 if place.kind == "downtown" else 16))
        if place.kind == "downtown":
            canvas.draw.rectangle((x, y - height, x + width, y), fill=colour)
        else:
            canvas.draw.ellipse((x - width * 0.3, y - height, x + width * 1.3, y + height), fill=colour)
        x += width


def paint_facade(canvas: Canvas, facade: Facade, z_offset: float, seed: int) -> None:
    """A building: front wall, gable wall, roof line, windows (some lit after dark), shop front."""
    z0, z1 = facade.z0 - z_offset, facade.z1 - z_offset
    if z1 < 3.0:
        return
    near = max(z0, 1.6)
    x, side, light = facade.x, facade.side, canvas.light
    outer = x + side * 9.0
    wall = facade.colour
    if z0 > 1.6:
        gable: list[tuple[float, float, float]] = [(x, 0, z0), (x, facade.height, z0)]
        if facade.gable:
            gable.append(((x + outer) / 2, facade.height + 2.6, z0))
        gable += [(outer, facade.height, z0), (outer, 0, z0)]
        canvas.solid(gable, scaled(wall, 0.78))
        if facade.gable:
            for k in range(2):
                for row in range(facade.rows):
                    u, v = x + side * (2.2 + 3.4 * k), row * 3.1 + 1.1
                    canvas.solid([(u, v, z0), (u + 1.1, v, z0), (u + 1.1, v + 1.4, z0), (u, v + 1.4, z0)], (70, 82, 96))
    canvas.solid([(x, 0, near), (x, facade.height, near), (x, facade.height, z1), (x, 0, z1)], wall)
    if facade.gable:
        ridge = (x + outer) / 2
        roof = mix((104, 62, 52), (72, 74, 80), (facade.key % 7) / 6)
        if light.weather == "snow":
            roof = mix(roof, (236, 240, 246), 0.85)
        canvas.solid([(x, facade.height, near), (ridge, facade.height + 2.6, near), (ridge, facade.height + 2.6, z1),
                      (x, facade.height, z1)], roof)  # fmt: skip
    else:
        trim = scaled(wall, 0.62)
        if light.weather == "snow":
            trim = (232, 236, 242)
        canvas.solid([(x, facade.height - 0.5, near), (x, facade.height, near), (x, facade.height, z1),
                      (x, facade.height - 0.5, z1)], trim)  # fmt: skip
    _windows(canvas, facade, z0, z1, seed)


def _windows(canvas: Canvas, facade: Facade, z0: float, z1: float, seed: int) -> None:
    light, projection = canvas.light, canvas.projection
    rng = stream(seed, "windows", facade.key)
    lit_share = 0.32 * light.darkness
    lit = rng.random((facade.rows, facade.columns)) < lit_share
    bay = (z1 - z0) / facade.columns
    glass = mix((58, 70, 86), light.zenith, 0.3 * (1 - light.darkness))
    inset, sill, head = ((0.22, 1.0, 2.6), (0.05, 1.0, 2.5), (0.3, 0.6, 2.7), (0.16, 0.9, 2.3))[facade.key % 4]
    first = 0
    if facade.shop:
        first = 1
        tone = _SHOP[facade.shop - 1]
        a, b = max(z0 + 0.4, 1.6), z1 - 0.4
        if b > a:
            pane = (255, 232, 180) if light.darkness > 0.3 else (82, 92, 102)
            emit = 0.75 if light.darkness > 0.3 else 0.0
            canvas.solid([(facade.x, 0.4, a), (facade.x, 2.5, a), (facade.x, 2.5, b), (facade.x, 0.4, b)], pane, emit)
            canvas.solid(
                [(facade.x, 2.5, a), (facade.x, 3.2, a), (facade.x, 3.2, b), (facade.x, 2.5, b)], tone, emit * 0.4
            )
            posts = max(2, int((b - a) / 2.4))
            for k in range(posts):
                c = a + (b - a) * (k + 0.5) / posts
                half = 0.5 if k == facade.key % posts else 0.08
                canvas.solid(
                    [
                        (facade.x, 0.0 if half > 0.1 else 0.4, c - half),
                        (facade.x, 2.5, c - half),
                        (facade.x, 2.5, c + half),
                        (facade.x, 0.0 if half > 0.1 else 0.4, c + half),
                    ],
                    (64, 56, 52),
                    emit * 0.15,
                )
    stretch = projection.focal * 2
    for column in range(facade.columns):
        a, b = z0 + bay * (column + inset), z0 + bay * (column + 1 - inset)
        if b < 2.2:
            continue
        a = max(a, 1.8)
        left, right = canvas.at(facade.x, 0, a)[0], canvas.at(facade.x, 0, b)[0]
        if abs(right - left) < 1.5 or max(left, right) < 0 or min(left, right) > projection.width * 2:
            continue
        horizon = projection.horizon * 2
        dark = light.shade(glass, facade.x, b)
        for row in range(first, facade.rows):
            v0, v1 = projection.eye - (row * 3.1 + sill), projection.eye - (row * 3.1 + head)
            ya1 = horizon + v1 * stretch / a
            if horizon + v0 * stretch / b < 0:
                break
            fill = dark
            if lit[row, column]:
                fill = light.shade(_LIT[(row * 7 + column * 3 + facade.key) % 4], facade.x, b, 0.85)
            canvas.draw.polygon([left, horizon + v0 * stretch / a, left, ya1, right, horizon + v1 * stretch / b,
                                 right, horizon + v0 * stretch / b], fill=fill)  # fmt: skip


def paint_tree(canvas: Canvas, x: float, z: float, height: float, key: int, leaves: Colour) -> None:
    """A tree with a crown of overlapping tufts, darker below and lighter towards the sky."""
    rng = stream(key, "tree")
    canvas.shadow(x, z, height * 0.5, 1.2)
    pen = canvas.pen(x, z)
    pen.poly(((-0.16, 0), (0.16, 0), (0.09, height * 0.6), (-0.09, height * 0.6)), (74, 58, 46))
    radius = height * 0.27
    count = 46 if z < 18 else 26 if z < 40 else 10
    angle, reach = rng.uniform(0, 2 * math.pi, count), np.sqrt(rng.uniform(0, 1, count))
    u, v = np.cos(angle) * reach * radius, np.sin(angle) * reach * radius * 0.95 + height * 0.68
    order = np.argsort(v)
    sizes = rng.uniform(0.24, 0.4, count) if count > 10 else rng.uniform(0.34, 0.5, count)
    pen.disc(0, height * 0.66, radius * 0.75, radius * 0.65, scaled(leaves, 0.7))
    snow = canvas.light.weather == "snow"
    for k in order.tolist():
        rise = float((v[k] - height * 0.4) / (height * 0.6))
        tone = mix(scaled(leaves, 0.55), leaves, min(1.0, max(0.0, rise * 1.2)))
        if snow:
            tone = mix(tone, (232, 238, 244), max(0.0, rise - 0.25) * 0.9)
        size = radius * sizes[k]
        pen.disc(float(u[k]), float(v[k]), size, size * 0.85, tone)


def green_of(plant: Plant) -> Colour:
    """Summer colour of one tree."""
    k = plant.key % 5
    return (78 + 8 * k, 110 + 5 * k, 52 + 3 * k)


def paint_lamp(canvas: Canvas, lamp: Plant, z: float) -> None:
    """A street lamp with its arm over the road; glows after dark."""
    arm = -1.8 * lamp.key
    pen = canvas.pen(lamp.x, z)
    pen.rect(-0.07, 0, 0.07, lamp.height, (96, 100, 104))
    pen.line([(0, lamp.height), (arm, lamp.height + 0.3)], (96, 100, 104), 0.1)
    on = canvas.light.lamps_on
    pen.rect(min(arm, arm * 0.7), lamp.height + 0.12, max(arm, arm * 0.7), lamp.height + 0.3,
             (255, 226, 170) if on else (150, 152, 154), emit=1.0 if on else 0.0)  # fmt: skip
    if on:
        canvas.glow(lamp.x + arm * 0.85, lamp.height + 0.2, z, 2.4, (255, 200, 130), 0.75 * canvas.light.darkness)


def paint_permanent_sign(canvas: Canvas, x: float, z: float, variant: int) -> None:
    """A permanent traffic sign: parking, speed limit, stop or a yellow warning diamond."""
    pen = canvas.pen(x, z)
    pen.rect(-0.04, 0, 0.04, 2.6, (128, 130, 132))
    choice = variant % 4
    if choice == 0:
        pen.rect(-0.3, 2.0, 0.3, 2.6, (32, 74, 156), retro=0.5)
        pen.rect(-0.08, 2.08, 0.1, 2.5, (236, 236, 236), retro=0.5)
    elif choice == 1:
        pen.disc(0, 2.3, 0.36, 0.36, (196, 34, 38))
        pen.disc(0, 2.3, 0.27, 0.27, (238, 238, 236))
        pen.rect(-0.14, 2.2, 0.14, 2.4, (40, 40, 42))
    elif choice == 2:
        points = [
            (0.38 * math.cos(math.pi * (k + 0.5) / 4), 2.3 + 0.38 * math.sin(math.pi * (k + 0.5) / 4)) for k in range(8)
        ]
        pen.poly(points, (190, 24, 34), retro=0.6)
        pen.rect(-0.25, 2.24, 0.25, 2.36, (240, 240, 240), retro=0.6)
    else:
        pen.poly(((0, 1.8), (0.5, 2.3), (0, 2.8), (-0.5, 2.3)), (236, 200, 44), retro=0.6)
        pen.line([(-0.1, 2.1), (0.0, 2.4), (0.12, 2.5)], (30, 30, 30), 0.08)
