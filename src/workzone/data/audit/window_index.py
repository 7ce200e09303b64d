"""Index that finds for each picture the windows of other pictures that are most like it, without comparing all pairs.

Windows are described by their low frequencies, which change little when a window misses the true crop by half a step,
and reduced to principal components. The vectors fall into cells, the pairs of a nearest centre in either half of the
dimensions (inverted multi-index: Babenko, Lempitsky 2012). Whole pictures and their mirror images are few and are
entered into several cells each; windows are hundreds a picture and look into one. There are as many cells as keep the
number of pictures in a cell the same, so the work grows in proportion to the number of pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import overload

import numpy as np
from numpy.typing import NDArray

from workzone.data.audit.windows import COARSE, SIDE, Floats, bank, bank_intervals, kernels, mirror, unit

LOW = 8  # coefficients per axis of the description
SIGMA = 5.0  # where it fades out, in coefficients
DIMENSIONS = 32
CELLS_PER_ENTRY = 1 / 64
ENTRIES = 16  # cells of one whole picture
LOW_SCORE = 0.80
KEPT = 8
_BLOCK = 1024  # pictures whose windows are looked up together
_SUB = 64  # pictures whose windows are computed together
_SAMPLE = 512
_SAMPLED_WINDOWS = 32
_MOST_CENTRES = 2048


class Greys:
    """Grey squares on disk, (N, SIDE, SIDE), read piece by piece; behaves like an array in the first axis."""

    def __init__(self) -> None:
        import tempfile

        # Not a memory map, whose pages count as memory of the process.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._length = 0

    def append(self, grey: NDArray[np.uint8]) -> None:
        """Add one (SIDE, SIDE) picture."""
        self._file.write(np.ascontiguousarray(grey, dtype=np.uint8).tobytes())
        self._length += 1

    def close(self) -> None:
        """Give the space back."""
        self._file.close()

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> NDArray[np.uint8]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8]:
        single = not isinstance(index, slice)
        span = slice(index, index + 1) if isinstance(index, int) else index
        first, last, _ = span.indices(self._length)
        self._file.flush()
        self._file.seek(first * SIDE * SIDE)
        raw = self._file.read(max(0, last - first) * SIDE * SIDE)
        self._file.seek(0, 2)
        found = np.frombuffer(raw, dtype=np.uint8).reshape(-1, SIDE, SIDE)
        return found[0] if single else found


Pictures = Greys | NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The most similar windows of each picture, at most ``KEPT`` of different pictures.

    Attributes:
        score: (N, KEPT) cosine in the index, best first, ``LOW_SCORE`` where there is none.
        whole: (N, KEPT) picture that the window is cut from, or -1.
        window: (N, KEPT) number of the window in the bank.
        mirrored: (N, KEPT) whether the picture is like the window's mirror image.
    """

    score: Floats
    whole: NDArray[np.int64]
    window: NDArray[np.int64]
    mirrored: NDArray[np.bool_]


