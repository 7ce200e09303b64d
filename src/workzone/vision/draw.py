"""Show on a picture which views and which places mattered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Box = tuple[float, float, float, float]

_FOR = (255, 120, 0)
_AGAINST = (0, 110, 255)
_STRONGEST_FILL = 90
_GREYED = 0.6
_FAINT = 0.1


def _ramp(*anchors: tuple[int, int, int]) -> NDArray[np.uint8]:
    """256 colours through evenly spaced anchors."""
    at = np.linspace(0, len(anchors) - 1, 256)
    return np.stack([np.interp(at, range(len(anchors)), c) for c in zip(*anchors, strict=True)], -1).astype(np.uint8)


_WARM = _ramp((190, 60, 0), (255, 120, 0), (255, 190, 40), (255, 245, 150))
_COLD = _ramp((0, 60, 160), (0, 110, 255), (80, 180, 255), (190, 240, 255))


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


def heat_colours(values: NDArray[np.floating], strongest: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Colours (..., 3) and opacities (...) of values between -strongest and strongest.

    Positive goes from orange to pale yellow, negative from blue to pale cyan: told apart with any kind of colour
    blindness, and lighter means stronger in both.
    """
    shares = np.clip(np.abs(np.asarray(values, dtype=np.float64)) / strongest if strongest > 0 else values * 0.0, 0, 1)
    index = np.round(shares * (len(_WARM) - 1)).astype(np.int64)
    colours = np.where((np.asarray(values) >= 0)[..., None], _WARM[index], _COLD[index])
    # Nothing is drawn over what hardly counts.
    return colours, np.where(shares < _FAINT, 0.0, 0.1 + 0.75 * shares)


