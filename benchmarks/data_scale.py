"""Time per 100,000 rows and memory of import, hashing, clustering, splitting and audit, and how they grow.

    python benchmarks/data_scale.py [--quick] [--most 1000000] [--steps import ...] [--out FILE]

Each figure is a process of its own: processor seconds of all its threads, wall seconds, and its largest resident
memory. `growth` is the exponent of the time between a size and the one before it: 1 is linear, 2 is quadratic. Import
reads a table whose rows share 2,000 files of 64 x 48 pixels, each row opening its file anew, so it is the work for each
row and not the size of photographs; `import, nothing opened` is handed the facts of each file, which leaves the rows.
Hashing takes pictures that are decoded already. Clustering takes random hashes with one planted pair in a hundred.
Splitting takes groups of 20 rows and ten sources. The audit takes files of different content, half of them in either
role, with one crop of another file in a hundred; beyond 1,000 images it uses an index, where `audit, all pairs`
compares all pairs.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from duplicates import make_hashes
from PIL import Image

FILES = 2000
SIZES: dict[str, tuple[int, ...]] = {
    "import": (10_000, 100_000, 1_000_000),
    "import, nothing opened": (10_000, 100_000, 1_000_000),
    "hashing": (10_000, 30_000, 100_000),
    "clustering": (10_000, 100_000, 1_000_000),
    "split": (10_000, 100_000, 1_000_000),
    "audit": (4_000, 8_000, 16_000, 100_000),
    "audit, all pairs": (1_000, 2_000, 4_000),
}
QUICK = {step: sizes[0] for step, sizes in SIZES.items()}


def pictures(folder: Path, count: int, size: tuple[int, int] = (64, 48)) -> list[Path]:
    """Files of blurred noise, each of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(count):
        coarse = np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        paths.append(folder / f"{i}.jpg")
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(paths[-1], quality=85)
    return paths


def do_import(rows: int, work: Path) -> Callable[[], object]:
    from workzone.data.sources.importing import import_source
    from workzone.data.sources.table import TableSource

    paths = pictures(work / "images", min(rows, FILES))
    table = pl.DataFrame({"id": pl.Series(range(rows)).cast(pl.String())}).with_columns(
        pl.Series("path", [str(paths[i % len(paths)]) for i in range(rows)]),
        pl.Series("label", [i % 5 == 0 for i in range(rows)]).cast(pl.Int8),
        pl.Series("group", [f"g{i // 20}" for i in range(rows)]),
        pl.Series("source", [f"s{i % 10}" for i in range(rows)]),
    )
    table.write_parquet(work / "rows.parquet")
    del table
    return lambda: import_source(TableSource(), work / "rows.parquet", work / "out", workers=1)


def do_import_rows(rows: int, work: Path) -> Callable[[], object]:
    from workzone.data.sources import importing
    from workzone.data.sources.build import Facts, read_facts

    run = do_import(rows, work)
    facts = {str(p): read_facts(p) for p in (work / "images").iterdir()}

    def known(image: Path | bytes, *, max_pixels: int = 0) -> Facts:
        return facts[str(image)]

    importing.read_facts = known
    return run


def do_hashing(rows: int, work: Path) -> Callable[[], object]:
    from workzone.data.perceptual import phash

    loaded = [Image.open(p).copy() for p in pictures(work / "images", 200, (640, 480))]
    return lambda: [phash(loaded[i % len(loaded)]) for i in range(rows)]


