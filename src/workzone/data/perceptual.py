"""Perceptual hash of pictures, pairs of near-equal hashes, and the union-find that turns pairs into clusters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache

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
    return np.asarray(low > np.median(low[:, 1:], axis=1, keepdims=True))


def phash(image: Image.Image) -> str:
    """Perceptual hash of one picture as 16 hex digits."""
    bits = phash_bits(grey_square(image)[None])
    return np.packbits(bits[0]).tobytes().hex()


def bits_from_hex(hashes: Sequence[str]) -> NDArray[np.bool_]:
    """(N, 64) bits of N hashes of 16 hex digits."""
    raw = np.frombuffer(b"".join(bytes.fromhex(h) for h in hashes), dtype=np.uint8)
    return np.unpackbits(raw.reshape(len(hashes), _BITS // 8), axis=1).astype(bool)


def hamming(first: str, second: str) -> int:
    """Number of differing bits of two hashes."""
    return (int(first, 16) ^ int(second, 16)).bit_count()


def near_pairs(hashes: Sequence[str], limit: int, *, chunk: int = 2048) -> Iterator[tuple[int, int, int]]:
    """Yield ``(i, j, distance)`` with ``i < j`` for all pairs at Hamming distance ``limit`` or less, in order.

    Memory is bounded by ``chunk`` squared.
    """
    # With signs for bits the distance is one matrix product: 64 - 2 d = s_i . s_j.
    signs = np.where(bits_from_hex(hashes), 1.0, -1.0).astype(np.float32)
    for a in range(0, len(signs), chunk):
        block = signs[a : a + chunk]
        for b in range(a, len(signs), chunk):
            product = block @ signs[b : b + chunk].T
            for i, j in np.argwhere(product >= _BITS - 2 * limit).tolist():
                if a + i < b + j:
                    yield a + i, b + j, round((_BITS - float(product[i, j])) / 2)


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
