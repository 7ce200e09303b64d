"""Fixed geometry of one place: road, pavement, buildings, trees and lamps. All images of a group share it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from .domains import Colour, domain_profile
from .spec import stream


@dataclass(frozen=True, slots=True)
class Facade:
    """A building along the street; metres, `side` -1 left and +1 right."""

    side: int
    x: float
    z0: float
    z1: float
    height: float
    colour: Colour
    columns: int
    rows: int
    shop: int
    gable: bool
    key: int


@dataclass(frozen=True, slots=True)
class Plant:
    """A tree or a street lamp at (x, z) with its height in metres."""

    x: float
    z: float
    height: float
    key: int


@dataclass(frozen=True, slots=True)
class Place:
    """Geometry in metres; x is measured from the centre of the own lane, z along the road."""

    key: int
    kind: str
    curve: float
    left: float
    right: float
    centre: float
    lane_lines: tuple[float, ...]
    pavement: tuple[float, float]
    parking: tuple[bool, bool]
    crosswalk: float
    facades: tuple[Facade, ...]
    trees: tuple[Plant, ...]
    lamps: tuple[Plant, ...]
    grass: Colour
    heading: float

    def edge(self, side: int) -> float:
        """Lateral position of the kerb on one side in metres."""
        return self.right if side > 0 else self.left


LANE = 3.3
PARKING = 2.2


@lru_cache(maxsize=256)
def place_geometry(domain: str, place: int) -> Place:
    """Geometry of place number `place` in a domain; deterministic in its arguments."""
    profile = domain_profile(domain)
    rng = stream(place, f"place/{domain}")
    kind = profile.place_kinds[place % len(profile.place_kinds)]
    kerb = profile.kerb
    lanes = 2 if kind == "arterial" or rng.random() < 0.25 else 1
    own_outer = int(rng.integers(0, lanes))
    parking = (kind != "arterial" and bool(rng.random() < 0.6), kind != "arterial" and bool(rng.random() < 0.6))
    outer = kerb * (LANE * (0.5 + own_outer))
    centre = outer - kerb * LANE * lanes
    far = centre - kerb * LANE * lanes
    lines = tuple(outer - kerb * LANE * k for k in range(1, lanes)) + tuple(
        centre - kerb * LANE * k for k in range(1, lanes)
    )
    left, right = min(outer, far), max(outer, far)
    left -= PARKING if parking[0] else 0.4
    right += PARKING if parking[1] else 0.4
    pavement = (float(rng.uniform(2.2, 4.0)), float(rng.uniform(2.2, 4.0)))
    setback = {"downtown": 0.0, "suburb": 5.0, "arterial": 9.0}[kind]
    facades: list[Facade] = []
    trees: list[Plant] = []
    for side in (-1, 1):
        wall = (right + pavement[1] + setback) if side > 0 else -(-left + pavement[0] + setback)
        z = float(rng.uniform(-6, 2))
        while z < 130:
            length = float(rng.uniform(9, 20)) if kind == "downtown" else float(rng.uniform(9, 15))
            floors = {"downtown": (3, 9), "suburb": (1, 3), "arterial": (1, 4)}[kind]
            rows = int(rng.integers(*floors))
            base = profile.facades[int(rng.integers(len(profile.facades)))]
            tone = float(rng.uniform(0.82, 1.12))
            facades.append(
                Facade(
                    side, wall + side * float(rng.uniform(0, 0.8)), z, z + length, rows * 3.1 + 1.0,
                    (base[0] * tone, base[1] * tone, base[2] * tone), max(2, int(length / rng.uniform(2.6, 3.6))),
                    rows, int(rng.integers(1, 6)) if kind == "downtown" and rng.random() < 0.6 else 0,
                    kind == "suburb", int(rng.integers(1 << 30)),
                )
            )  # fmt: skip
            gap = {"downtown": 0.0 if rng.random() < 0.8 else 5.0, "suburb": rng.uniform(4, 10)}
            z += length + float(gap.get(kind, rng.uniform(8, 26)))
        spacing = {"downtown": 17.0, "suburb": 12.0, "arterial": 15.0}[kind]
        z = float(rng.uniform(9, 18))
        while z < 110:
            if rng.random() < 0.72:
                x = (right + 0.9) if side > 0 else (left - 0.9)
                x += side * (float(rng.uniform(0, 0.5)) if kind == "downtown" else float(rng.uniform(2.5, 5.5)))
                trees.append(Plant(x, z, float(rng.uniform(4.2, 8.0)), int(rng.integers(1 << 30))))
            z += spacing * float(rng.uniform(0.7, 1.4))
    lamp_side = 1 if rng.random() < 0.5 else -1
    lamp_x = (right + 0.5) if lamp_side > 0 else (left - 0.5)
    first = float(rng.uniform(8, 20))
    lamps = tuple(Plant(lamp_x, first + 26.0 * k, 7.5, lamp_side) for k in range(4))
    green = float(rng.uniform(0.85, 1.15))
    return Place(
        int(rng.integers(1 << 30)), kind, float(rng.uniform(-0.0011, 0.0011)), left, right, centre, lines, pavement,
        parking, float(rng.uniform(14, 34)) if rng.random() < 0.35 else -1.0, tuple(facades), tuple(trees), lamps,
        (92 * green, 118 * green, 62 * green), float(rng.uniform(0, 360)),
    )  # fmt: skip
