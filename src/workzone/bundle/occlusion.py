"""What a bundle says about a picture with parts of it covered: the measurement under every explanation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from workzone.bundle.cascade import joined
from workzone.bundle.embedding import ViewEmbeddings
from workzone.bundle.parallel import embed_views
from workzone.bundle.runtime import Decider
from workzone.vision.views import Cutter

Fill = Literal["mean", "grey", "blur"]
FILLS: tuple[Fill, ...] = ("mean", "grey", "blur")
Cells = NDArray[np.bool_]
Advance = Callable[[int], None]

MAX_CELLS = 32
"""Most cells along a side."""
_CHUNK_BYTES = 64 * 1024 * 1024
_CHUNK = 16
_MID_GREY = (128, 128, 128)


def grid_of(width: int, height: int, cells: int) -> tuple[int, int]:
    """Rows and columns of about ``cells`` x ``cells`` nearly square cells for a picture of this shape."""
    shape = math.sqrt(height / width)
    rows, cols = (min(MAX_CELLS, max(1, round(cells * s))) for s in (shape, 1 / shape))
    return rows, cols


@dataclass(frozen=True, slots=True)
class Part:
    """A model whose score is part of an answer.

    Attributes:
        model: the opened model.
        picture: RGB, as ``decode`` gives it to this model.
        views: numbers of the views that it looks at.
    """

    model: Decider
    picture: Image.Image
    views: Sequence[int]


class Occluder:
    """Scores one picture with cells of a grid covered, by the models and views that its answer rests on.

    Args:
        parts: the models whose scores are joined, the one that answered last.
        grid: rows and columns of cells.
        fill: what covers a cell: the mean colour of the picture, mid-grey, or the picture blurred over a cell's size.
    """

    def __init__(self, parts: Sequence[Part], grid: tuple[int, int], fill: Fill) -> None:
        self.parts = [PartOccluder(part, grid, fill) for part in parts]
        scores = [np.array([part.log_odds]) for part in self.parts]
        self.log_odds = float(joined(scores[-1], scores[:-1])[0])

    @property
    def embedded(self) -> int:
        """Views embedded so far."""
        return sum(part.embedded for part in self.parts)

    def covered(self, masks: Sequence[Cells], advance: Advance) -> NDArray[np.float64]:
        """Log-odds (M,) of the picture with the cells of each mask (rows, cols) covered.

        Args:
            masks: True where a cell is covered.
            advance: called with the number of masks just finished.
        """
        *earlier, last = self.parts
        before = [part.covered(masks, lambda more: None) for part in earlier]
        return joined(last.covered(masks, advance), before)

    def without_view(self) -> NDArray[np.float64] | None:
        """Log-odds (V,) when each view of the model that answered does not exist; None where it has one view only."""
        *earlier, last = self.parts
        own = last.without_view()
        return None if own is None else joined(own, [np.full(len(own), part.log_odds) for part in earlier])


class PartOccluder:
    """The scores of one model; views that a cover leaves as they were are not embedded again."""

    def __init__(self, part: Part, grid: tuple[int, int], fill: Fill) -> None:
        self.model, self.picture, self.views = part.model, part.picture, list(part.views)
        self.cover = _cover(self.picture, grid, fill)
        cutter = Cutter(self.picture, self.model.preprocessing)
        self.pixels, self.boxes = cutter.cut(self.views), cutter.boxes[self.views]
        self.embeddings = self._embed(self.pixels)
        self.embedded = len(self.pixels)
        """Views embedded so far."""
        self.log_odds = float(self._score(self.embeddings[None])[0])

    def covered(self, masks: Sequence[Cells], advance: Advance) -> NDArray[np.float64]:
        """See ``Occluder``."""
        found = []
        step = max(1, min(_CHUNK, _CHUNK_BYTES // self.pixels.nbytes))
        for start in range(0, len(masks), step):
            chunk = masks[start : start + step]
            found.append(self._score(self._embeddings_of(chunk)))
            advance(len(chunk))
        return np.concatenate(found)

    def without_view(self) -> NDArray[np.float64] | None:
        """See ``Occluder``."""
        count = len(self.boxes)
        if count < 2:
            return None
        # Left out rather than masked: a head that was exported without a mask would ignore it.
        kept = np.stack([np.delete(np.arange(count), v) for v in range(count)])
        return self._score(self.embeddings[kept], self.boxes[kept])

    def _embeddings_of(self, masks: Sequence[Cells]) -> NDArray[np.float32]:
        embeddings = np.repeat(self.embeddings[None], len(masks), axis=0)
        changed: list[tuple[int, int]] = []
        pixels = []
        for m, views in enumerate(self._views_of(masks)):
            # Compared by pixel, not by box: the resampling filter looks a little beyond the box of a view.
            for v in np.flatnonzero((views != self.pixels).any(axis=(1, 2, 3))).tolist():
                changed.append((m, v))
                pixels.append(views[v])
        if changed:
            rows, cols = np.array(changed).T
            embeddings[rows, cols] = self._embed(np.stack(pixels))
            self.embedded += len(changed)
        return embeddings

    def _views_of(self, masks: Sequence[Cells]) -> Iterator[NDArray[np.uint8]]:
        for mask in masks:
            where = Image.fromarray(enlarge(mask, self.picture.size).astype(np.uint8) * 255)
            picture = Image.composite(self.cover, self.picture, where)
            yield Cutter(picture, self.model.preprocessing).cut(self.views)

    def _embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return embed_views(self.model.engine, pixels, side_by_side=True)

    def _score(self, embeddings: NDArray[np.float32], boxes: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
        if boxes is None:
            boxes = np.repeat(self.boxes[None], len(embeddings), axis=0)
        mask = np.ones(embeddings.shape[:2], dtype=np.bool_)
        return self.model.score(ViewEmbeddings(embeddings, boxes, mask)).log_odds


def edges(count: int, side: int) -> NDArray[np.int64]:
    """Where ``count`` cells along ``side`` pixels begin and end (count + 1,)."""
    return np.linspace(0, side, count + 1).round().astype(np.int64)


def enlarge(mask: Cells, size: tuple[int, int]) -> Cells:
    """Cells (rows, cols) as pixels (height, width) of a picture of ``size`` (width, height)."""
    down, across = (np.diff(edges(n, side)) for n, side in zip(mask.shape, (size[1], size[0]), strict=True))
    return np.asarray(np.repeat(np.repeat(mask, down, axis=0), across, axis=1))


def _cover(picture: Image.Image, grid: tuple[int, int], fill: Fill) -> Image.Image:
    if fill == "blur":
        return picture.filter(ImageFilter.GaussianBlur(max(picture.height / grid[0], picture.width / grid[1])))
    colour = _MID_GREY
    if fill == "mean":
        red, green, blue = np.asarray(picture).reshape(-1, 3).mean(axis=0).round().astype(int).tolist()
        colour = (red, green, blue)
    return Image.new("RGB", picture.size, colour)
