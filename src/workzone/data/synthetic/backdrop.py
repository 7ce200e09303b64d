"""Sky and ground: the two pictures everything else is painted on."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from .camera import Projection
from .canvas import SUPERSAMPLING
from .domains import Colour, Domain
from .lighting import Light, mix
from .place import Place
from .spec import stream

Field = NDArray[np.float32]
_BINS = 0.04
_LEVELS = 6
ROAD, LINE, CENTRE, KERB, PAVEMENT, VERGE, RUT = range(7)


@lru_cache(maxsize=32)
def _smooth_noise(key: int, width: int, height: int) -> Field:
    """Cloud-like noise in about -1..1, shape (height, width)."""
    rng = np.random.default_rng(key)
    total = np.zeros((height, width), np.float32)
    for octave, weight in ((1, 1.0), (2, 0.55), (4, 0.3)):
        grid = rng.standard_normal((4 * octave, max(6, 6 * width // max(height, 1) // 2) * octave)).astype(np.float32)
        total += weight * np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
    return total / np.float32(1.6)


def paint_sky(projection: Projection, light: Light, place: Place, seed: int) -> Image.Image:
    """Sky over the whole image at canvas size: gradient, clouds, sun or moon, stars."""
    width, height = projection.width // 2, int(projection.horizon / 2) + 2
    horizon = projection.horizon / 2
    up = np.clip((horizon - np.arange(height, dtype=np.float32)) / max(horizon, 1.0), 0, 1)[:, None, None]
    low, high = np.asarray(light.horizon, np.float32), np.asarray(light.zenith, np.float32)
    sky = low + (high - low) * up**0.75 + np.zeros((1, width, 1), np.float32)
    rng = stream(seed, "sky")
    cover = {"clear": rng.uniform(-0.9, 0.1), "overcast": 0.9, "rain": 1.0, "fog": 0.0, "snow": 0.7}[light.weather]
    noise = _smooth_noise(int(rng.integers(24)), 3 * width, height)
    shift = int(rng.integers(2 * width))
    cloud = np.clip((noise[:, shift : shift + width] + np.float32(cover) * 0.8) * 0.9, 0, 1)[..., None] * (
        0.35 + 0.65 * up
    )
    bright = np.asarray(mix(light.horizon, (250, 250, 250), 0.55 * (1 - light.darkness)), np.float32)
    if light.weather in ("overcast", "rain", "snow"):
        bright *= np.float32(0.8)
    sky += (bright - sky) * (cloud * np.float32(0.75 if light.weather == "clear" else 0.5))
    if light.weather in ("clear", "overcast"):
        yaw = math.sin(math.radians(place.heading + light.time * 15))
        x = width * (0.5 + 0.7 * yaw)
        moon = light.darkness > 0.9
        y = horizon * (1 - (0.75 if moon else max(0.04, min(0.95, 1.3 * light.sun))))
        visible = 1.0 if light.weather == "clear" else 0.25
        yy, xx = np.ogrid[0:height, 0:width]
        distance = np.sqrt((xx - x) ** 2 + (yy - y) ** 2).astype(np.float32)[..., None] / np.float32(width)
        if moon:
            halo = 0.12 * np.exp(-distance / 0.06) + 0.85 * np.clip((0.015 - distance) / 0.005, 0, 1)
            sky += (np.asarray((232, 234, 224), np.float32) - sky) * (halo * visible)
        elif light.sun > -0.05:
            halo = np.clip(0.5 * np.exp(-distance / 0.09) + 1.2 * np.exp(-((distance / 0.022) ** 4)), 0, 1)
            tone = np.asarray(mix((255, 214, 150), (255, 252, 240), min(1.0, max(0.0, 2 * light.sun))), np.float32)
            sky += (tone - sky) * (halo * np.float32(visible))
        if moon and light.weather == "clear":
            stars = rng.integers(0, [[int(horizon * 0.9) + 1], [width]], (2, 26))
            sky[stars[0], stars[1]] += rng.uniform(20, 80, (26, 1)).astype(np.float32)
    image = Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8))
    canvas = Image.new("RGB", (projection.width * SUPERSAMPLING, projection.height * SUPERSAMPLING))
    canvas.paste(image.resize((canvas.width, height * 2 * SUPERSAMPLING), Image.Resampling.BILINEAR))
    return canvas


@lru_cache(maxsize=64)
def _materials(place: Place, far: float) -> NDArray[np.int32]:
    """Material code by lateral bin from -far to far metres; rows: between dashes, on a dash, on the crosswalk."""
    x = np.arange(-far, far, _BINS)
    out = np.full(x.shape, VERGE, np.uint8)
    out[(x > place.left - place.pavement[0]) & (x < place.right + place.pavement[1])] = PAVEMENT
    out[(x > place.left - 0.22) & (x < place.right + 0.22)] = KERB
    out[(x > place.left) & (x < place.right)] = ROAD
    for offset in (-0.85, 0.85):
        for lane in (0.0, 2 * place.centre):
            out[(np.abs(x - lane - offset) < 0.28) & (out == ROAD)] = RUT
    zebra = out.copy()
    zebra[((x % 1.0) < 0.5) & np.isin(out, (ROAD, RUT))] = LINE
    out[np.abs(np.abs(x - place.centre) - 0.14) < 0.07] = CENTRE
    for side in (-1, 1):
        out[np.abs(x - (place.edge(side) - side * 0.35)) < 0.06] = LINE
    dashed = out.copy()
    for line in place.lane_lines:
        dashed[np.abs(x - line) < 0.08] = LINE
    return np.stack([out, dashed, zebra]).astype(np.int32) * _LEVELS


def paint_ground(projection: Projection, light: Light, place: Place, profile: Domain, z_offset: float,
                 lamps: list[tuple[float, float]]) -> tuple[Image.Image, int]:  # fmt: skip
    """Road, kerbs, pavement and verge below the horizon at canvas scale; returns the picture and its top row."""
    scale = SUPERSAMPLING
    width, height = projection.width * scale, projection.height * scale
    top = math.ceil(projection.horizon * scale) + 1
    rows = np.arange(top, height, dtype=np.float32)
    z = np.float32(projection.focal * projection.eye * scale) / (rows - np.float32(projection.horizon * scale) + 0.35)
    far = 40.0
    step = (z / np.float32(projection.focal * scale)) / np.float32(_BINS)
    start = (np.float32(projection.x_offset + far) - np.float32(projection.curve) * z * z) / np.float32(_BINS)
    columns = np.arange(width, dtype=np.float32) - np.float32(projection.centre_x * scale)
    plans = _materials(place, far)
    bins = plans.shape[1]
    index = columns[None, :] * step[:, None]
    index += start[:, None]
    index = np.clip(index, 0, bins - 1, out=index).astype(np.int32)
    world = z + np.float32(z_offset)
    plan = ((world % 9.0) < 3.6).astype(np.int32)
    if place.crosswalk > 0:
        plan[np.abs(world - place.crosswalk) < 1.6] = 2
    noise = _ground_noise(place.key % 16, bins)
    code = plans.ravel().take(index + (plan * bins)[:, None])
    code += noise.ravel().take(index + (((world * 3).astype(np.int32) & 127) * bins)[:, None])
    snow, wet = light.weather == "snow", light.weather == "rain"
    base = profile.asphalt * (0.66 if wet else 1.0)
    tones: list[Colour] = [
        (base, base, base * 1.02), (224, 224, 220), profile.centre_line, (168, 166, 160), (146, 142, 136), place.grass,
        (base * 0.9, base * 0.9, base * 0.92),
    ]  # fmt: skip
    if place.kind == "downtown":
        tones[VERGE] = tones[PAVEMENT]
    if snow:
        white: Colour = (234, 238, 244)
        cover = (0.62, 0.55, 0.55, 0.9, 0.93, 0.97, 0.15)
        tones = [mix(tone, white, share) for tone, share in zip(tones, cover, strict=True)]
    table = np.zeros((rows.size, len(tones), _LEVELS, 3), np.float32)
    lit = np.asarray(light.ambient, np.float32)
    if light.lamps_on:
        lit = np.maximum(lit, np.float32(0.75))
    veil = (1.0 - np.exp(-z * np.float32(light.haze)))[:, None]
    fog = np.asarray(light.horizon, np.float32)
    for m, tone in enumerate(tones):
        spread = 0.2 if m in (VERGE,) else 0.1
        for k in range(_LEVELS):
            colour = np.asarray(tone, np.float32) * lit * np.float32(1 + spread * (k / (_LEVELS - 1) - 0.5))
            table[:, m, k] = colour * (1 - veil) + fog * veil
    flat = np.full((rows.size * len(tones) * _LEVELS, 4), 255, np.uint8)
    flat[:, :3] = np.clip(table, 0, 255).reshape(-1, 3)
    code += (np.arange(rows.size, dtype=np.int32) * (len(tones) * _LEVELS))[:, None]
    # One gather of packed pixels costs a third of three gathers of channels.
    packed = flat.view(np.uint32).ravel().take(code)
    image = Image.fromarray(packed.view(np.uint8).reshape(rows.size, width, 4)).convert("RGB")
    if light.lamps_on:
        image = ImageChops.multiply(image, _light_pools(projection, light, lamps, top, width, height))
    return image, top


@lru_cache(maxsize=16)
def _ground_noise(key: int, bins: int) -> NDArray[np.int32]:
    """Grain level of the ground, shape (128, bins): along the road by lateral bin."""
    noise = _smooth_noise(1000 + key, 128, 128) + 0.5 * np.random.default_rng(key).standard_normal((128, 128))
    levels = np.clip((noise + 1.3) / 2.6 * _LEVELS, 0, _LEVELS - 1).astype(np.int32)
    return levels[:, (np.arange(bins) >> 3) & 127]


def _light_pools(projection: Projection, light: Light, lamps: list[tuple[float, float]], top: int, width: int,
                 height: int) -> Image.Image:  # fmt: skip
    """How much of full light each part of the ground gets after dark, as an RGB factor image."""
    step = 8
    rows = (np.arange(top, height, step, dtype=np.float32) + step / 2) / SUPERSAMPLING
    z = np.minimum(np.float32(projection.focal * projection.eye) / np.maximum(rows - projection.horizon, 0.3), 150.0)[
        :, None
    ]
    columns = (np.arange(0, width, step, dtype=np.float32) + step / 2) / SUPERSAMPLING
    x = (columns - projection.centre_x)[None, :] * z / np.float32(projection.focal) - projection.curve * z * z
    beam = 0.75 * np.exp(-z / 24) * np.exp(-((x / (1.7 + 0.28 * z)) ** 2)) * (1 - np.exp(-((z / 3.5) ** 2)) * 0.4)
    pool = np.zeros_like(x)
    for lx, lz in lamps:
        pool += 0.7 * np.exp(-(((x - lx + projection.x_offset) / 5.0) ** 2) - ((z - lz) / 6.0) ** 2)
    base = np.asarray(light.ambient, np.float32) / np.float32(0.75) + np.float32(0.1 * light.darkness)
    night = np.float32(light.darkness)
    warm, white = np.asarray((1.0, 0.78, 0.5), np.float32), np.asarray((0.95, 0.95, 0.9), np.float32)
    gain = base + night * (beam[..., None] * white + pool[..., None] * warm)
    image = Image.fromarray((np.clip(gain, 0, 1) * 255).astype(np.uint8))
    return image.resize((width, height - top), Image.Resampling.BILINEAR)
