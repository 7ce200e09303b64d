"""What is done to pictures to see how far a detector reaches: graded corruptions, and StreetVision's validator."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from workzone.vision import streetvision
from workzone.vision.corruptions import CORRUPTIONS, LEVELS, Picture, corrupt

CLEAN = "none"
STREETVISION = "streetvision"
PROTOCOLS = ("2.0.4", "letterbox")
"""Versions of the validator that are measured; 0.4.1 sends what ``letterbox`` sends at level 0."""


@dataclass(frozen=True, slots=True)
class Change:
    """One way to change a picture, in levels.

    Attributes:
        name: such as ``fog``, or ``streetvision 2.0.4``.
        kind: ``corruption`` or ``streetvision``.
        levels: that are measured, rising.
        apply: makes a new picture of a picture, a level and a seed.
    """

    name: str
    kind: str
    levels: tuple[int, ...]
    apply: Callable[[Picture, int, int], Picture]


def corruption_changes(
    names: Sequence[str] = tuple(CORRUPTIONS), levels: Sequence[int] = LEVELS
) -> tuple[Change, ...]:
    """Corruptions by name at some of the levels 1 to 5."""
    return tuple(_corruption(name, tuple(sorted(set(levels)))) for name in names)


def streetvision_changes(protocols: Sequence[str] = PROTOCOLS) -> tuple[Change, ...]:
    """What the validator sends at levels 0 (base view) to 3, by protocol version; JPEG of the wire included."""
    return tuple(_streetvision(name) for name in protocols)


def _corruption(name: str, levels: tuple[int, ...]) -> Change:
    def apply(picture: Picture, level: int, seed: int) -> Picture:
        return corrupt(picture, name, level, seed)

    return Change(name, "corruption", levels, apply)


def _streetvision(name: str) -> Change:
    protocol = streetvision.PROTOCOLS[name]

    def apply(picture: Picture, level: int, seed: int) -> Picture:
        image = Image.fromarray(picture)
        recipe = streetvision.draw(image.size, level, np.random.default_rng([seed, level]), protocol)
        sent = streetvision.wire(streetvision.transform(image, recipe, protocol))
        return np.asarray(Image.open(io.BytesIO(sent)).convert("RGB"), dtype=np.uint8)

    return Change(f"{STREETVISION} {name}", STREETVISION, streetvision.LEVELS, apply)
