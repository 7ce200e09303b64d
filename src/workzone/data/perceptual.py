"""Perceptual hash of pictures, pairs of near-equal hashes, and the union-find that turns pairs into clusters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import combinations, pairwise
from math import comb

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH_SIDE = 32
_LOW = 8
_BITS = _LOW * _LOW


@cache
def dct_matrix(n: int) -> NDArray[np.float64]:
    """(n, n) orthonormal DCT-II matrix; ``C @ x`` are the coefficients of ``x``."""
    k, x = np.mgrid[0:n, 0:n]
    matrix: NDArray[np.float64] = np.cos(np.pi * k * (2 * x + 1) / (2 * n)) * np.sqrt(2.0 / n)
    matrix[0] /= np.sqrt(2.0)
    matrix.setflags(write=False)
    return matrix


def grey_square(image: Image.Image, side: int = HASH_SIDE) -> NDArray[np.float32]:
    """(side, side) grey values of ``image`` squeezed to a square; 0 to 255."""
    grey = image.convert("L").resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(grey, dtype=np.float32)


def phash_bits(grey: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Perceptual hash of pictures as bits.

    The 8 x 8 lowest DCT coefficients of a 32 x 32 grey picture, each compared with the median of those that are not the
    mean grey value (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions").

    Args:
        grey: (N, 32, 32) grey values of any scale.

    Returns:
        (N, 64) bits.
    """
    if grey.ndim != 3 or grey.shape[1:] != (HASH_SIDE, HASH_SIDE):
        raise ValueError(f"grey must have shape (N, {HASH_SIDE}, {HASH_SIDE}), not {grey.shape}")
    rows = dct_matrix(HASH_SIDE)[:_LOW]
    low = (rows @ grey.astype(np.float64) @ rows.T).reshape(len(grey), _BITS)
    # Rounding hides the last-bit noise of different BLAS builds, which would flip the bits of flat pictures.
    low = np.round(low, 6)
    middle = (_BITS - 1) // 2
    median = np.partition(low[:, 1:], middle, axis=1)[:, middle : middle + 1]
    return np.asarray(low > median)


def phash(image: Image.Image) -> str:
    """Perceptual hash of one picture as 16 hex digits."""
    bits = phash_bits(grey_square(image)[None])
    return np.packbits(bits[0]).tobytes().hex()


