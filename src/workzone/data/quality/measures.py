"""Simple measures of each picture: light, contrast, detail, sharpness, orange; and the rules that call it unusable."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workzone.data.perceptual import grey_square
from workzone.data.quality.orange import OrangeParts, orange_parts
from workzone.errors import ImageError
from workzone.vision.batch import all_in_order
from workzone.vision.decode import MAX_PIXELS, decode

LONG_SIDE = 320
DARK = 0.10
BLANK_CONTRAST = 0.02
BLANK_BITS = 1.5
BLURRED = 0.004
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Measures:
    """Measures of one picture reduced to a long side of 320 pixels.

    Attributes:
        light: mean grey, 0 to 1.
        contrast: standard deviation of grey, 0 to 0.5.
        bits: entropy of the histogram of 64 greys, 0 to 6.
        sharpness: variance of the Laplacian over the variance of grey. Both shrink alike with contrast, and the
        picture has
            a fixed size, so one limit serves all.
        orange: orange parts.
        square: (32, 32) grey values, for comparing pictures.
    """

    light: float
    contrast: float
    bits: float
    sharpness: float
    orange: OrangeParts
    square: NDArray[np.float32]

    def faults(self) -> dict[str, str]:
        """Name of each fault, and its figure in words."""
        found = {}
        if self.contrast < BLANK_CONTRAST or self.bits < BLANK_BITS:
            found["blank"] = f"contrast {self.contrast:.3f}, {self.bits:.1f} bits"
        elif self.sharpness < BLURRED:
            found["blurred"] = f"sharpness {self.sharpness:.4f}"
        if self.light < DARK:
            found["dark"] = f"mean light {self.light:.2f}"
        return found


def measure(image: Image.Image) -> Measures:
    """Measures of one decoded picture."""
    small = image.convert("RGB")
    small.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.BOX)
    grey = np.asarray(small.convert("L"), dtype=np.float32) / 255.0
    counts = np.bincount((grey.ravel() * 63.999).astype(np.int64), minlength=64) / grey.size
    bits = -float((counts[counts > 0] * np.log2(counts[counts > 0])).sum())
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    sharpness = float(laplacian.var() / (grey.var() + _EPSILON)) if laplacian.size else 0.0
    return Measures(
        float(grey.mean()), float(grey.std()), bits + 0.0, sharpness, orange_parts(image), grey_square(image)
    )


def measure_files(
    paths: Sequence[Path],
    *,
    workers: int = 2,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measures | ImageError]:
    """Measures of each file, or why it cannot be read."""

    def look(path: Path) -> Measures | ImageError:
        try:
            return measure(decode(path, min_side=LONG_SIDE, max_pixels=max_pixels))
        except ImageError as error:
            return error

    return all_in_order(paths, look, workers=workers, progress=progress)


def thumbnail(path: Path, *, side: int = 220, max_pixels: int = MAX_PIXELS) -> str:
    """Small JPEG of a file as a data URI; empty where it cannot be read."""
    try:
        image = decode(path, min_side=side, max_pixels=max_pixels)
    except ImageError:
        return ""
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
