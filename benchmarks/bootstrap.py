"""Seconds for intervals of ten metrics: the vectorised bootstrap against a loop of scikit-learn calls.

    python benchmarks/bootstrap.py [--quick] [--out FILE]

Both sides resample all ten metrics (no exact intervals). The loop's time per resample is measured on few resamples
and scaled to the same number; the table says how many were run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from workzone.metrics import bootstrap

NAMES = ["accuracy", "precision", "recall", "f1", "mcc", "auroc", "average_precision", "brier", "nll", "augrc"]


def make_sample(n: int, seed: int = 0) -> tuple[Any, Any]:
    """Labels and calibrated probabilities of n images, AUROC about 0.93."""
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-rng.normal(-0.4, 3.0, n)))
    return (rng.random(n) < p).astype(np.int64), p


def augrc_by_roc(correct: Any, confidence: Any) -> float:
    """AUGRC through scikit-learn's AUROC and its identity (Traub et al. 2024, arXiv 2407.01032)."""
    from sklearn.metrics import roc_auc_score

    accuracy = float(np.mean(correct))
    if accuracy in (0.0, 1.0):
        return 0.5 * (1 - accuracy)
    return float((1 - roc_auc_score(correct, confidence)) * accuracy * (1 - accuracy) + 0.5 * (1 - accuracy) ** 2)


def sklearn_loop(y: Any, p: Any, resamples: int) -> Any:
    """Values (resamples, 10), one resample after another."""
    from sklearn import metrics as sk

    rng = np.random.default_rng(1)
    values = np.empty((resamples, len(NAMES)))
    for b in range(resamples):
        i = rng.integers(0, len(y), len(y))
        yb, pb = y[i], p[i]
        hat = (pb >= 0.5).astype(np.int64)
        values[b] = (
            sk.accuracy_score(yb, hat),
            sk.precision_score(yb, hat),
            sk.recall_score(yb, hat),
            sk.f1_score(yb, hat),
            sk.matthews_corrcoef(yb, hat),
            sk.roc_auc_score(yb, pb),
            sk.average_precision_score(yb, pb),
            sk.brier_score_loss(yb, pb),
            sk.log_loss(yb, pb),
            augrc_by_roc(yb == hat, np.maximum(pb, 1 - pb)),
        )
    return values


def measure(n: int, ours: int, loop: int, repeats: int) -> dict[str, Any]:
    y, p = make_sample(n)
    bootstrap(NAMES, y, p, n_resamples=2, exact_proportions=False)

    def best(**options: Any) -> tuple[float, float]:
        wall, cpu = [], []
        for _ in range(repeats):
            start, start_cpu = time.perf_counter(), time.process_time()
            bootstrap(NAMES, y, p, n_resamples=ours, exact_proportions=False, **options)
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
        return min(wall), min(cpu)

    sklearn_loop(y, p, 2)
    start, start_cpu = time.perf_counter(), time.process_time()
    sklearn_loop(y, p, loop)
    per_resample = (time.perf_counter() - start) / loop, (time.process_time() - start_cpu) / loop
    row: dict[str, Any] = {"n": n, "resamples": ours, "loop_resamples_run": loop}
    row |= {"loop_seconds": per_resample[0] * ours, "loop_cpu_seconds": per_resample[1] * ours}
    ways: dict[str, dict[str, Any]] = {
        "percentile": {},
        "percentile, 1 thread": {"workers": 1},
        "bca": {"method": "bca"},
    }
    row["ways"] = {}
    for name, options in ways.items():
        wall, cpu = best(**options)
        row["ways"][name] = {
            "seconds": wall,
            "cpu_seconds": cpu,
            "ratio": row["loop_seconds"] / wall,
            "cpu_ratio": row["loop_cpu_seconds"] / cpu,
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer resamples of the loop")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="sklearn")
    loops = (50, 3) if args.quick else (300, 10)
    rows = [measure(n, 1000, loop, 3 if args.quick else 5) for n, loop in zip((715, 100_000), loops, strict=True)]

    print(f"Intervals of {len(NAMES)} metrics on {os.cpu_count()} cores: {', '.join(NAMES)}")
    print(f"{'n':>8} {'B':>5}  {'way':<22} {'seconds':>8} {'CPU s':>8} {'ratio':>7} {'CPU ratio':>10}")
    for r in rows:
        size = f"{r['n']:>8} {r['resamples']:>5}"
        print(f"{size}  {'scikit-learn loop':<22} {r['loop_seconds']:>8.2f} {r['loop_cpu_seconds']:>8.2f}")
        for name, way in r["ways"].items():
            times = f"{way['seconds']:>8.3f} {way['cpu_seconds']:>8.3f} {way['ratio']:>7.0f} {way['cpu_ratio']:>10.0f}"
            print(f"{size}  {name:<22} {times}")
    runs = ", ".join(f"{r['loop_resamples_run']} at n = {r['n']}" for r in rows)
    print(f"The loop ran fewer resamples ({runs}); its time per resample is scaled to B. Ours: best of several runs.")
    print("On a busy machine compare the CPU times.")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        report = {"machine": platform.machine(), "cores": os.cpu_count(), "metrics": NAMES, "rows": rows}
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