def do_clustering(rows: int, work: Path) -> Callable[[], object]:
    from workzone.data.perceptual import UnionFind, near_edges

    hashes = [f"{v:016x}" for v in make_hashes(rows, rows // 100, 4)[0].tolist()]

    def run() -> None:
        sets = UnionFind(rows)
        for i, j in near_edges(hashes, 4):
            sets.union(i, j)

    return run


def do_split(rows: int, work: Path) -> Callable[[], object]:
    from workzone.data.manifest import Manifest
    from workzone.data.splits import make_splits

    values = make_hashes(rows, rows // 100, 4)[0].tolist()
    frame = pl.DataFrame(
        {
            "id": [str(i) for i in range(rows)],
            "path": [f"{i}.jpg" for i in range(rows)],
            "label": pl.Series([int(i % 7 == 0) for i in range(rows)], dtype=pl.Int8()),
            "group": [f"g{i // 20}" for i in range(rows)],
            "source": [f"s{i // 20 % 10}" for i in range(rows)],
            "phash": [f"{v:016x}" for v in values],
            "sha256": [f"{v:064x}" for v in values],
        }
    )
    manifest = Manifest.from_frame(frame, root=work)
    return lambda: make_splits(manifest)


def do_audit(rows: int, work: Path) -> Callable[[], object]:
    """Every hundredth picture is a crop of the one before it, which has the other role."""
    from workzone.data.audit.run import audit
    from workzone.data.manifest import Manifest
    from workzone.data.roles import Role
    from workzone.data.splits import Splits

    paths = pictures(work / "images", rows)
    planted = range(1, rows, 100)
    for i in planted:
        with Image.open(paths[i - 1]) as whole:
            width, height = whole.size
            box = (width // 8, height // 10, width - width // 10, height - height // 8)
            whole.crop(box).resize((64, 48), Image.Resampling.BICUBIC).save(paths[i], quality=85)
    ids = [p.stem for p in paths]
    frame = pl.DataFrame({"id": ids, "path": [str(p) for p in paths]}).with_columns(
        pl.lit(0, dtype=pl.Int8).alias("label"), pl.Series("group", ids)
    )
    manifest = Manifest.from_frame(frame, root=work)
    splits = Splits({i: (Role.TRAIN, Role.VAL_TEST)[int(i) % 2] for i in ids})

    def run() -> dict[str, int]:
        pairs = {frozenset((f.id_a, f.id_b)) for f in audit(manifest, splits, workers=1).findings}
        true = {frozenset((str(i - 1), str(i))) for i in planted}
        return {"planted": len(true), "found": len(true & pairs), "others": len(pairs - true)}

    return run


def do_audit_all_pairs(rows: int, work: Path) -> Callable[[], object]:
    from functools import partial

    from workzone.data import audit

    audit.find_matches = partial(audit.find_matches, exact_up_to=rows)  # type: ignore[assignment]
    return do_audit(rows, work)


STEPS: dict[str, Callable[[int, Path], Callable[[], object]]] = {
    "import": do_import,
    "import, nothing opened": do_import_rows,
    "hashing": do_hashing,
    "clustering": do_clustering,
    "split": do_split,
    "audit": do_audit,
    "audit, all pairs": do_audit_all_pairs,
}


def measure(step: str, rows: int) -> dict[str, float]:
    """Seconds and memory of one step in this process, and counts of what was planted and found."""
    with tempfile.TemporaryDirectory() as work:
        run = STEPS[step](rows, Path(work))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        wall, processor = time.perf_counter(), time.process_time()
        told = run()
        counts = told if isinstance(told, dict) else {}
        return {
            **counts, "rows": rows, "wall": time.perf_counter() - wall, "cpu": time.process_time() - processor,
            "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "mib_before": before,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest size of each step")
    parser.add_argument("--most", type=int, default=1_000_000, help="largest number of rows")
    parser.add_argument("--steps", nargs="*", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--one", nargs=2, metavar=("STEP", "ROWS"), help="measure one step here and print JSON")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]))))
        return
    rows: list[dict[str, Any]] = []
    head = ("step", "rows", "CPU seconds", "CPU seconds per 100,000", "growth", "MiB before", "MiB at most")
    print(f"| {' | '.join(head)} | planted, found, others |")
    print("|---|---|---|---|---|---|---|---|")
    for step in args.steps:
        before: dict[str, float] | None = None
        for size in (QUICK[step],) if args.quick else SIZES[step]:
            if size > args.most:
                continue
            command = [sys.executable, __file__, "--one", step, str(size)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            growth = "" if before is None else math.log(found["cpu"] / before["cpu"]) / math.log(size / before["rows"])
            each = found["cpu"] / size * 100_000
            counts = ", ".join(str(found[k]) for k in ("planted", "found", "others") if k in found)
            print(
                f"| {step} | {size:,} | {found['cpu']:.1f} | {each:.1f} | "
                f"{growth and format(growth, '.2f')} | {found['mib_before']:.0f} | {found['mib']:.0f} | {counts} |",
                flush=True,
            )
            rows.append({"step": step, **found})
            before = found
    if args.out:
        args.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
