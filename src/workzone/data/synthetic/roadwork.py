"""Roadwork equipment: what closes a lane, temporary signs, machines, workers and open ground."""

from __future__ import annotations

from collections.abc import Callable

from .canvas import Canvas
from .domains import Colour, Domain
from .lighting import scaled
from .spec import SceneObject

ORANGE: Colour = (248, 98, 18)
WHITE: Colour = (244, 244, 240)
RED: Colour = (206, 30, 34)
YELLOW: Colour = (240, 178, 24)
LIME: Colour = (196, 236, 40)
BLACK: Colour = (26, 26, 28)
STEEL: Colour = (110, 112, 116)


def _cone(canvas: Canvas, item: SceneObject, profile: Domain) -> None:
    canvas.shadow(item.x, item.depth, 0.5, 0.25)
    pen, h = canvas.pen(item.x, item.depth), item.height
    pen.rect(-0.24, 0, 0.24, 0.06, (52, 50, 50) if item.variant % 2 else (196, 76, 20))

    def band(v0: float, v1: float, colour: Colour, retro: float) -> None:
        a, b = 0.17 - 0.14 * v0, 0.17 - 0.14 * v1
        pen.poly(((-a, 0.05 + v0 * (h - 0.05)), (a, 0.05 + v0 * (h - 0.05)), (b, 0.05 + v1 * (h - 0.05)),
                  (-b, 0.05 + v1 * (h - 0.05))), colour, retro=retro)  # fmt: skip

    band(0.0, 1.0, ORANGE, 0.35)
    band(0.36, 0.52, WHITE, 1.0)
    band(0.68, 0.82, WHITE, 1.0)


def _drum(canvas: Canvas, item: SceneObject, profile: Domain) -> None:
    canvas.shadow(item.x, item.depth, 0.62, 0.35)
    pen, h = canvas.pen(item.x, item.depth), item.height
    pen.rect(-0.33, 0, 0.33, 0.08, (36, 36, 38))
    for k in range(5):
        colour = WHITE if k % 2 else ORANGE
        a, b = 0.29 - 0.012 * k, 0.29 - 0.012 * (k + 1)
        v0, v1 = 0.07 + (h - 0.12) * k / 5, 0.07 + (h - 0.12) * (k + 1) / 5
        pen.poly(((-a, v0), (a, v0), (b, v1), (-b, v1)), colour, retro=0.9 if k % 2 else 0.4)
        dim = scaled(colour, 0.74)
        pen.poly(((a * 0.55, v0), (a, v0), (b, v1), (b * 0.55, v1)), dim, retro=0.5 if k % 2 else 0.2)
    pen.rect(-0.12, h - 0.06, 0.12, h, (40, 40, 40))


def _panel(canvas: Canvas, item: SceneObject, profile: Domain) -> None:
    canvas.shadow(item.x, item.depth, 0.5, 0.25)
    pen, h = canvas.pen(item.x, item.depth), item.height
    pen.rect(-0.26, 0, 0.26, 0.1, (46, 46, 48))
    pen.stripes(-0.14, 0.12, 0.14, h, (WHITE, RED), 0.17)
    if item.variant % 3 == 0:
        pen.disc(0, h + 0.08, 0.09, 0.09, (255, 178, 40), emit=0.9)
        if canvas.light.darkness > 0.3:
            canvas.glow(item.x, h + 0.08, item.depth, 0.5, (255, 170, 40), 0.6)


def _barricade(canvas: Canvas, item: SceneObject, profile: Domain) -> None:
    canvas.shadow(item.x, item.depth, item.width, 0.5)
    pen, h, half = canvas.pen(item.x, item.depth), item.height, item.width / 2
    colours = (WHITE, ORANGE) if profile.sign_style == "diamond" else (WHITE, RED)
    for u in (-half * 0.82, half * 0.82):
        pen.rect(u - 0.05, 0, u + 0.05, h, (206, 206, 202))
        pen.rect(u - 0.22, 0, u + 0.22, 0.08, (70, 70, 72))
    boards = 3 if item.variant % 2 else 2
    for k in range(boards):
        v = h - 0.26 - k * (h - 0.3) / boards
        pen.stripes(-half, v, half, v + 0.24, colours, 0.24)


