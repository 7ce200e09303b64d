"""Seconds to find all near-equal perceptual hashes: the index against comparing all pairs.

    python benchmarks/duplicates.py [--quick] [--out FILE]

Hashes are random, with planted pairs that differ in one to limit + 1 bits. All pairs are compared in blocks on a part
of the hashes and scaled to the whole by the square.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from workzone.data.perceptual import UnionFind, near_edges, unique_near_pairs


def make_hashes(n: int, planted: int, limit: int, seed: int = 0) -> tuple[Any, set[tuple[int, int]]]:
    """(n,) different numbers, and the planted pairs within ``limit`` bits."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**64, n, dtype=np.uint64)
    pairs = set()
    for k in range(planted):
        bits = rng.choice(64, int(rng.integers(1, limit + 2)), replace=False)
        values[2 * k + 1] = values[2 * k] ^ np.bitwise_or.reduce(np.left_shift(np.uint64(1), bits.astype(np.uint64)))
        if len(bits) <= limit:
            pairs.add((2 * k, 2 * k + 1))
    return values, pairs


def all_pairs(values: Any, limit: int, block: int = 2048) -> int:
    """Number of near pairs by comparing each with each."""
    signs = np.where(np.unpackbits(values.view(np.uint8).reshape(-1, 8), axis=1) > 0, 1, -1).astype(np.float32)
    found = 0
    for a in range(0, len(signs), block):
        for b in range(a, len(signs), block):
            near = signs[a : a + block] @ signs[b : b + block].T >= 64 - 2 * limit
            found += int(np.triu(near, 1).sum()) if a == b else int(near.sum())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 000 hashes instead of 1 000 000")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    n, part = (100_000, 5_000) if args.quick else (1_000_000, 20_000)
    rows = []
    print(f"{'hashes':>9} {'bits':>4} {'index s':>8} {'all pairs s':>11} {'ratio':>7} {'planted':>8} {'found':>6}")
    for limit in (4, 6):
        values, planted = make_hashes(n, n // 100, limit)
        start = time.perf_counter()
        found = {(int(i), int(j)) for a, b, _ in unique_near_pairs(values, limit) for i, j in zip(a, b, strict=True)}
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        all_pairs(values[-part:], limit)
        scaled = (time.perf_counter() - start) * (n / part) ** 2
        row = {"hashes": n, "bits": limit, "index": seconds, "all_pairs_scaled": scaled, "compared": part}
        rows.append(row | {"planted": len(planted), "found": len(planted & found)})
        print(
            f"{n:>9} {limit:>4} {seconds:>8.2f} {scaled:>11.0f} {scaled / seconds:>7.0f} {len(planted):>8} "
            f"{len(planted & found):>6}"
        )
    hashes = [f"{v:016x}" for v in values.tolist()]
    start = time.perf_counter()
    sets = UnionFind(n)
    for i, j in near_edges(hashes, 4):
        sets.union(i, j)
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"clusters of {n} hashes from text, 4 bits: {seconds:.1f} s; most memory of the process: {memory:.0f} MiB")
    if args.out:
        args.out.write_text(json.dumps({"rows": rows, "clusters_seconds": seconds, "memory_mib": memory}, indent=2))


if __name__ == "__main__":
    main()
