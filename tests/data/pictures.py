from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A random picture with the spectrum of a photograph: bright above, dark below, shapes of all sizes."""
    rng = np.random.default_rng(seed)
    width, height = size
    total = np.zeros((height, width, 3), dtype=np.float64)
    for cells in (3, 6, 12, 24, 48):
        noise = rng.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
        total += (
            np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC), dtype=np.float64) / cells**0.7
        )
    total += np.linspace(60, 0, height)[:, None, None]
    total -= total.min()
    return Image.fromarray((total / total.max() * 255).astype(np.uint8))


def save_picture(path: Path, seed: int, size: tuple[int, int] = (320, 240), **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, size).save(path, **options)  # type: ignore[arg-type]
    return path