def overlay(image: Image.Image, heat: NDArray[np.floating], *, strongest: float | None = None) -> Image.Image:
    """Lay a map of cells over a greyed copy of ``image``, so that all colour in it is heat.

    Args:
        image: any Pillow picture.
        heat: (rows, cols) finite; the cells divide the picture evenly. Positive is orange, negative blue.
        strongest: value that gets the strongest colour; the largest magnitude in ``heat`` by default.

    Raises:
        ValueError: ``heat`` is not two-dimensional or not finite.
    """
    if heat.ndim != 2 or not heat.size or not np.isfinite(heat).all():
        raise ValueError("heat must be (rows, cols) and finite")
    grey = np.asarray(image.convert("L"), dtype=np.float64)[..., None] * _GREYED
    top = float(np.abs(heat).max()) if strongest is None else strongest
    colours, opacity = heat_colours(heat, top)
    height, width = grey.shape[:2]
    # Cells stay squares: a smooth map would show a precision that was not measured.
    rows = np.minimum(np.arange(height) * heat.shape[0] // height, heat.shape[0] - 1)
    cols = np.minimum(np.arange(width) * heat.shape[1] // width, heat.shape[1] - 1)
    share = opacity[rows][:, cols][..., None]
    mixed = grey * (1 - share) + colours[rows][:, cols] * share
    return Image.fromarray(np.broadcast_to(mixed, (height, width, 3)).round().astype(np.uint8))


def colour_bar(width: int, strongest: float, ends: tuple[str, str], *, text: int = 13) -> Image.Image:
    """The colours of ``overlay`` from -strongest to strongest over the same grey, with what both ends mean below."""
    colours, opacity = heat_colours(np.linspace(-1, 1, width), 1.0)
    row = 128 * _GREYED * (1 - opacity[:, None]) + colours * opacity[:, None]
    sheet = Image.new("RGB", (width, round(2.7 * text)), (255, 255, 255))
    sheet.paste(Image.fromarray(np.repeat(row.round().astype(np.uint8)[None], text, axis=0)))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(text)
    words = (f"{-strongest:.2f} {ends[0]}", "0", f"{strongest:+.2f} {ends[1]}")
    for word, at, anchor in zip(words, (0, width // 2, width), ("la", "ma", "ra"), strict=True):
        pen.text((at, text + text // 4), word, fill=(60, 60, 60), font=font, anchor=anchor)
    return sheet


def outline_boxes(image: Image.Image, marks: Sequence[tuple[Box, str, bool]], *, text: int = 16) -> Image.Image:
    """Outline boxes on a copy of ``image``, each with a label inside it, the first on top.

    Args:
        image: any Pillow picture.
        marks: box as fractions x0, y0, x1, y1; label; whether it is drawn in the colour of support (orange) or in that
            of the contrary (blue).
        text: height of the labels in pixels.
    """
    canvas = image.convert("RGB")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(text)
    thick = max(2, min(canvas.size) // 120)
    pad = text // 4
    corners = []
    for box, _, support in reversed(marks):
        left, top, right, bottom = (
            round(part * (side - 1)) for part, side in zip(box, (*canvas.size, *canvas.size), strict=True)
        )
        pen.rectangle((left, top, right, bottom), outline=_FOR if support else _AGAINST, width=thick)
        inset = thick + pad
        corners.append((left + inset, top + inset, right - inset, bottom - inset))
    # After all outlines, which would cross them out; the first mark picks its corner first.
    taken: list[tuple[float, float, float, float]] = []
    for (_, label, _), (left, top, right, bottom) in zip(marks, reversed(corners), strict=True):
        places = [((left, top), "la"), ((right, bottom), "rd"), ((right, top), "ra"), ((left, bottom), "ld")]
        plates = []
        for at, anchor in places:
            x0, y0, x1, y1 = pen.textbbox(at, label, font=font, anchor=anchor)
            plates.append((x0 - pad, y0 - pad, x1 + pad, y1 + pad))
        free = [i for i, plate in enumerate(plates) if not any(_overlap(plate, other) for other in taken)]
        chosen = free[0] if free else 0
        taken.append(plates[chosen])
        pen.rectangle(plates[chosen], fill=(20, 20, 20))
        pen.text(places[chosen][0], label, fill=(255, 255, 255), font=font, anchor=places[chosen][1])
    return canvas


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def wrap(text: str, width: int, size: int) -> list[str]:
    """Lines of ``text`` that fit ``width`` pixels in letters of height ``size``; a longer word keeps its own line."""
    font, lines = ImageFont.load_default(size), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def captioned(panels: Sequence[tuple[str, Image.Image]], lines: Sequence[str], *, text: int = 15) -> Image.Image:
    """Panels with titles on a white sheet, side by side or (broad pictures) one above the other, and a caption below.

    Args:
        panels: title and picture; pictures of equal size.
        lines: paragraphs of the caption, wrapped to the width of the sheet; the first one is larger.
        text: height of letters in pixels.
    """
    width, height = panels[0][1].size
    beside = width < 2 * height
    gap, line = text, round(text * 1.45)
    across = width * (len(panels) if beside else 1) + gap * ((len(panels) if beside else 1) + 1)
    across = max(across, 40 * text)
    sizes = [round(text * 1.4)] + [text] * (len(lines) - 1)
    wrapped = [(part, size) for t, size in zip(lines, sizes, strict=True) for part in wrap(t, across - 2 * gap, size)]
    rows = 1 if beside else len(panels)
    down = gap + rows * (line + height + gap) + sum(round(size * 1.45) for _, size in wrapped) + gap
    sheet = Image.new("RGB", (across, down), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(text)
    for i, (title, panel) in enumerate(panels):
        x = gap + (i * (width + gap) if beside else 0)
        y = gap + (0 if beside else i * (line + height + gap))
        pen.text((x, y), title, fill=(60, 60, 60), font=font)
        sheet.paste(panel, (x, y + line))
    y = gap + rows * (line + height + gap)
    for part, size in wrapped:
        pen.text((gap, y), part, fill=(20, 20, 20), font=ImageFont.load_default(size))
        y += round(size * 1.45)
    return sheet
