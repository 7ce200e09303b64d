"""Fuzz target: the picture decoder. Bytes are a picture or an ImageError with a reason, and memory stays bounded.

``python tests/fuzz/image_decoder.py [FOLDER_OF_CASES] -max_total_time=60``
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["workzone"]):
    from workzone.errors import ImageError
    from workzone.vision import Preprocessing, decode, open_views

import numpy as np
from PIL import Image

MOST = 1_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")


def one_input(data: bytes) -> None:
    """Decode, and cut views out of what was decoded."""
    try:
        picture = decode(data, max_pixels=MOST)
    except ImageError as error:
        if not str(error):
            raise AssertionError("an error without words") from error
        return
    if picture.mode != "RGB" or picture.width * picture.height > MOST:
        raise AssertionError(f"{picture.mode}, {picture.size}")
    pixels, boxes = open_views(data, PREPROCESSING, max_pixels=MOST)
    if not np.isfinite(pixels).all() or len(pixels) != len(boxes):
        raise AssertionError("views that are no pictures")


def cases(folder: Path) -> None:
    """A small picture of every format that is read, in several modes."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    for kind in FORMATS:
        for mode in ("RGB", "L", "P", "RGBA", "CMYK", "I;16"):
            image = Image.fromarray(noise)
            made = Image.fromarray(noise[..., 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
            stream = io.BytesIO()
            try:
                made.save(stream, format=kind)
            except (OSError, ValueError, KeyError):
                continue  # not every format holds every mode
            (folder / f"{kind}-{mode.replace(';', '')}").write_bytes(stream.getvalue())


def _preprocessing() -> Preprocessing:
    from workzone.bundle import schema
    from workzone.bundle.starter import STARTER

    return schema.read_model(STARTER / schema.PREPROCESSING, Preprocessing)


PREPROCESSING = _preprocessing()

if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
