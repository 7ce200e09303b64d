"""Which parts of a picture the network looks at: one global view, zoomed views, overlapping tiles and their mirrors.

The picture is thought of as resized to a canvas that a grid of square tiles covers exactly: with tiles of ``t`` pixels,
``g`` tiles along a side and a step of ``round(t * (1 - overlap))`` the canvas side is ``t + (g - 1) * step`` (616 for
three tiles of 224 with overlap 0.125). Tiles are never mirrored top to bottom: streets have a ground.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workzone.config.views import ViewSpec

if TYPE_CHECKING:
    from workzone.vision.preprocess import Preprocessing

Pixels = NDArray[np.uint8]
Boxes = NDArray[np.float32]

# Pillow first shrinks by whole factors, keeping three times the target size: about half the time on large pictures for
# a difference below 4 of 255.
_REDUCING_GAP = 3.0
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def grid(
    spec: ViewSpec, width: int, height: int, *, image_size: int = 224, image_width: int = 0
) -> tuple[int, int]:
    """Rows and columns of the first grid for a picture of ``width`` x ``height`` pixels; (0, 0) for layout ``global``.

    The layout ``adaptive`` takes the grid whose tiles are nearest to square (counted twice, on a log scale) and whose
    number is nearest to what shows the picture at its own resolution. Ties go to fewer tiles, then to fewer rows.
    With ``image_width`` tiles are ``image_width`` x ``image_size`` pixels and that shape takes the place of the square.
    """
    across = image_width or image_size
    if width < 1 or height < 1 or image_size < 1:
        raise ValueError("width, height and image_size must be positive")
    if spec.layout == "global":
        return 0, 0
    if spec.layout == "grid":
        return spec.rows, spec.cols
    step = 1 - spec.overlap
    native = math.prod(1 + max(0.0, side / own - 1) / step for side, own in ((width, across), (height, image_size)))
    wanted = min(max(native, spec.min_tiles), spec.max_tiles)

    def cost(rows: int, cols: int) -> tuple[float, int, int]:
        shape = width * image_size * (1 + (rows - 1) * step) / (height * across * (1 + (cols - 1) * step))
        return round(2 * abs(math.log(shape)) + abs(math.log(rows * cols / wanted)), 9), rows * cols, rows

    most = spec.max_tiles
    pairs = ((rows, cols) for rows in range(1, most + 1) for cols in range(1, most // rows + 1))
    return min((pair for pair in pairs if spec.min_tiles <= math.prod(pair)), key=lambda pair: cost(*pair))


def grids(
    spec: ViewSpec, width: int, height: int, *, image_size: int = 224, image_width: int = 0
) -> tuple[tuple[int, int], ...]:
    """Rows and columns of every grid of tiles, the first one as ``grid`` gives it; none for the layout ``global``."""
    first = grid(spec, width, height, image_size=image_size, image_width=image_width)
    return (first, *(spec.pyramid or ())) if first[0] else ()


def count(spec: ViewSpec, width: int, height: int, *, image_size: int = 224, image_width: int = 0) -> int:
    """Return the number of views of a picture of ``width`` x ``height`` pixels."""
    found = grids(spec, width, height, image_size=image_size, image_width=image_width)
    return (len(spec.scales) + sum(map(math.prod, found))) * (2 if spec.flip else 1)


def boxes(spec: ViewSpec, width: int, height: int, *, image_size: int = 224, image_width: int = 0) -> Boxes:
    """Return the part of the picture each view shows.

    Returns:
        float32 (V, 4): x0, y0, x1, y1 as fractions of width and height, the global view first. A view with a border
        (scale below 1) shows the whole picture; a mirrored view has the box of the view it mirrors.
    """
    parts = [_centre(scale) for scale in _ordered(spec.scales)]
    wide = image_width or image_size
    step, aside = _step(spec, image_size), _step(spec, wide)
    for rows, cols in grids(spec, width, height, image_size=image_size, image_width=image_width):
        across, down = wide + (cols - 1) * aside, image_size + (rows - 1) * step
        parts += [
            (x / across, y / down, (x + wide) / across, (y + image_size) / down)
            for y in range(0, rows * step, step)
            for x in range(0, cols * aside, aside)
        ]
    return np.array(parts * (2 if spec.flip else 1), dtype=np.float32)


def make_views(image: Image.Image, pre: Preprocessing) -> tuple[Pixels, Boxes]:
    """Cut the views of an RGB picture.

    Returns:
        uint8 (V, S, W, 3) and float32 (V, 4) as ``boxes`` gives them, with S = ``pre.image_size``, W = ``pre.width``.

    Raises:
        ValueError: the picture is not RGB; ``decode`` makes it so.
    """
    cutter = Cutter(image, pre)
    return cutter.cut(range(len(cutter.boxes))), cutter.boxes


class Cutter:
    """Cuts views of one RGB picture when they are asked for; what several views share is made once.

    Attributes:
        boxes: float32 (V, 4) of all views, as ``boxes`` gives them.

    Raises:
        ValueError: the picture is not RGB; ``decode`` makes it so.
    """

    def __init__(self, image: Image.Image, pre: Preprocessing) -> None:
        if image.mode != "RGB":
            raise ValueError(f"views are cut from RGB pictures, not {image.mode}; pass it through decode first")
        self.image, self.pre = image, pre
        self.boxes = boxes(
            pre.views, image.width, image.height, image_size=pre.image_size, image_width=pre.image_width
        )
        self._scales = _ordered(pre.views.scales)
        self._whole: dict[int, Pixels] = {}
        size = {"image_size": pre.image_size, "image_width": pre.image_width}
        self._grids = grids(pre.views, image.width, image.height, **size)
        self._canvas: dict[int, Pixels] = {}

    def cut(self, views: Sequence[int]) -> Pixels:
        """Pixels (K, S, W, 3) of the K ``views`` with these numbers."""
        spec = self.pre.views
        half = len(self.boxes) // 2 if spec.flip else len(self.boxes)
        pixels = np.empty((len(views), self.pre.image_size, self.pre.width, 3), dtype=np.uint8)
        for row, view in enumerate(views):
            if not 0 <= view < len(self.boxes):
                raise ValueError(f"there is no view {view} of {len(self.boxes)}")
            plain = self._plain(view % half)
            pixels[row] = plain[:, ::-1] if view >= half else plain
        return pixels

    def _plain(self, view: int) -> Pixels:
        """View ``view`` (S, W, 3), not mirrored."""
        if view < len(self._scales):
            if view not in self._whole:
                self._whole[view] = _scaled(self.image, self._scales[view], self.pre)
            return self._whole[view]
        size, wide, spec = self.pre.image_size, self.pre.width, self.pre.views
        step, aside = _step(spec, size), _step(spec, wide)
        tile, level = view - len(self._scales), 0
        while tile >= math.prod(self._grids[level]):
            tile -= math.prod(self._grids[level])
            level += 1
        rows, cols = self._grids[level]
        if level not in self._canvas:
            # One resize and slices: a fifth faster than a resize for each tile, and overlaps are equal to the last bit.
            self._canvas[level] = _resize(self.image, (wide + (cols - 1) * aside, size + (rows - 1) * step), self.pre)
        row, col = divmod(tile, cols)
        return self._canvas[level][row * step : row * step + size, col * aside : col * aside + wide]


def needed_side(pre: Preprocessing) -> int:
    """Return the shorter side in pixels that a decoded picture needs so that no view is enlarged for want of detail."""
    spec, size = pre.views, max(pre.image_size, pre.width)
    adaptive = math.ceil(math.sqrt(spec.max_tiles)) if spec.layout == "adaptive" else 1
    tiles = max((side for found in spec.grids for side in found), default=adaptive)
    covered = size + (tiles - 1) * _step(spec, size)
    return max(covered, math.ceil(size * max(spec.scales)))


def _step(spec: ViewSpec, size: int) -> int:
    return max(1, round(size * (1 - spec.overlap)))


def _ordered(scales: tuple[float, ...]) -> list[float]:
    return [1.0, *(scale for scale in scales if scale != 1.0)]


def _centre(scale: float) -> tuple[float, float, float, float]:
    half = 0.5 / max(scale, 1.0)
    return 0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half


def _scaled(image: Image.Image, scale: float, pre: Preprocessing) -> Pixels:
    above, beside = (round(side * (1 - scale) / 2) if scale < 1 else 0 for side in (pre.image_size, pre.width))
    x0, y0, x1, y1 = _centre(scale)
    box = (x0 * image.width, y0 * image.height, x1 * image.width, y1 * image.height)
    view = _resize(image, (pre.width - 2 * beside, pre.image_size - 2 * above), pre, box)
    return np.pad(view, ((above, above), (beside, beside), (0, 0)), mode="reflect") if above or beside else view


def _resize(
    image: Image.Image,
    size: tuple[int, int],
    pre: Preprocessing,
    box: tuple[float, float, float, float] | None = None,
) -> Pixels:
    return np.asarray(image.resize(size, _FILTERS[pre.interpolation], box=box, reducing_gap=_REDUCING_GAP))
