"""Weights of bootstrap resamples and of the jackknife, by image or by group, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workzone.metrics.sample import FloatArray, IntArray, Sample
from workzone.processors import processors

Method = Literal["percentile", "bca"]

JACKKNIFE_UNITS = 2000
JACKKNIFE_BLOCKS = 400
# Weights per chunk: 1 MB stays in a core's cache and below the size at which each temporary costs page faults.
CHUNK_ELEMENTS = 128_000
# Values closer than this differ by rounding only.
SAME = 1e-12


def check_settings(method: str, level: float, n_resamples: int) -> None:
    """Raise ValueError for settings that no bootstrap has."""
    if method not in ("percentile", "bca"):
        raise ValueError(f"unknown method {method!r}: percentile or bca")
    if not 0 < level < 1 or n_resamples < 1:
        raise ValueError("level must lie strictly between 0 and 1, n_resamples be at least 1")


class Plan:
    """What is drawn: images, or groups of images, each within its stratum.

    Units are numbered stratum by stratum.

    Args:
        sample: N images.
        groups: (N,) group of each image (drive, place); whole groups are drawn.
        strata: (N,) stratum of each image; the number of units of each is kept. One value per group.
        stratified: use the label as stratum; with groups, whether a group holds any roadwork.

    Raises:
        ValueError: wrong lengths, a group in two strata, or both ``strata`` and ``stratified``.
    """

    def __init__(self, sample: Sample, groups: Any = None, strata: Any = None, *, stratified: bool = False) -> None:
        if stratified and strata is not None:
            raise ValueError("give strata or stratified=True, not both")
        n = sample.n
        unit = np.arange(n) if groups is None else _codes(groups, n, "groups")[sample.order]
        self.grouped = groups is not None
        self.n_units = int(unit.max()) + 1 if n else 0
        stratum = np.zeros(self.n_units, dtype=np.int64)
        if stratified:
            np.maximum.at(stratum, unit, sample.y)
        elif strata is not None:
            codes = _codes(strata, n, "strata")[sample.order]
            stratum[unit] = codes
            if (stratum[unit] != codes).any():
                raise ValueError("a group lies in two strata: strata must have one value per group")
        order = np.argsort(stratum, kind="stable")
        place = np.empty(self.n_units, dtype=np.int64)
        place[order] = np.arange(self.n_units)
        self.stratum: IntArray = stratum[order]
        sizes = np.bincount(stratum)
        self.sizes: IntArray = sizes[sizes > 0]
        self.starts: IntArray = np.r_[0, np.cumsum(self.sizes)[:-1]]
        unit = place[unit]
        self.unit_of_column: IntArray = unit
        self._identity = bool((unit == np.arange(n)).all())
        self.unit_cells: FloatArray = np.zeros((self.n_units, 4))
        np.add.at(self.unit_cells, (unit, sample.cell), 1.0)

    def draw(self, rng: np.random.Generator, b: int) -> IntArray:
        """(b, U) exact multinomial counts: how often each unit is drawn.

        Counting uniform draws costs about a third of a Poisson draw per unit and a tenth of ``rng.multinomial``.
        """
        u = self.n_units
        if len(self.sizes) == 1:
            picks = rng.integers(0, u, size=(b, u))
        else:
            picks = np.empty((b, u), dtype=np.int64)
            for start, size in zip(self.starts.tolist(), self.sizes.tolist(), strict=True):
                picks[:, start : start + size] = rng.integers(start, start + size, size=(b, size))
        if b > 1:
            picks += np.arange(b)[:, None] * u
        return np.bincount(picks.ravel(), minlength=b * u).reshape(b, u)

    def to_images(self, unit_weights: NDArray[Any]) -> NDArray[Any]:
        """(b, N) image weights, columns as in the sample, of (b, U) unit weights."""
        return unit_weights if self._identity else np.take(unit_weights, self.unit_of_column, axis=1)

    def draw_cells(self, rng: np.random.Generator, b: int) -> FloatArray:
        """(b, 4) confusion tables of resampled images, drawn directly; groups must be single images."""
        cells = np.zeros((b, 4))
        for start, size in zip(self.starts.tolist(), self.sizes.tolist(), strict=True):
            counts = self.unit_cells[start : start + size].sum(axis=0)
            cells += rng.multinomial(size, counts / size, size=b)
        return cells

    def blocks(self, seed: int) -> tuple[IntArray, IntArray]:
        """Jackknife blocks: block of each unit (U,), stratum of each block (J,).

        Single units up to 2,000; beyond that about 400 random blocks, whose skewness estimates the same
        acceleration with a standard error of about 0.4 / 400.
        """
        u = self.n_units
        if u <= JACKKNIFE_UNITS:
            return np.arange(u), self.stratum
        rng = np.random.default_rng(seed)
        block_of_unit, stratum_of_block, first = np.empty(u, dtype=np.int64), [], 0
        for start, size in zip(self.starts.tolist(), self.sizes.tolist(), strict=True):
            count = min(size, max(20, round(JACKKNIFE_BLOCKS * size / u)))
            block_of_unit[start : start + size] = first + rng.permutation(size) % count
            stratum_of_block += [int(self.stratum[start])] * count
            first += count
        return block_of_unit, np.array(stratum_of_block)

    def leave_out(self, block_of_unit: IntArray, first: int, last: int) -> IntArray:
        """(last - first, U) unit weights, 0 for the units of one block per row."""
        return np.asarray(block_of_unit[None] != np.arange(first, last)[:, None], dtype=np.int64)


def group_weights(groups: Any, resamples: int, seed: Any, *, strata: Any = None) -> NDArray[np.int64]:
    """(1 + B, N) image weights: ones, then draws of whole groups, the number of groups of each stratum kept.

    For figures that need all weights at once, so that several scores meet the same draws; ``Plan`` draws in chunks.

    Args:
        groups: (N,) group of each image.
        resamples: B.
        seed: of the draws, as ``numpy.random.default_rng`` takes it.
        strata: (N,) stratum of each image, one value per group; one stratum where left out.

    Raises:
        ValueError: a group lies in two strata.
    """
    names, place = np.unique(groups, return_inverse=True)
    stratum = np.zeros(len(names), dtype=np.int64)
    if strata is not None:
        codes = np.unique(strata, return_inverse=True)[1]
        stratum[place] = codes
        if (stratum[place] != codes).any():
            raise ValueError("a group lies in two strata")
    rng = np.random.default_rng(seed)
    draws = np.zeros((resamples, len(names)), dtype=np.int64)
    for s in np.unique(stratum):
        own = np.flatnonzero(stratum == s)
        draws[:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=resamples)
    return np.vstack([np.ones(len(place), dtype=np.int64), draws[:, place]])


def _codes(values: Any, n: int, name: str) -> IntArray:
    array = np.asarray(values)
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), not {array.shape}")
    if array.dtype == object:
        array = array.astype(str)
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def chunks(total: int, width: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows that cover ``total`` rows of ``width``, each about ``CHUNK_ELEMENTS`` values."""
    step = max(1, CHUNK_ELEMENTS // max(width, 1))
    for first in range(0, total, step):
        yield first, min(first + step, total)


def run_chunks(
    work: Callable[[np.random.Generator, int, int], None],
    total: int,
    width: int,
    *,
    seed: int,
    workers: int | None,
    samples: int = 1,
) -> None:
    """Call ``work(rng, first, last)`` for each range of ``chunks``, whose generator is its own: threads change no draw.

    ``workers`` threads; where left out, as many as are worth their start for weights that ``samples`` samples share.
    """
    parts = list(chunks(total, width))
    seeds = np.random.SeedSequence(seed).spawn(len(parts))
    size = samples * total * width
    threads = min(len(parts), workers or (1 if size < 4_000_000 else min(4, processors())))

    def one(index: int) -> None:
        work(np.random.default_rng(seeds[index]), *parts[index])

    if threads <= 1:
        for index in range(len(parts)):
            one(index)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(one, range(len(parts))):
            continue


def acceleration(values: FloatArray, stratum: IntArray, count: FloatArray | None = None) -> float:
    """BCa acceleration from leave-one-out values (J,), centred within strata (Efron 1987; Davison & Hinkley 1997, 5.4).

    Args:
        values: metric without unit or block j; NaN values are left out.
        stratum: (J,) stratum of j.
        count: (J,) number of units that share the value, 1 where left out.
    """
    size = np.ones(len(values)) if count is None else count
    cubes = squares = 0.0
    for s in np.unique(stratum):
        keep = (stratum == s) & ~np.isnan(values) & (size > 0)
        v, k = values[keep], size[keep]
        units = k.sum()
        if units < 2:
            continue
        influence = (units - 1) * ((v * k).sum() / units - v)
        cubes += float((k * influence**3).sum() / units**3)
        squares += float((k * influence**2).sum() / units**2)
    # Equal leave-one-out values differ by rounding only; their skewness would be noise.
    return cubes / (6 * squares**1.5) if squares > 1e-24 else 0.0


def interval_ends(values: FloatArray, value: float, level: float, a: float | None) -> tuple[float, float]:
    """Ends of the percentile interval of replicates (B,), or of BCa with acceleration ``a``; NaN without replicates."""
    if not len(values):
        return float("nan"), float("nan")
    share = np.array([(1 - level) / 2, (1 + level) / 2])
    if a is not None and not np.isnan(value):
        from scipy.special import ndtr, ndtri

        # Rounding must not push replicates equal to the value to one side.
        near = SAME * max(1.0, abs(value))
        below = (np.mean(values < value - near) + np.mean(values <= value + near)) / 2
        z0 = ndtri(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values)))
        z = z0 + ndtri(share)
        share = ndtr(z0 + z / (1 - a * z))
    low, high = np.quantile(values, share)
    return float(low), float(high)