def _water_barrier(canvas: Canvas, item: SceneObject, profile: Domain) -> None:
    colour = WHITE if item.variant % 2 else ORANGE
    x, z, half = item.x, item.depth, item.width / 2
    canvas.shadow(x, z, item.width, 1.2)
    canvas.block(x - half, x + half, 0, item.height * 0.45, z, z + 1.5, colour)
    canvas.block(x - half * 0.55, x + half * 0.55, item.height * 0.45, item.height, z, z + 1.5, colour)
    pen = canvas.pen(x, z)
    pen.rect(-half, 0, half, 0.07, (60, 58, 58))


def _sign(canvas: Canvas, item: SceneObject, profile: Domain) -> None:
    pen, h = canvas.pen(item.x, item.depth), item.height
    canvas.shadow(item.x, item.depth, 0.7, 0.3)
    pen.line([(-0.4, 0), (0, h * 0.4), (0.4, 0)], STEEL, 0.05)
    pen.rect(-0.04, 0.2, 0.04, h - 0.9, STEEL)
    if profile.sign_style == "diamond":
        c, r = h - 0.62, 0.62
        pen.poly(((0, c - r), (r, c), (0, c + r), (-r, c)), BLACK)
        r = 0.57
        pen.poly(((0, c - r), (r, c), (0, c + r), (-r, c)), ORANGE, retro=0.8)
        if item.variant % 2:
            for k, width in enumerate((0.2, 0.33, 0.2)):
                pen.rect(-width, c + 0.13 - 0.16 * k, width, c + 0.21 - 0.16 * k, BLACK)
        else:
            _digger(pen.poly, pen.disc, c)
        if item.variant % 3 == 0:
            for u in (-0.42, 0.42):
                pen.poly(((u - 0.14, h), (u + 0.14, h), (u * 1.5, h + 0.3)), ORANGE)
    else:
        c = h - 0.66
        pen.poly(((-0.66, c - 0.42), (0.66, c - 0.42), (0, c + 0.7)), RED, retro=0.8)
        pen.poly(
            ((-0.46, c - 0.3), (0.46, c - 0.3), (0, c + 0.47)),
            (250, 214, 60) if item.variant % 3 == 0 else WHITE,
            retro=0.9,
        )
        _digger(pen.poly, pen.disc, c - 0.08)
        if item.variant % 2:
            pen.rect(-0.5, c - 0.86, 0.5, c - 0.5, YELLOW, retro=0.8)
            pen.rect(-0.36, c - 0.73, 0.36, c - 0.64, BLACK)


def _digger(poly: Callable[..., None], disc: Callable[..., None], c: float) -> None:
    """The figure of a man with a shovel around height `c`."""
    disc(-0.06, c + 0.2, 0.06, 0.06, BLACK)
    poly(((-0.12, c + 0.14), (0.02, c + 0.14), (0.1, c - 0.04), (-0.06, c - 0.08)), BLACK)
    poly(((-0.08, c - 0.06), (0.02, c - 0.06), (-0.1, c - 0.26), (-0.2, c - 0.26)), BLACK)
    poly(((0.06, c - 0.04), (0.12, c - 0.02), (0.28, c - 0.24), (0.18, c - 0.26)), BLACK)


