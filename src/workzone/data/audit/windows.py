"""Windows of pictures as short vectors, so that a matrix product finds which picture is a crop of which.

A picture is kept as a small grey square. A window of it, squeezed to the size of a thumbnail and turned into DCT
coefficients, is two matrix products away: ``K_y @ grey @ K_x.T``. Coefficients are weighted by frequency, because
street pictures all share bright sky above dark road, and scaled to unit length, so brightness and contrast drop out. A
mirrored picture has the same coefficients with the odd horizontal ones negated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from workzone.data.perceptual import dct_matrix

SIDE = 160  # stored grey square
COARSE = 16  # coefficients per axis in the search over all pairs
FINE = 32  # coefficients per axis when a candidate is refined
_SCALES = ((0.57, 8), (0.66, 6), (0.76, 5), (0.87, 3), (1.0, 1))
_MAX_STRETCH = 1.4
_SMALLEST = 0.5
_REACHES = (0.05, 0.05, 0.03, 0.02, 0.012, 0.006, 0.003)
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a picture in fractions of its width and height."""

    x: float
    y: float
    width: float
    height: float

    @property
    def is_whole(self) -> bool:
        """Whether the window is the picture but for a border of about 3 percent."""
        return min(self.width, self.height) >= 0.97

    def text(self) -> str:
        """The window in percent of the picture."""
        return f"{self.width:.0%} x {self.height:.0%} at {self.x:.0%} from the left and {self.y:.0%} from the top"


def kernels(intervals: Sequence[tuple[float, float]], n: int) -> Floats:
    """(M, n, SIDE) maps from a line of pixels to the DCT coefficients of M intervals ``(begin, length)`` of it.

    An interval is cut into ``n`` equal cells; a cell is the area average of its pixels.
    """
    spans = np.array(intervals, dtype=np.float32)
    edges = (spans[:, :1] + spans[:, 1:] * np.arange(n + 1, dtype=np.float32) / n) * SIDE
    # How far each edge reaches into each pixel; the difference of two edges is the cover of the cell between them.
    reach = np.clip(edges[:, :, None] - np.arange(SIDE, dtype=np.float32), 0.0, 1.0)
    cells = (reach[:, 1:] - reach[:, :-1]) * (n / (spans[:, 1, None, None] * SIDE))
    return np.asarray(dct_matrix(n).astype(np.float32) @ cells, dtype=np.float32)


@lru_cache(maxsize=4)
def frequency_weights(n: int) -> Floats:
    """(n, n) weight of each coefficient: nothing for the mean, more for detail, less where noise begins."""
    v, u = np.mgrid[0:n, 0:n]
    radius = np.sqrt(u**2 + v**2)
    weights: Floats = (radius * np.exp(-((radius / (0.55 * n)) ** 2))).astype(np.float32)
    weights.setflags(write=False)
    return weights


def unit(features: Floats) -> Floats:
    """Scale vectors to length 1; a picture without structure becomes zero and is like nothing."""
    length = np.sqrt(np.einsum("...i,...i->...", features, features))[..., None]
    return np.asarray(features / np.where(length > 1e-3, length, np.inf), dtype=np.float32)


def mirror(features: Floats, n: int) -> Floats:
    """Features of the mirrored picture, from those of the picture."""
    signs = np.tile(np.where(np.arange(n) % 2, -1.0, 1.0).astype(np.float32), n)
    return features * signs


def bank_intervals() -> list[tuple[float, float]]:
    """``(begin, length)`` of the intervals of a line that windows of the bank are made of."""
    return [(0.0 if n == 1 else (1 - scale) * k / (n - 1), scale) for scale, n in _SCALES for k in range(n)]


@lru_cache(maxsize=1)
def bank() -> tuple[Floats, NDArray[np.intp], list[Window]]:
    """Kernels of all intervals stacked, index pairs (y, x) of the windows in use, and the windows themselves."""
    intervals = bank_intervals()
    stacked = kernels(intervals, COARSE).reshape(-1, SIDE)
    pairs = [
        (i, j)
        for i, (_, sy) in enumerate(intervals)
        for j, (_, sx) in enumerate(intervals)
        # A square cut from a wide picture keeps the whole height.
        if max(sx / sy, sy / sx) <= _MAX_STRETCH or max(sx, sy) == 1.0
    ]
    windows = [Window(intervals[j][0], intervals[i][0], intervals[j][1], intervals[i][1]) for i, j in pairs]
    return stacked, np.array(pairs, dtype=np.intp), windows


def window_features(grey: Floats) -> Floats:
    """(W, COARSE**2) unit features of every window of the bank over one (SIDE, SIDE) picture."""
    stacked, pairs, _ = bank()
    n = len(stacked) // COARSE
    every = (stacked @ grey @ stacked.T).reshape(n, COARSE, n, COARSE).swapaxes(1, 2)
    chosen = np.asarray(every[pairs[:, 0], pairs[:, 1]] * frequency_weights(COARSE), dtype=np.float32)
    return unit(chosen.reshape(len(pairs), -1))


def window_coarse(grey: Floats, number: int) -> Floats:
    """(COARSE**2,) unit features of window ``number`` of the bank over one (SIDE, SIDE) picture."""
    stacked, pairs, _ = bank()
    y, x = (stacked[k * COARSE : (k + 1) * COARSE] for k in pairs[number].tolist())
    return unit(np.asarray((y @ grey @ x.T) * frequency_weights(COARSE), dtype=np.float32).ravel())


def whole_features(grey: Floats, n: int) -> Floats:
    """(N, n**2) unit features of whole (N, SIDE, SIDE) pictures."""
    k = kernels([(0.0, 1.0)], n)[0]
    return unit(np.asarray((k @ grey @ k.T) * frequency_weights(n), dtype=np.float32).reshape(len(grey), -1))


def _neighbours(begin: float, length: float, reach: float) -> list[tuple[float, float]]:
    """One interval and those with its ends moved by ``reach``, kept inside the picture."""
    found = [(begin, length)]
    for a in (-reach, 0.0, reach):
        for b in (-reach, 0.0, reach):
            low, high = max(0.0, begin + a), min(1.0, begin + length + b)
            if high - low >= _SMALLEST and (low, high - low) not in found:
                found.append((low, high - low))
    return found


def refine(grey: Floats, target: Floats, start: Window, *, floors: Sequence[float] = ()) -> tuple[float, Window]:
    """Move the ends of a window, one axis at a time, until it is most like ``target``.

    Args:
        grey: (SIDE, SIDE) picture that the window is cut from.
        target: (FINE**2,) unit features of the other picture.
        start: window found by the coarse search.
        floors: scores that must be reached after the first rounds; below, the search is given up.

    Returns:
        correlation of the weighted coefficients, -1 to 1, and the window.
    """
    weights = frequency_weights(FINE)
    x, y = (start.x, start.width), (start.y, start.height)
    best = -1.0
    for reach, floor in zip_longest(_REACHES, floors[: len(_REACHES)], fillvalue=-1.0):
        for axis in (0, 1):
            options = _neighbours(*(x if axis == 0 else y), reach)
            fixed = kernels([y if axis == 0 else x], FINE)[0]
            moving = kernels(options, FINE)
            made = (fixed @ grey) @ moving.swapaxes(1, 2) if axis == 0 else moving @ (grey @ fixed.T)
            scores = unit(np.asarray(made * weights, dtype=np.float32).reshape(len(options), -1)) @ target
            top = int(np.argmax(scores))
            best = float(scores[top])
            x, y = (options[top], y) if axis == 0 else (x, options[top])
        if best < floor:
            break
    return best, Window(x[0], y[0], x[1], y[1])