@lru_cache(maxsize=1)
def _low_kernels() -> tuple[Floats, Floats, Floats]:
    """Maps to the lowest coefficients: of all intervals stacked, of the whole line, and the weights (LOW**2,)."""
    lowest = kernels(bank_intervals(), COARSE)[:, :LOW].reshape(-1, SIDE)
    v, u = np.mgrid[0:LOW, 0:LOW]
    radius = np.sqrt(u**2 + v**2)
    weights = (radius * np.exp(-((radius / SIGMA) ** 2))).astype(np.float32).ravel()
    # Half the resolution is plenty for 8 coefficients of half the picture, and a quarter of the work.
    halved = lowest.reshape(len(lowest), SIDE // 2, 2).sum(axis=2)
    whole = kernels([(0.0, 1.0)], COARSE)[0][:LOW].reshape(LOW, SIDE // 2, 2).sum(axis=2)
    return halved, whole, weights


def _halved(grey: NDArray[np.uint8]) -> Floats:
    # Sums of strided halves are much faster than a mean over two axes.
    whole = grey.astype(np.float32)
    rows = whole[:, 0::2] + whole[:, 1::2]
    return np.asarray((rows[:, :, 0::2] + rows[:, :, 1::2]) / 4, dtype=np.float32)


def _low_windows(grey: NDArray[np.uint8]) -> Floats:
    """(B, W, LOW**2) descriptions of all windows of the bank."""
    stacked, _, weights = _low_kernels()
    pairs = bank()[1]
    n = len(stacked) // LOW
    every = (stacked @ _halved(grey) @ stacked.T).reshape(len(grey), n, LOW, n, LOW).swapaxes(2, 3)
    chosen = every[:, pairs[:, 0], pairs[:, 1]].reshape(len(grey), len(pairs), -1)
    return unit(np.asarray(chosen * weights, dtype=np.float32))


def _low_wholes(grey: NDArray[np.uint8]) -> Floats:
    _, whole, weights = _low_kernels()
    low = (whole @ _halved(grey) @ whole.T).reshape(len(grey), -1)
    return unit(np.asarray(low * weights, dtype=np.float32))


@dataclass(frozen=True, slots=True)
class _Space:
    """Principal components of window descriptions, and the centres of cells in either half of them."""

    mean: Floats
    basis: Floats
    centres: tuple[Floats, Floats]

    @classmethod
    def of(cls, pictures: Pictures, entries: int, rng: np.random.Generator) -> _Space:
        n = len(pictures)
        chosen = np.sort(rng.choice(n, min(n, _SAMPLE), replace=False)).tolist()
        sample = []
        for i in chosen:
            found = _low_windows(pictures[i : i + 1])[0]
            sample.append(found[rng.choice(len(found), _SAMPLED_WINDOWS, replace=False)])
        rows = np.concatenate(sample)
        rows = np.concatenate([rows, mirror(rows, LOW)])
        mean = rows.mean(axis=0)
        _, vectors = np.linalg.eigh(np.cov((rows - mean).T.astype(np.float64)))
        # Strong and weak components take turns, so that either half tells about as much.
        best = vectors[:, ::-1][:, :DIMENSIONS]
        basis = np.concatenate([best[:, 0::2], best[:, 1::2]], axis=1).astype(np.float32)
        space = cls(mean, basis, (basis[:0], basis[:0]))
        points = space.project(rows)
        points = points[points.any(axis=1)]
        count = int(np.clip(round((entries * CELLS_PER_ENTRY) ** 0.5), 1, min(_MOST_CENTRES, max(1, len(points)))))
        at = rng.choice(len(points), count, replace=False) if len(points) else np.zeros(0, dtype=np.int64)
        return cls(mean, basis, (points[at, : DIMENSIONS // 2], points[at, DIMENSIONS // 2 :]))

    def project(self, rows: Floats) -> Floats:
        """Unit vectors (N, DIMENSIONS); pictures without structure become zero."""
        known = rows.any(axis=-1, keepdims=True)
        return unit(np.where(known, (rows - self.mean) @ self.basis, np.float32(0)))

    def _distances(self, points: Floats) -> list[Floats]:
        halves = points[:, : DIMENSIONS // 2], points[:, DIMENSIONS // 2 :]
        pairs = zip(halves, self.centres, strict=True)
        return [np.asarray((c * c).sum(axis=1) - 2 * (h @ c.T), dtype=np.float32) for h, c in pairs]

    def cell(self, points: Floats) -> NDArray[np.int64]:
        """(N,) nearest cell."""
        first, second = (d.argmin(axis=1) for d in self._distances(points))
        return np.asarray(first * len(self.centres[1]) + second, dtype=np.int64)

    def cells(self, points: Floats, most: int) -> NDArray[np.int64]:
        """(N, most) nearest cells; fewer where there are fewer."""
        count = len(self.centres[0])
        few = min(most, count)
        near = []
        for d in self._distances(points):
            at = np.argpartition(d, few - 1, axis=1)[:, :few]
            near.append((at, np.take_along_axis(d, at, axis=1)))
        (a, da), (b, db) = near
        total = (da[:, :, None] + db[:, None, :]).reshape(len(points), -1)
        cells = (a[:, :, None] * count + b[:, None, :]).reshape(len(points), -1)
        take = min(most, total.shape[1])
        return np.take_along_axis(cells, np.argpartition(total, take - 1, axis=1)[:, :take], axis=1)


class _Table:
    """The best windows so far."""

    def __init__(self, n: int) -> None:
        self.score = np.full((n, KEPT), LOW_SCORE, dtype=np.float32)
        self.whole = np.full((n, KEPT), -1, dtype=np.int64)
        self.code = np.zeros((n, KEPT), dtype=np.int64)

    def take(self, part: NDArray[np.int64], whole: NDArray[np.int64], code: NDArray[np.int64], score: Floats) -> None:
        """Put in what is better; of one picture only its best window."""
        order = np.lexsort((-score, whole, part))
        part, whole, code, score = part[order], whole[order], code[order], score[order]
        new = np.ones(len(part), dtype=bool)
        new[1:] = (part[1:] != part[:-1]) | (whole[1:] != whole[:-1])
        part, whole, code, score = part[new], whole[new], code[new], score[new]
        touched = np.unique(part)
        part = np.concatenate([np.repeat(touched, KEPT), part])
        whole = np.concatenate([self.whole[touched].ravel(), whole])
        code = np.concatenate([self.code[touched].ravel(), code])
        score = np.concatenate([self.score[touched].ravel(), score])
        order = np.lexsort((whole, -score, part))
        begin = np.searchsorted(part[order], touched)
        picked = order[begin[:, None] + np.arange(KEPT)]
        self.whole[touched], self.code[touched], self.score[touched] = whole[picked], code[picked], score[picked]


def nearest_windows(
    pictures: Pictures,
    roles: Sequence[int] | NDArray[np.int64],
    *,
    seed: int = 0,
    step: Callable[[], None] = lambda: None,
) -> Candidates:
    """Find for each picture the windows of pictures in other roles that are most like it or its mirror image.

    Memory: 1.5 kB for each picture, and the windows of 1,024 pictures at a time.

    Args:
        pictures: (N, SIDE, SIDE) grey squares.
        roles: (N,) role of each picture.
        seed: of the sample that components and centres come from.
        step: called after each picture.
    """
    n, number = len(pictures), np.asarray(roles, dtype=np.int64)
    table = _Table(n)
    space = _Space.of(pictures, 2 * n * ENTRIES, np.random.default_rng(seed))
    low = np.concatenate([_low_wholes(pictures[a : a + _SUB]) for a in range(0, n, _SUB)])
    points = np.concatenate([space.project(low), space.project(mirror(low, LOW))])
    del low
    alive = np.flatnonzero(points.any(axis=1))
    if not len(alive) or not len(space.centres[0]):
        return Candidates(table.score, table.whole, table.code, table.code.astype(bool))
    cells = [space.cells(points[alive[a : a + 4096]], ENTRIES) for a in range(0, len(alive), 4096)]
    flat = np.concatenate([c.ravel() for c in cells])
    order = np.argsort(flat, kind="stable")
    entered = alive[order // cells[0].shape[1]].astype(np.int32)
    starts = np.searchsorted(flat[order], np.arange(len(space.centres[0]) ** 2 + 1))
    del cells, flat, order
    for first in range(0, n, _BLOCK):
        _look_up(pictures, first, space, points, entered, starts, number, table)
        for _ in range(min(_BLOCK, n - first)):
            step()
    return Candidates(table.score, table.whole, table.code // 2, (table.code % 2).astype(bool))


def _look_up(
    pictures: Pictures,
    first: int,
    space: _Space,
    points: Floats,
    entered: NDArray[np.int32],
    starts: NDArray[np.int64],
    number: NDArray[np.int64],
    table: _Table,
) -> None:
    """Compare the windows of one block of pictures with what is in their cells."""
    n, last = len(number), min(first + _BLOCK, len(number))
    made = [space.project(_low_windows(pictures[a : min(a + _SUB, last)])) for a in range(first, last, _SUB)]
    windows = np.concatenate(made).reshape(-1, DIMENSIONS)
    per = len(windows) // (last - first)
    cell = np.concatenate([space.cell(m.reshape(-1, DIMENSIONS)) for m in made])
    cell[~windows.any(axis=1)] = -1
    del made
    order = np.argsort(cell, kind="stable")
    present, begin = np.unique(cell[order], return_index=True)
    ends = np.append(begin[1:], len(order))
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], Floats]] = []
    for c, low, high in zip(present.tolist(), begin.tolist(), ends.tolist(), strict=True):
        if c < 0 or starts[c] == starts[c + 1]:
            continue
        inside = entered[starts[c] : starts[c + 1]]
        own = order[low:high]
        score = windows[own] @ points[inside].T
        i, j = np.nonzero(score > table.score[inside % n, -1])
        if len(i):
            found.append((own[i], inside[j].astype(np.int64), score[i, j]))
    if not found:
        return
    window, entry, score = (np.concatenate(column) for column in zip(*found, strict=True))
    part, whole = entry % n, first + window // per
    other = number[part] != number[whole]
    code = 2 * (window % per) + entry // n
    table.take(part[other], whole[other], code[other], score[other])