def _arrow_board(canvas: Canvas, item: SceneObject, profile: Domain) -> None:
    canvas.shadow(item.x, item.depth, item.width, 1.2)
    pen, h, half = canvas.pen(item.x, item.depth), item.height, item.width / 2
    pen.rect(-half * 0.7, 0.35, half * 0.7, 0.75, ORANGE)
    pen.disc(-half * 0.5, 0.28, 0.28, 0.28, BLACK)
    pen.disc(half * 0.5, 0.28, 0.28, 0.28, BLACK)
    pen.rect(-0.07, 0.7, 0.07, h - 1.2, STEEL)
    pen.rect(-half, h - 1.25, half, h, (22, 22, 24))
    side = -1 if item.variant % 2 else 1
    lamps = [(u / 5, 0.0) for u in range(-4, 4)] + [(0.55, 0.22), (0.55, -0.22), (0.32, 0.42), (0.32, -0.42)]
    for u, v in lamps:
        pen.disc(side * u * half, h - 0.62 + v, 0.08, 0.08, (255, 176, 36), emit=1.0)
    if canvas.light.darkness > 0.3:
        canvas.glow(item.x, h - 0.6, item.depth, 1.6, (255, 160, 40), 0.55)


def _excavator(canvas: Canvas, item: SceneObject, profile: Domain) -> None:
    x, z = item.x, item.depth
    side = 1.0 if item.variant % 2 else -1.0
    paint = (YELLOW, (232, 120, 20), (236, 196, 40))[item.variant % 3]
    canvas.shadow(x, z, item.width * 0.8, 1.8)
    pen = canvas.pen(x, z)

    def poly(points: list[tuple[float, float]], colour: Colour) -> None:
        pen.poly([(side * u, v) for u, v in points], colour)

    poly(
        [(-1.4, 0.1), (-1.2, 0.0), (1.2, 0.0), (1.4, 0.1), (1.4, 0.55), (1.2, 0.7), (-1.2, 0.7), (-1.4, 0.55)],
        (38, 38, 40),
    )
    for k in range(5):
        pen.disc(-1.0 + 0.5 * k, 0.33, 0.17, 0.17, (82, 82, 84))
    dim = scaled(paint, 0.75)
    poly([(-1.6, 0.85), (0.5, 0.85), (0.5, 1.75), (-1.5, 1.75)], paint)
    poly([(-1.6, 0.85), (-1.0, 0.85), (-1.0, 1.7), (-1.55, 1.7)], dim)
    poly([(-0.5, 1.75), (0.55, 0.95), (0.75, 0.95), (0.6, 2.7), (-0.4, 2.7)], paint)
    poly([(-0.25, 1.75), (0.55, 1.4), (0.5, 2.55), (-0.25, 2.55)], (70, 90, 104))
    poly([(0.5, 1.2), (0.85, 1.2), (1.9, 3.1), (1.7, 3.4), (1.45, 3.25)], paint)
    poly([(1.6, 3.35), (1.95, 3.2), (2.5, 1.5), (2.3, 1.45)], dim)
    poly([(2.05, 1.6), (2.65, 1.45), (2.6, 0.85), (2.1, 0.75), (1.85, 1.15)], (64, 62, 60))


def _roller(canvas: Canvas, item: SceneObject, profile: Domain) -> None:
    x, z = item.x, item.depth
    paint = YELLOW if item.variant % 2 else (236, 120, 22)
    canvas.shadow(x, z, item.width, 1.6)
    pen, half = canvas.pen(x, z), item.width / 2
    pen.rect(-half * 0.85, 0.7, half * 0.85, 1.35, paint)
    for u in (-half * 0.75, half * 0.75):
        pen.rect(u - 0.04, 1.35, u + 0.04, item.height, BLACK)
    pen.rect(-half * 0.9, item.height - 0.12, half * 0.9, item.height, paint)
    pen.rect(-half * 0.2, 1.35, half * 0.2, 1.95, (60, 64, 92))
    pen.rect(-half, 0, half, 0.95, (104, 104, 108))
    pen.rect(-half, 0.72, half, 0.95, (140, 140, 144))


