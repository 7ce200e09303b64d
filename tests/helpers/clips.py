"""Small videos for tests, each frame telling its own number by its brightness."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Picture = Callable[[int], NDArray[np.uint8]]
SIZE = (96, 64)


def grey_step(number: int) -> NDArray[np.uint8]:
    """Frame of one grey, 4 levels brighter than the last."""
    return np.full((SIZE[1], SIZE[0], 3), 20 + 4 * (number % 55), dtype=np.uint8)


def number_of(image: object) -> int:
    """The number that ``grey_step`` wrote into a frame."""
    return round((float(np.asarray(image).mean()) - 20) / 4)


def write_clip(
    path: Path,
    frames: int,
    *,
    rate: int = 10,
    picture: Picture = grey_step,
    gop: int = 10,
    codec: str = "libx264",
    rotation: int = 0,
    first: float = 0.0,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Write ``frames`` frames at ``rate`` a second, a key frame every ``gop``, the first at ``first`` seconds."""
    import av

    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(
            codec, rate=rate, options=options or ({"preset": "ultrafast"} if codec == "libx264" else {})
        )
        height, width = picture(0).shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size = gop
        stream.codec_context.time_base = Fraction(1, rate)
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = round(first * rate) + number
            frame.time_base = Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path
