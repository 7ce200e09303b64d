"""Seconds from geotagged decisions to events, and how they grow: 100,000 to a million decisions of drawn drives.

    python benchmarks/maps.py [--most N] [--out FILE]

Streets are drawn lines in a town that grows with the number of decisions; about a tenth of them lies near a work zone.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from workzone.maps import EventSettings, Sightings, find_events

ZONES, STREETS, DAYS = 80, 60, 30


def drives(n: int, seed: int = 0) -> Sightings:
    """n decisions along drawn streets."""
    rng = np.random.default_rng(seed)
    streets = rng.random((STREETS, 4))

    def on_street(count: int) -> np.ndarray:
        part, street = rng.random((count, 1)), streets[rng.integers(0, STREETS, count)]
        return street[:, :2] * (1 - part) + street[:, 2:] * part

    from scipy.spatial import cKDTree

    place = on_street(n)
    near = cKDTree(on_street(ZONES)).query(place)[0] < 0.006
    p = np.where(near, rng.beta(8, 2, n), rng.beta(1, 12, n))
    decision = np.where(p > 0.8, "roadwork", np.where(p < 0.35, "no_roadwork", "abstain"))
    day, van = rng.integers(0, DAYS, n), rng.integers(0, 20, n)
    side = 0.08 * (n / 100_000) ** 0.5
    return Sightings(
        50.0 + side * place[:, 1],
        8.0 + 1.5 * side * place[:, 0],
        1.77e9 + 86_400.0 * day + rng.integers(0, 50_000, n),
        p,
        decision,
        np.char.add("van", (20 * day + van).astype(str)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--most", type=int, default=1_000_000, help="decisions of the largest run")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args()
    rows = []
    print(f"{'decisions':>10} {'places':>7} {'seconds':>8} {'us each':>8}")
    for n in (args.most // 10, args.most // 3, args.most):
        seen = drives(n)
        start = time.perf_counter()
        events = find_events(seen, EventSettings())
        seconds = time.perf_counter() - start
        rows.append({"decisions": n, "places": len(events), "seconds": seconds})
        print(f"{n:>10,} {len(events):>7} {seconds:>8.2f} {1e6 * seconds / n:>8.2f}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
