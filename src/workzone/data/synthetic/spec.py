"""Typed description of one synthetic street scene: what stands where, when and in which weather."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

Weather = Literal["clear", "overcast", "rain", "fog", "snow"]
Evidence = Literal["strong", "weak", ""]
Box = tuple[float, float, float, float]

GENERATOR_VERSION = 1
WEATHERS: tuple[Weather, ...] = ("clear", "overcast", "rain", "fog", "snow")


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One thing in the scene.

    `x` is metres to the right of the centre of the own lane, `depth` metres ahead of the camera, `width` and
    `height` metres, `variant` selects colours and poses, `box` is (x0, y0, x1, y1) in pixels of the final image,
    clipped to it. `base` is the height of the lower edge above the ground in metres.
    """

    kind: str
    x: float
    depth: float
    width: float
    height: float
    variant: int
    box: Box
    base: float = 0.0


@dataclass(frozen=True, slots=True)
class View:
    """Camera pose of one picture: offsets against the place in metres, yaw and pitch as shares of the image size."""

    x_offset: float
    z_offset: float
    yaw: float
    pitch: float


@dataclass(frozen=True, slots=True)
class SceneSpec:
    """Everything `render_scene` needs; equal specs give equal pixels under one version of NumPy and Pillow.

    `objects` are roadwork (empty for label 0), `distractors` are orange things that are none, `traffic` is the rest
    that moves. `evidence` is "" for label 0.
    """

    seed: int
    label: int
    domain: str
    place: int
    hour: int
    minute: int
    weather: Weather
    camera: int
    view: View
    objects: tuple[SceneObject, ...]
    distractors: tuple[SceneObject, ...]
    traffic: tuple[SceneObject, ...]
    evidence: Evidence
    width: int
    height: int

    @property
    def hard_negative(self) -> bool:
        """True for a scene without roadwork that shows an orange distractor."""
        return self.label == 0 and bool(self.distractors)

    def digest(self) -> str:
        """Content hash (hex) of the spec and the generator version."""
        text = json.dumps([GENERATOR_VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def stream(seed: int, name: str, *keys: int) -> np.random.Generator:
    """Random generator of one named purpose; streams of different names are independent for the same seed."""
    return np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF, zlib.crc32(name.encode()), *keys])
