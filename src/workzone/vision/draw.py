"""Show on a picture which views mattered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_FOR = (255, 120, 0)
_AGAINST = (0, 110, 255)
_STRONGEST_FILL = 90


def draw_views(
    image: Image.Image, boxes: NDArray[np.float32], weights: Sequence[float] | NDArray[np.floating]
) -> Image.Image:
    """Draw view boxes over a copy of ``image``, the largest weight strongest and on top.

    Args:
        image: any Pillow picture.
        boxes: (V, 4) fractions x0, y0, x1, y1 as ``make_views`` returns them.
        weights: (V,) finite; positive in orange, negative in blue, relative to the largest magnitude. Zero is not
            drawn. Views that share a box (mirrors) are added up.

    Raises:
        ValueError: shapes differ or a weight is not finite.
    """
    values = np.asarray(weights, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or values.shape != (len(boxes),):
        raise ValueError(f"boxes must be (V, 4) and weights (V,), not {boxes.shape} and {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("weights must be finite")
    total: dict[tuple[float, ...], float] = {}
    for box, value in zip(boxes.tolist(), values.tolist(), strict=True):
        total[tuple(box)] = total.get(tuple(box), 0.0) + value
    strongest = max((abs(value) for value in total.values()), default=0.0)
    canvas = image.convert("RGB")
    thick = max(2, min(canvas.size) // 120)
    for box, value in sorted(total.items(), key=lambda item: abs(item[1])):
        if value == 0:
            continue
        share, colour = abs(value) / strongest, _FOR if value > 0 else _AGAINST
        left, top, right, bottom = (
            round(part * (side - 1)) for part, side in zip(box, (*canvas.size, *canvas.size), strict=True)
        )
        layer = Image.new("RGBA", canvas.size, (*colour, 0))
        pen = ImageDraw.Draw(layer)
        pen.rectangle(
            (left, top, right, bottom),
            fill=(*colour, round(_STRONGEST_FILL * share**2)),
            outline=(*colour, round(60 + 195 * share)),
            width=thick,
        )
        pen.text((left + 2 * thick, top + 2 * thick), f"{value:.2f}", fill=(255, 255, 255, round(80 + 175 * share)))
        canvas.paste(layer, mask=layer.getchannel("A"))
    return canvas
