"""Light of the hour and the weather: ambient colour, sky colours, haze, head lamps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .domains import Colour
from .spec import Weather

_KEYS = (0.0, 5.0, 6.2, 7.2, 9.0, 16.5, 18.3, 19.4, 20.4, 24.0)
_ZENITH = ((9, 12, 26), (12, 16, 36), (66, 86, 138), (98, 142, 204), (84, 142, 214), (86, 140, 208), (88, 116, 172),
           (58, 64, 108), (12, 15, 32), (9, 12, 26))  # fmt: skip
_HORIZON = ((36, 36, 46), (42, 44, 60), (216, 168, 160), (226, 206, 188), (196, 218, 234), (200, 216, 228),
            (226, 196, 172), (176, 118, 116), (44, 42, 54), (36, 36, 46))  # fmt: skip
_AMBIENT = (
    (0.2, 0.2, 0.26),
    (0.21, 0.22, 0.28),
    (0.5, 0.47, 0.5),
    (0.84, 0.78, 0.72),
    (1.0, 0.99, 0.96),
    (1.0, 0.98, 0.94),
    (0.86, 0.76, 0.66),
    (0.46, 0.41, 0.44),
    (0.21, 0.21, 0.27),
    (0.2, 0.2, 0.26),
)
_HAZE = {"clear": 0.0016, "overcast": 0.0026, "rain": 0.007, "fog": 0.03, "snow": 0.012}


def _at(time: float, table: tuple[Colour, ...]) -> Colour:
    columns = [float(np.interp(time, _KEYS, [row[k] for row in table])) for k in range(3)]
    return (columns[0], columns[1], columns[2])


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Colour between `a` (share 0) and `b` (share 1)."""
    keep = 1.0 - share
    return (a[0] * keep + b[0] * share, a[1] * keep + b[1] * share, a[2] * keep + b[2] * share)


def scaled(colour: Colour, factor: float) -> Colour:
    """Colour made darker (factor below 1) or lighter."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


@dataclass(frozen=True, slots=True)
class Light:
    """Light of one scene. `darkness` runs from 0 (day) to 1 (night); `haze` is extinction per metre."""

    time: float
    weather: Weather
    darkness: float
    ambient: Colour
    zenith: Colour
    horizon: Colour
    haze: float
    sun: float

    @property
    def lamps_on(self) -> bool:
        """Whether street lamps and head lamps burn."""
        return self.darkness > 0.35

    def veil(self, z: float) -> float:
        """Share of haze in front of something `z` metres away."""
        return 1.0 - math.exp(-z * self.haze)

    def head_lamp(self, x: float, z: float) -> float:
        """Extra light of the own head lamps at (x, z) metres."""
        if self.darkness < 0.2:
            return 0.0
        spread = 1.6 + 0.3 * z
        return self.darkness * 0.75 * math.exp(-z / 22.0) * math.exp(-((x / spread) ** 2)) + 0.1 * self.darkness

    def shade(self, colour: Colour, x: float, z: float, emit: float = 0.0, retro: float = 0.0) -> tuple[int, int, int]:
        """Colour as seen by the camera; `emit` is own light (0..1), `retro` the share returned from head lamps."""
        lamp = self.head_lamp(x, z)
        extra = lamp + retro * self.darkness * 0.8 * math.exp(-z / 60.0)
        veil = self.veil(z) * (1.0 - 0.6 * emit)
        out = []
        for value, light, fog in zip(colour, self.ambient, self.horizon, strict=True):
            level = max(min(light + extra, 1.1), emit)
            out.append(int(min(255.0, max(0.0, value * level * (1.0 - veil) + fog * veil))))
        return (out[0], out[1], out[2])


def light_of(hour: int, minute: int, weather: Weather, *, glow: bool = False) -> Light:
    """Light at a time of day; `glow` asks for a vivid orange sunset or sunrise."""
    time = hour + minute / 60.0
    zenith, horizon, ambient = _at(time, _ZENITH), _at(time, _HORIZON), _at(time, _AMBIENT)
    darkness = float(np.interp(ambient[1], (0.21, 0.8), (1.0, 0.0)))
    if glow:
        zenith, horizon = mix(zenith, (150, 86, 92), 0.55), mix(horizon, (255, 132, 30), 0.85)
        ambient = mix(ambient, (0.8, 0.52, 0.4), 0.5)
    grey = {"clear": 0.0, "overcast": 0.85, "rain": 0.92, "fog": 0.97, "snow": 0.93}[weather]
    if glow:
        grey *= 0.35
    if grey:
        lum = 0.35 * sum(zenith) / 3 + 0.65 * sum(horizon) / 3
        dim = {"overcast": 0.95, "rain": 0.84, "fog": 0.98, "snow": 1.02}[weather]
        zenith = mix(zenith, (lum * dim * 0.97, lum * dim, lum * dim * 1.03), grey)
        horizon = mix(horizon, (lum * dim * 1.05, lum * dim * 1.06, lum * dim * 1.07), grey)
        level = sum(ambient) / 3 * {"overcast": 0.9, "rain": 0.82, "fog": 0.88, "snow": 0.92}[weather]
        ambient = mix(ambient, (level * 0.98, level, level * 1.03), grey)
    if weather == "fog":
        # Fog carries the light of the city.
        horizon, zenith = mix(horizon, (116, 112, 108), 0.6 * darkness), mix(zenith, (90, 90, 92), 0.5 * darkness)
    elevation = math.sin(math.pi * (time - 6.0) / 13.4) if 6.0 <= time <= 19.4 else -0.1
    return Light(time, weather, darkness, ambient, zenith, horizon, _HAZE[weather], elevation)
