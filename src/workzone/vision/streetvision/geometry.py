"""Geometry of the validator's pictures: base views, rotation, random resized crop.

Written in numpy and Pillow after what torchvision does with the arguments that the validator gives it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
SIDE = 224
SCALE = (0.2, 1.0)
PULL_MARGIN = 10
_ATTEMPTS = 10


def centre_square(image: Image.Image) -> Image.Image:
    """Largest square around the centre, resized to 224 (bilinear, antialias)."""
    side = min(image.size)
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    square = image.crop((left, top, left + side, top + side))
    return square.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def letterbox(image: Image.Image) -> Image.Image:
    """The whole picture in a black square of 224: scaled to fit, sides truncated to integers, centred.

    The truncation costs a row where the product of scale and side falls just short of an integer: 1280 x 720 leaves 99
    black rows, 1920 x 1080 leaves 98.
    """
    scale = min(SIDE / image.width, SIDE / image.height)
    width, height = max(1, int(image.width * scale)), max(1, int(image.height * scale))
    square = Image.new("RGB", (SIDE, SIDE))
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    square.paste(small, ((SIDE - width) // 2, (SIDE - height) // 2))
    return square


def crop_window(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Top, left and side of a square with 0.2 to 1.0 of the area; the central square where ten draws do not fit."""
    for _ in range(_ATTEMPTS):
        side = round(math.sqrt(width * height * rng.uniform(*SCALE)))
        if 0 < side <= min(width, height):
            return int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1)), side
    side = min(width, height)
    return (height - side) // 2, (width - side) // 2, side


def pull_window(
    window: tuple[int, int, int], width: int, height: int, towards: tuple[int, int]
) -> tuple[int, int, int]:
    """``window`` (top, left, side) moved until it holds the point ``towards`` (x, y), as the validator does.

    On the side of the point 10 pixels are left. The validator takes width for height in its limits, so on pictures that
    are not square the window may end up to 10 pixels outside, where it is black.
    """
    top, left, side = window
    x, y = towards
    if x < left:
        left = max(0, x - PULL_MARGIN)
    elif x > left + side:
        left = min(height - side, x - side + PULL_MARGIN)
    if y < top:
        top = max(0, y - PULL_MARGIN)
    elif y > top + side:
        top = min(width - side, y - side + PULL_MARGIN)
    return top, left, side


def rotate(
    pixels: NDArray[np.uint8], angle: float, window: tuple[int, int, int, int] | None = None
) -> NDArray[np.uint8]:
    """Picture (H, W, 3) turned by ``angle`` degrees against the clock about its centre: nearest pixel, black corners.

    Args:
        pixels: the picture.
        angle: in degrees.
        window: top, left, height and width of the part of the result that is wanted, black where it reaches beyond;
            None for all of it.
    """
    height, width = pixels.shape[:2]
    top, left, rows, columns = window or (0, 0, height, width)
    # In single precision and in torchvision's order of operations, as ties between pixels are decided by rounding.
    x = (np.arange(left, left + columns, dtype=np.float32) - np.float32(width * 0.5 - 0.5))[None, :]
    y = (np.arange(top, top + rows, dtype=np.float32) - np.float32(height * 0.5 - 0.5))[:, None]
    turn = math.radians(angle)
    cosine, sine = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    half_width, half_height = np.float32(0.5 * width), np.float32(0.5 * height)
    across = x * (cosine / half_width) + y * (-sine / half_width)
    down = x * (sine / half_height) + y * (cosine / half_height)
    column = np.rint(((across + 1) * np.float32(width) - 1) / 2).astype(np.int64)
    row = np.rint(((down + 1) * np.float32(height) - 1) / 2).astype(np.int64)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    # The result is as large as the picture: a window that reaches beyond it is black there, whatever turns into it.
    inside &= (np.arange(left, left + columns) >= 0) & (np.arange(left, left + columns) < width)
    inside &= ((np.arange(top, top + rows) >= 0) & (np.arange(top, top + rows) < height))[:, None]
    found = pixels[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return np.asarray(np.where(inside[..., None], found, np.uint8(0)))


def resize_unit(pixels: NDArray[np.uint8]) -> Floats:
    """Picture (H, W, 3) as values in [0, 1], resized to 224 in floats (bilinear, antialias): (224, 224, 3)."""
    unit = pixels.astype(np.float32) / np.float32(255)
    planes = [Image.fromarray(np.ascontiguousarray(unit[..., c])) for c in range(3)]
    return np.stack([np.asarray(p.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for p in planes], axis=-1)
