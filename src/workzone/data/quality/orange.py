"""Orange things in a picture, by colour and shape: cones, barrels, signs, and all else that is orange."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workzone.data.perceptual import UnionFind

LONG_SIDE = 192
_HUE = (5, 24)
_LEAST_SATURATION = 120
_LEAST_VALUE = 130


@dataclass(frozen=True, slots=True)
class OrangeParts:
    """Connected orange parts of one picture.

    Attributes:
        share: share of the picture that is orange.
        largest: share of the picture that the largest part covers.
        fill: share of the largest part's bounding box that it covers; noise and reflections are sparse.
        parts: number of parts of at least ``smallest`` pixels of the reduced picture.
    """

    share: float
    largest: float
    fill: float
    parts: int


def orange_mask(image: Image.Image) -> NDArray[np.bool_]:
    """(H, W) where the picture, reduced to a long side of 192 pixels, is a strong, bright orange."""
    small = image.convert("RGB")
    small.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.BOX)
    hue, saturation, value = np.moveaxis(np.asarray(small.convert("HSV")), -1, 0)
    found: NDArray[np.bool_] = (
        (hue >= _HUE[0]) & (hue <= _HUE[1]) & (saturation >= _LEAST_SATURATION) & (value >= _LEAST_VALUE)
    )
    return found


def components(mask: NDArray[np.bool_]) -> list[tuple[int, int, int, int, int]]:
    """Pixels and bounding box (count, x0, y0, x1, y1) of each part connected by sides or corners."""
    runs: list[tuple[int, int, int]] = []
    rows: list[range] = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(np.int8), [0]))))
        rows.append(range(len(runs), len(runs) + len(edges) // 2))
        runs += [(y, int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    sets = UnionFind(len(runs))
    for above, below in pairwise(rows):
        for i in above:
            for j in below:
                if runs[i][1] <= runs[j][2] and runs[j][1] <= runs[i][2]:
                    sets.union(i, j)
    boxes: dict[int, tuple[int, int, int, int, int]] = {}
    for i, (y, a, b) in enumerate(runs):
        n, x0, y0, x1, y1 = boxes.get(sets.find(i), (0, a, y, b, y + 1))
        boxes[sets.find(i)] = (n + b - a, min(x0, a), min(y0, y), max(x1, b), max(y1, y + 1))
    return list(boxes.values())


def orange_parts(image: Image.Image, *, smallest: int = 6) -> OrangeParts:
    """Orange parts of ``image`` of at least ``smallest`` pixels after reduction to a long side of 192."""
    mask = orange_mask(image)
    found = [part for part in components(mask) if part[0] >= smallest]
    if not found:
        return OrangeParts(float(mask.mean()), 0.0, 0.0, 0)
    n, x0, y0, x1, y1 = max(found)
    return OrangeParts(float(mask.mean()), n / mask.size, n / ((x1 - x0) * (y1 - y0)), len(found))
