"""What the validator of StreetVision (Bittensor subnet 72) does to pictures: numpy and Pillow, no OpenCV or torch."""

from __future__ import annotations

from workzone.vision.streetvision.transforms import (
    LEVELS,
    PROTOCOLS,
    Protocol,
    Recipe,
    augment,
    draw,
    transform,
    wire,
)

__all__ = ["LEVELS", "PROTOCOLS", "Protocol", "Recipe", "augment", "draw", "transform", "wire"]
