"""Contact sheet: pairs of pictures side by side with a caption, as one PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from workzone.files import write_atomic
from workzone.vision.decode import decode

_TILE = (240, 160)
_LINE = 14
_COLUMNS = 2
_MARGIN = 6


def draw_pairs(pairs: Sequence[tuple[Path, Path, str]], target: Path, *, limit: int = 24) -> Path:
    """Draw the first ``limit`` pairs ``(file, file, caption)``; raises ImageError when one cannot be decoded."""
    shown = pairs[:limit]
    width, height = 2 * _TILE[0] + 4 + 3 * _MARGIN, _TILE[1] + 2 * _LINE + 2 * _MARGIN
    columns = min(_COLUMNS, max(1, len(shown)))
    sheet = Image.new("RGB", (columns * width, max(1, -(-len(shown) // columns)) * height), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for k, (first, second, caption) in enumerate(shown):
        left, top = (k % columns) * width + _MARGIN, (k // columns) * height + _MARGIN
        for n, path in enumerate((first, second)):
            tile = ImageOps.contain(decode(path, min_side=min(_TILE)), _TILE)
            sheet.paste(tile, (left + n * (_TILE[0] + 4), top))
            name = path.name.encode("ascii", "replace").decode()
            pen.text((left + n * (_TILE[0] + 4), top + _TILE[1] + 1), name[:38], fill=(60, 60, 60))
        words = caption.encode("ascii", "replace").decode()
        while len(words) > 1 and pen.textlength(words) > 2 * _TILE[0] + 4:
            words = words[:-4].rstrip() + "..."
        pen.text((left, top + _TILE[1] + _LINE), words, fill=(0, 0, 0))
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    write_atomic(target, stream.getvalue())
    return target
