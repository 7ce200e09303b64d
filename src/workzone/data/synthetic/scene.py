"""Sampling of a scene from a seed. The label switches the roadwork on or off and touches nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import distractors as orange
from . import roadwork
from .camera import Projection, projection
from .domains import Domain, domain_profile
from .place import LANE, Place, place_geometry
from .spec import WEATHERS, Box, Evidence, SceneObject, SceneSpec, View, Weather, stream

WEAK_SHARE = 0.3
DISTRACTOR_SHARE = 0.46
_WEATHER_WEIGHTS = (0.44, 0.26, 0.14, 0.08, 0.08)
# Day, dusk, night, dawn as in the usual slices 8-18, 18-20, 20-6, 6-8.
_HOURS = (tuple(range(8, 18)), (18, 19), (20, 21, 22, 23, 0, 1, 2, 3, 4, 5), (6, 7))
_HOUR_WEIGHTS = (0.54, 0.13, 0.22, 0.11)
_VEHICLES = {"car": (1.8, 1.45), "van": (2.0, 2.3), "truck": (2.4, 3.2), "bus": (2.5, 3.1)}
_LENGTH = {"car": 4.2, "van": 5.2, "truck": 7.5, "bus": 10.5, "orange_car": 4.2, "orange_van": 5.2, "orange_bus": 10.5,
           "water_barrier": 1.5, "excavation": 4.0}  # fmt: skip
_MIN_SIDE = 3.0


def _place_object(proj: Projection, kind: str, x: float, z: float, size: tuple[float, float], variant: int,
                  base: float = 0.0) -> SceneObject | None:  # fmt: skip
    """Object with its clipped box, or None where less than 60 % of it (or too few pixels) would be in the image."""
    width, height = size
    if kind == "orange_awning":
        far = z + width
        points = [proj.point(x, base + dy, d) for dy in (0.0, height) for d in (z, far)]
        points += [proj.point(x - (1.3 if x > 0 else -1.3), base, d) for d in (z, far)]
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        full: Box = (min(xs), min(ys), max(xs), max(ys))
    else:
        full = proj.box(x, z, width, height, base)
        if kind in _LENGTH:
            back = proj.box(x, z + _LENGTH[kind], width, height, base)
            full = (min(full[0], back[0]), min(full[1], back[1]), max(full[2], back[2]), max(full[3], back[3]))
    box = proj.clip(full)
    area = max(1e-6, (full[2] - full[0]) * (full[3] - full[1]))
    inside = (box[2] - box[0]) * (box[3] - box[1]) / area
    if inside < 0.6 or box[2] - box[0] < _MIN_SIDE or box[3] - box[1] < _MIN_SIDE:
        return None
    return SceneObject(kind, x, z, width, height, variant, box, base)


def _hides(front: SceneObject, back: SceneObject, share: float = 0.3) -> bool:
    """Whether `front` collides with `back` or covers more than `share` of its box from nearer by."""
    if abs(front.x - back.x) < (front.width + back.width) / 2 and -0.5 < back.depth - front.depth < _LENGTH.get(
        front.kind, 0.5
    ):
        return True
    if front.depth > back.depth:
        return False
    a, b = front.box, back.box
    overlap = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return overlap > share * (b[2] - b[0]) * (b[3] - b[1])


def _sample_roadwork(rng: np.random.Generator, proj: Projection, place: Place,
                     profile: Domain) -> tuple[Evidence, tuple[SceneObject, ...]]:  # fmt: skip
    weak = bool(rng.random() < WEAK_SHARE)
    for _ in range(12):
        layout = _weak_site(rng, place, profile) if weak else _strong_site(rng, place, profile)
        found = [
            item for kind, x, z in layout
            if (item := _place_object(proj, kind, x, z, roadwork.SIZES[kind], int(rng.integers(1 << 16)))) is not None
        ]  # fmt: skip
        if len(found) >= (1 if weak else 4):
            return ("weak" if weak else "strong"), tuple(found)
    # A site straight ahead is visible from every pose.
    cones = [_place_object(proj, "cone", 1.2 + 0.4 * k, 24.0 - 3 * k, roadwork.SIZES["cone"], k) for k in range(2)]
    return "weak", tuple(item for item in cones if item is not None)


def _weak_site(rng: np.random.Generator, place: Place, profile: Domain) -> list[tuple[str, float, float]]:
    side = profile.kerb if rng.random() < 0.65 else -profile.kerb
    edge = place.edge(side)
    z = float(rng.uniform(20, 42))
    pick = rng.random()
    if pick < 0.4:
        return [("work_sign", edge + side * float(rng.uniform(0.4, 1.4)), z)]
    if pick < 0.75:
        kind = profile.delineators[int(rng.integers(len(profile.delineators)))]
        inset = float(rng.uniform(0.0, 1.2))
        return [(kind, edge - side * inset, z), (kind, edge - side * (inset + 0.5), z + float(rng.uniform(3, 6)))]
    if pick < 0.9:
        return [("barricade", edge + side * float(rng.uniform(-0.6, 1.4)), z)]
    return [("worker", edge + side * 0.6, z * 0.8), ("cone", edge - side * 0.3, z * 0.8 + 1.5)]


def _strong_site(rng: np.random.Generator, place: Place, profile: Domain) -> list[tuple[str, float, float]]:
    side = profile.kerb if rng.random() < 0.7 else -profile.kerb
    edge = place.edge(side)
    start, length = float(rng.uniform(8, 17)), float(rng.uniform(9, 24))
    reach = float(rng.uniform(0.8, 3.2))
    count = int(rng.integers(4, 9))
    kind = profile.delineators[int(rng.integers(len(profile.delineators)))]
    out: list[tuple[str, float, float]] = []
    for k in range(count):
        t = k / (count - 1)
        out.append((kind, edge - side * (0.2 + reach * min(1.0, 1.6 * t)), start + length * t**1.2))
    inner = edge - side * reach * 0.4
    if rng.random() < 0.7:
        out.append(("work_sign", edge + side * float(rng.uniform(0.3, 1.3)), start + float(rng.uniform(-1, 8))))
    if rng.random() < 0.45:
        out.append(("barricade", inner, start + length * float(rng.uniform(0.3, 0.6))))
    if rng.random() < 0.5:
        out.append(("excavation", inner, start + length * float(rng.uniform(0.35, 0.7))))
    if rng.random() < 0.5:
        machine = "excavator" if rng.random() < 0.65 else "roller"
        out.append((machine, inner + side * 0.6, start + length * float(rng.uniform(0.8, 1.1)) + 3))
    if rng.random() < 0.2:
        out.append(("arrow_board", inner, start + length * 0.55))
    workers = rng.uniform((-0.7, 0.3), (0.7, 1.0), (int(rng.integers(0, 3)), 2)).tolist()
    return [*out, *(("worker", inner + dx, start + length * t) for dx, t in workers)]


def _sample_distractors(
    rng: np.random.Generator,
    proj: Projection,
    place: Place,
    profile: Domain,
    hour: int,
    weather: Weather,
    z_offset: float,
    taken: tuple[SceneObject, ...],
) -> tuple[SceneObject, ...]:
    wanted = bool(rng.random() < DISTRACTOR_SHARE)
    if not wanted:
        return ()
    out: list[SceneObject] = []
    if hour in (6, 18, 19) and weather in ("clear", "overcast") and rng.random() < 0.45:
        out.append(SceneObject("sunset_sky", 0.0, 200.0, 0.0, 0.0, 0, (0.0, 0.0, float(proj.width), proj.horizon)))
    count = int(rng.choice((1, 2, 3), p=(0.5, 0.35, 0.15))) - len(out)
    kinds = list(orange.SIZES)
    for _ in range(40):
        if count <= 0:
            break
        kind = kinds[int(rng.integers(len(kinds)))]
        side = 1 if rng.random() < 0.5 else -1
        edge = place.edge(side)
        z, base, size = float(rng.uniform(7, 26)), 0.0, orange.SIZES[kind]
        variant = int(rng.integers(1 << 16))
        if kind in ("orange_car", "orange_bus", "orange_van"):
            x, variant, z = _lane(rng, place, profile, variant, z + 2)
        elif kind == "orange_awning":
            walls = [f for f in place.facades if f.shop and f.side == side and 3 < f.z0 - z_offset < 30]
            if not walls:
                continue
            wall = walls[int(rng.integers(len(walls)))]
            x, z, base = wall.x - side * 0.02, wall.z0 - z_offset + 0.5, 2.3
            size = (wall.z1 - wall.z0 - 1.0, 1.3)
        elif kind == "autumn_tree":
            trees = [t for t in place.trees if (t.x > 0) == (side > 0) and 10 < t.z - z_offset < 34][:2]
            if not trees:
                continue
            tree = trees[int(rng.integers(len(trees)))]
            x, z, size, variant = tree.x, tree.z - z_offset, (0.6 * tree.height, tree.height), tree.key
        elif kind == "orange_banner":
            x, base = edge + side * 0.5, 2.6
        else:
            x = edge + side * float(rng.uniform(0.6, 2.2))
            z = float(rng.uniform(5.5, 16)) if kind == "basketball" else z
        item = _place_object(proj, kind, x, z, size, variant, base)
        if item is None or any(_hides(item, other) for other in (*taken, *out)):
            continue
        out.append(item)
        count -= 1
    return tuple(out)


def _lane(rng: np.random.Generator, place: Place, profile: Domain, variant: int, z: float) -> tuple[float, int, float]:
    """Lateral position, variant (odd = oncoming) and depth of a vehicle in some lane or parking bay."""
    pick = rng.random()
    own_outer = place.edge(profile.kerb)
    bays = [s for s in (-1, 1) if place.parking[(s + 1) // 2]]
    if bays and pick < 0.45:
        side = bays[int(rng.integers(len(bays)))]
        return place.edge(side) - side * 1.15, variant * 2 + (side != profile.kerb), z
    if pick < 0.8:
        oncoming = 2 * place.centre
        if place.lane_lines and rng.random() < 0.5:
            oncoming -= (
                profile.kerb * LANE * (1 if abs(oncoming - profile.kerb * LANE - place.centre) < 2 * LANE else -1)
            )
        return oncoming + float(rng.uniform(-0.2, 0.2)), variant * 2 + 1, z
    x = 0.0
    if place.lane_lines and abs(own_outer) > 1.4 * LANE:
        x = profile.kerb * LANE
    return x + float(rng.uniform(-0.2, 0.2)), variant * 2, z + 8.0


def _sample_traffic(rng: np.random.Generator, proj: Projection, place: Place, profile: Domain,
                    taken: tuple[SceneObject, ...]) -> tuple[SceneObject, ...]:  # fmt: skip
    out: list[SceneObject] = []

    def add(kind: str, x: float, z: float, size: tuple[float, float], variant: int) -> None:
        item = _place_object(proj, kind, x, z, size, variant)
        if (
            item is not None
            and not any(_hides(item, other) for other in taken)
            and not any(_hides(item, other, 0.95) or _hides(other, item, 0.95) for other in out)
        ):
            out.append(item)

    for _ in range(int(rng.integers(1, 8))):
        kind = ("car", "car", "car", "van", "truck", "bus")[int(rng.choice(6, p=(0.3, 0.25, 0.2, 0.13, 0.07, 0.05)))]
        x, variant, z = _lane(rng, place, profile, int(rng.integers(1 << 12)), float(rng.uniform(7, 55)))
        add(kind, x, z, _VEHICLES[kind], variant)
    for _ in range(int(rng.integers(0, 4))):
        side = 1 if rng.random() < 0.5 else -1
        height = float(rng.uniform(1.6, 1.85))
        x = place.edge(side) + side * float(rng.uniform(0.7, 2.2))
        add("pedestrian", x, float(rng.uniform(7, 34)), (0.56, height), int(rng.integers(1 << 12)))
    if rng.random() < 0.45:
        side = profile.kerb
        add(
            "traffic_sign",
            place.edge(side) + side * 0.5,
            float(rng.uniform(9, 30)),
            (1.0, 2.8),
            int(rng.integers(1 << 12)),
        )
    return tuple(out)


def sample_scene(seed: int, *, label: int, domain: str, place: int, size: tuple[int, int] = (448, 252)) -> SceneSpec:
    """Sample a scene. The same seed with the other label gives the same scene without (or with) its roadwork.

    Raises:
        ValueError: label is neither 0 nor 1, the domain is unknown, or the size is below 64 x 48 pixels.
    """
    if label not in (0, 1):
        raise ValueError(f"label must be 0 or 1, got {label!r}")
    width, height = size
    if width < 64 or height < 48:
        raise ValueError(f"synthetic images need at least 64 x 48 pixels, got {width} x {height}")
    profile = domain_profile(domain)
    geometry = place_geometry(domain, place)
    rng = stream(seed, "conditions")
    hours = _HOURS[int(rng.choice(4, p=_HOUR_WEIGHTS))]
    hour, minute = int(hours[int(rng.integers(len(hours)))]), int(rng.integers(60))
    weather = WEATHERS[int(rng.choice(len(WEATHERS), p=_WEATHER_WEIGHTS))]
    view = View(
        float(rng.uniform(-0.35, 0.35)), float(rng.uniform(0, 5)), float(rng.uniform(-0.04, 0.04)),
        float(rng.uniform(-0.03, 0.03)),
    )  # fmt: skip
    camera = int(rng.integers(3))
    proj = projection(profile, geometry, view, width, height)
    evidence, site = _sample_roadwork(stream(seed, "roadwork"), proj, geometry, profile)
    stray = _sample_distractors(
        stream(seed, "distractors"), proj, geometry, profile, hour, weather, view.z_offset, site
    )
    traffic = _sample_traffic(stream(seed, "traffic"), proj, geometry, profile, (*site, *stray))
    spec = SceneSpec(
        seed, 1, domain, place, hour, minute, weather, camera, view, site, stray, traffic, evidence, width, height
    )
    return spec if label else replace(spec, label=0, objects=(), evidence="")