def bits_from_hex(hashes: Sequence[str]) -> NDArray[np.bool_]:
    """(N, 64) bits of N hashes of 16 hex digits."""
    raw = np.frombuffer(b"".join(bytes.fromhex(h) for h in hashes), dtype=np.uint8)
    return np.unpackbits(raw.reshape(len(hashes), _BITS // 8), axis=1).astype(bool)


_ONES = np.array([bin(i).count("1") for i in range(1 << 16)], dtype=np.uint8)
_MOST_BITS = 16


def codes(hashes: Sequence[str]) -> NDArray[np.uint64]:
    """(N,) hashes of 16 hex digits as numbers."""
    return np.array([int(h, 16) for h in hashes], dtype=np.uint64)


def _distance(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
    return np.asarray(_ONES[(a ^ b).view(np.uint16)].reshape(-1, 4).sum(axis=1), dtype=np.int64)


def _plan(n: int, limit: int) -> tuple[int, int]:
    """Number of blocks that the bits are cut into, and how many of them must agree, for the least work."""
    best, least = (limit + 1, 1), float("inf")
    for kept in range(1, 5):
        blocks = limit + kept
        if blocks <= _BITS:
            # Per combination of blocks a sort, then the pairs that meet by chance.
            work = comb(blocks, kept) * n * (np.log2(n + 2) + n / 2 ** (_BITS * kept / blocks))
            if work < least:
                best, least = (blocks, kept), work
    return best


def unique_near_pairs(
    values: NDArray[np.uint64], limit: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield arrays ``i, j, distance`` of all pairs of different numbers that differ in ``limit`` bits or fewer.

    If 64 bits are cut into ``limit + k`` blocks, two numbers within ``limit`` agree in at least k of them, so sorting
    by each choice of k blocks brings every pair together (multi-index hashing: Norouzi, Punjani, Fleet 2012, arXiv
    1307.2982).

    Args:
        values: (N,) numbers, no two equal.
        limit: 0 to 16.

    Raises:
        ValueError: ``limit`` is out of range.
    """
    if not 0 <= limit <= _MOST_BITS:
        raise ValueError(f"limit must be 0 to {_MOST_BITS}")
    blocks, kept = _plan(len(values), limit)
    edges = np.linspace(0, _BITS, blocks + 1).round().astype(int)
    masks = [np.uint64(((1 << (high - low)) - 1) << low) for low, high in pairwise(edges.tolist())]
    for chosen in combinations(range(blocks), kept):
        key = values & np.bitwise_or.reduce(np.array([masks[i] for i in chosen], dtype=np.uint64))
        order = np.argsort(key, kind="stable")
        key = key[order]
        at = np.arange(len(key) - 1)
        step = 1
        while len(at := at[at + step < len(key)]) and len(at := at[key[at] == key[at + step]]):
            i, j = order[at], order[at + step]
            distance = _distance(values[i], values[j])
            near = distance <= limit
            i, j, distance = i[near], j[near], distance[near]
            # A pair that agrees in more than k blocks is met again: only its first choice counts.
            agree = sum(((values[i] ^ values[j]) & masks[b] == 0).astype(np.int64) for b in range(chosen[-1] + 1))
            first = np.asarray(agree == kept)
            if first.any():
                i, j = i[first], j[first]
                yield np.minimum(i, j), np.maximum(i, j), distance[first]
            step += 1


def near_pairs(
    hashes: Sequence[str], limit: int, *, apart: Sequence[int] | None = None
) -> Iterator[tuple[int, int, int]]:
    """Yield ``(i, j, distance)`` with ``i < j`` once for all pairs at Hamming distance ``limit`` or less, in no order.

    Args:
        hashes: (N,) hashes of 16 hex digits.
        limit: 0 to 16.
        apart: (N,) marks; only pairs with different ones are yielded, and others cost next to nothing.

    Raises:
        ValueError: ``limit`` is not 0 to 16.
    """
    values, members = _distinct(hashes)
    for same in members:
        if apart is None:
            yield from ((i, j, 0) for i, j in combinations(same, 2))
        else:
            by: dict[int, list[int]] = {}
            for i in same:
                by.setdefault(apart[i], []).append(i)
            for one, other in combinations(by.values(), 2):
                yield from ((min(i, j), max(i, j), 0) for i in one for j in other)
    for first, second, distance in unique_near_pairs(values, limit):
        for a, b, d in zip(first.tolist(), second.tolist(), distance.tolist(), strict=True):
            for i in members[a]:
                for j in members[b]:
                    if apart is None or apart[i] != apart[j]:
                        yield min(i, j), max(i, j), d


def near_edges(hashes: Sequence[str], limit: int) -> Iterator[tuple[int, int]]:
    """Yield few pairs that connect what ``near_pairs`` connects: equal hashes make a chain, not all their pairs.

    Raises:
        ValueError: ``limit`` is not 0 to 16.
    """
    values, members = _distinct(hashes)
    for same in members:
        yield from pairwise(same)
    for first, second, _ in unique_near_pairs(values, limit):
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            yield members[a][0], members[b][0]


def _distinct(hashes: Sequence[str]) -> tuple[NDArray[np.uint64], list[list[int]]]:
    """Different hashes as numbers, and the places of each, in order."""
    values, inverse = np.unique(codes(hashes), return_inverse=True)
    members: list[list[int]] = [[] for _ in range(len(values))]
    for i, place in enumerate(inverse.tolist()):
        members[place].append(i)
    return values, members


class UnionFind:
    """Disjoint sets over 0 to n - 1; the smallest member stands for its set."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def find(self, i: int) -> int:
        """Smallest member of the set of ``i``."""
        parent = self._parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def union(self, i: int, j: int) -> None:
        """Join the sets of ``i`` and ``j``."""
        a, b = self.find(i), self.find(j)
        self._parent[max(a, b)] = min(a, b)

    def join_equal(self, keys: Iterable[str | None]) -> None:
        """Join all members that have one key; None joins nothing."""
        first: dict[str, int] = {}
        for i, key in enumerate(keys):
            if key is not None:
                self.union(first.setdefault(key, i), i)
