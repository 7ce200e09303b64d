"""Seconds and memory for AUGRC, AURC and the risk-coverage curve of a million images, against scikit-learn's ROC.

    python benchmarks/selective.py [--n N] [--out FILE]

scikit-learn has no risk-coverage curve; ``roc_auc_score`` of the same ranking sorts the same numbers once and gives
AUGRC through its identity, so it is the nearest thing to take. Memory is the peak of allocated arrays, by tracemalloc.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workzone.metrics import augrc, aurc, bootstrap, risk_coverage_curve


def measured(work: Callable[[], Any], repeats: int = 3) -> dict[str, float]:
    """Best wall and CPU seconds of ``repeats`` runs, and the peak of one more in MB."""
    wall, cpu = [], []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return {"seconds": min(wall), "cpu_seconds": min(cpu), "peak_mb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=1_000_000, help="images")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args()
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    p = 1 / (1 + np.exp(-rng.normal(-0.4, 3.0, args.n)))
    y = (rng.random(args.n) < p).astype(np.int64)
    confidence = np.maximum(p, 1 - p)
    correct = (p >= 0.5) == (y == 1)
    rows = {
        "scikit-learn roc_auc_score": measured(lambda: roc_auc_score(correct, confidence)),
        "augrc": measured(lambda: augrc(correct, confidence)),
        "aurc": measured(lambda: aurc(correct, confidence)),
        "risk_coverage_curve": measured(lambda: risk_coverage_curve(correct, confidence)),
        "bootstrap of mcc, auroc, augrc (20 resamples)": measured(
            lambda: bootstrap(["mcc", "auroc", "augrc"], y, p, n_resamples=20), repeats=1
        ),
    }
    peer = rows["scikit-learn roc_auc_score"]["cpu_seconds"]
    print(f"n = {args.n}")
    print(f"{'way':<48} {'seconds':>8} {'CPU s':>8} {'CPU ratio':>10} {'peak MB':>8}")
    for name, r in rows.items():
        ratio = f"{peer / r['cpu_seconds']:>10.2f}"
        print(f"{name:<48} {r['seconds']:>8.3f} {r['cpu_seconds']:>8.3f} {ratio} {r['peak_mb']:>8.0f}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"n": args.n, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