def _worker(canvas: Canvas, item: SceneObject, profile: Domain) -> None:
    canvas.shadow(item.x, item.depth, 0.6, 0.3)
    pen, h, v = canvas.pen(item.x, item.depth), item.height, item.variant
    vest = LIME if v % 2 else ORANGE
    legs: Colour = (44, 52, 74) if v % 3 else vest
    for u in (-0.1, 0.1):
        pen.poly(((u - 0.09, h * 0.48), (u + 0.09, h * 0.48), (u * 1.6 + 0.07, 0), (u * 1.6 - 0.07, 0)), legs)
        pen.rect(u * 1.5 - 0.08, h * 0.14, u * 1.5 + 0.08, h * 0.18, WHITE, retro=1.0)
    pen.poly(((-0.24, h * 0.8), (0.24, h * 0.8), (0.19, h * 0.44), (-0.19, h * 0.44)), vest, retro=0.25)
    pen.rect(-0.2, h * 0.52, 0.2, h * 0.56, WHITE, retro=1.0)
    pen.rect(-0.21, h * 0.63, 0.21, h * 0.67, WHITE, retro=1.0)
    reach = 0.5 if v % 2 else -0.5
    pen.line([(0.2, h * 0.77), (0.36, h * 0.58), (reach, h * 0.5)], vest, 0.11)
    pen.line([(-0.2, h * 0.77), (-0.3, h * 0.56), (reach * 0.8, h * 0.5)], vest, 0.11)
    pen.line([(reach * 0.6, h * 0.62), (reach * 1.35, 0.05)], (120, 88, 56), 0.05)
    pen.disc(0, h * 0.885, 0.1, 0.12, (206, 156, 122))
    pen.poly(((-0.15, h * 0.92), (0.15, h * 0.92), (0.1, h), (-0.1, h)), WHITE if v % 4 == 0 else YELLOW)


def _excavation(canvas: Canvas, item: SceneObject, profile: Domain) -> None:
    x, z, half = item.x, item.depth, item.width / 2
    deep = 2.5 + item.variant % 3
    canvas.solid(
        [(x - half, 0, z), (x + half, 0, z), (x + half * 0.95, 0, z + deep), (x - half * 0.9, 0, z + deep)],
        (92, 70, 52),
    )
    canvas.solid([(x - half * 0.7, 0, z + 0.35), (x + half * 0.75, 0, z + 0.35), (x + half * 0.7, 0, z + deep * 0.8),
                  (x - half * 0.7, 0, z + deep * 0.75)], (50, 38, 30))  # fmt: skip
    pen = canvas.pen(x, z + deep)
    heap = item.height
    pen.poly(
        (
            (-half, 0),
            (-half * 0.5, heap * 0.75),
            (-half * 0.1, heap),
            (half * 0.35, heap * 0.7),
            (half * 0.6, heap * 0.35),
            (half * 0.9, 0),
        ),
        (122, 94, 68),
    )
    pen.poly(((-half * 0.1, heap), (half * 0.35, heap * 0.7), (half * 0.9, 0), (half * 0.1, 0)), (98, 74, 54))


PAINTERS: dict[str, Callable[[Canvas, SceneObject, Domain], None]] = {
    "cone": _cone, "drum": _drum, "panel": _panel, "barricade": _barricade, "water_barrier": _water_barrier,
    "work_sign": _sign, "arrow_board": _arrow_board, "excavator": _excavator, "roller": _roller, "worker": _worker,
    "excavation": _excavation,
}  # fmt: skip
# Width and height in metres.
SIZES: dict[str, tuple[float, float]] = {
    "cone": (0.48, 0.75), "drum": (0.66, 1.05), "panel": (0.52, 1.15), "barricade": (2.0, 1.3),
    "water_barrier": (0.6, 0.9), "work_sign": (1.3, 2.1), "arrow_board": (2.0, 3.0), "excavator": (5.3, 3.4),
    "roller": (1.9, 2.3), "worker": (0.9, 1.78), "excavation": (2.2, 0.7),
}  # fmt: skip
