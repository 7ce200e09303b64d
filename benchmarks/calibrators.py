"""Seconds to fit every calibrator at n = 716: ours against the library a user would take, in one run.

    python benchmarks/calibrators.py [--n N] [--repeats R] [--out FILE]

Each row is the best of R fits. A ratio is given where a library installed here has the same method: scikit-learn
(CalibratedClassifierCV over a frozen classifier that returns the scores), betacal, or scipy on the published loss.
Members without a counterpart are in the total only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from workzone.calibration import CALIBRATORS, create
from workzone.calibration.base import log_probabilities
from workzone.data.roles import CalibData
from workzone.predictions import sigmoid


class Scores(ClassifierMixin, BaseEstimator):
    """A classifier whose one feature is its score."""

    def __init__(self) -> None:
        self.classes_ = np.array([0, 1])

    def fit(self, x: Any, y: Any) -> Scores:
        return self

    def decision_function(self, x: Any) -> Any:
        return x[:, 0]

    def predict(self, x: Any) -> Any:
        return (x[:, 0] > 0).astype(int)


def make_sample(n: int) -> CalibData:
    rng = np.random.default_rng(0)
    u = rng.normal(0.2, 3.0, n)
    hour, source = rng.choice(["day", "dusk", "night"], n), rng.choice(["a", "b"], n)
    labels = (rng.random(n) < sigmoid(0.5 * u - 0.6 + 0.5 * (hour == "night"))).astype(np.int64)
    return replace(CalibData.from_arrays(labels, u), columns={"hour_band": hour, "source": source})


def sklearn_fit(method: str, data: CalibData) -> Callable[[], Any]:
    x, y = data.scores[:, None], data.labels
    return lambda: CalibratedClassifierCV(FrozenEstimator(Scores()), method=method).fit(x, y)


def betacal_fit(data: CalibData) -> Callable[[], Any]:
    from betacal import BetaCalibration

    p = sigmoid(data.scores)
    return lambda: BetaCalibration("abm").fit(p, data.labels)


def softmax_loss(data: CalibData, matrix: bool, lam: float) -> Callable[[Any], Any]:
    """Mean NLL and gradient of ``softmax(W ln p + b)``, W full (Dirichlet) or diagonal (vector scaling)."""
    log_p, n, one_hot = log_probabilities(data.scores), len(data), np.eye(2)[data.labels]

    def loss(v: Any) -> Any:
        w, b = (v[:4].reshape(2, 2), v[4:]) if matrix else (np.diag(v[:2]), v[2:])
        z = log_p @ w.T + b
        z = z - z.max(axis=1, keepdims=True)
        q = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        g = (q - one_hot) / n
        off = w * (1 - np.eye(2))
        value = -np.mean(np.log(np.maximum(q[np.arange(n), data.labels], 1e-300)))
        slope = g.T @ log_p + lam * off
        return value + lam / 2 * np.sum(off**2) + lam / 2 * np.sum(b**2), np.r_[
            slope.ravel() if matrix else np.diagonal(slope), g.sum(axis=0) + lam * b
        ]

    return loss


def scipy_vector(data: CalibData) -> Callable[[], Any]:
    loss = softmax_loss(data, matrix=False, lam=0.0)
    return lambda: optimize.minimize(loss, [1.0, 1.0, 0.0, 0.0], jac=True, method="L-BFGS-B")


def scipy_dirichlet(data: CalibData) -> Callable[[], Any]:
    """The same grid walk and folds as ours: 15 penalties by 5 folds, then one fit on all images."""
    from workzone.calibration.dirichlet import PENALTIES

    fold_of = np.random.default_rng(0).integers(0, 5, len(data))
    start = np.r_[np.eye(2).ravel(), 0.0, 0.0]

    def run() -> Any:
        for lam in [*PENALTIES, *PENALTIES[:-1]]:
            for fold in range(5):
                loss = softmax_loss(data.take(fold_of != fold), matrix=True, lam=lam)
                optimize.minimize(loss, start, jac=True, method="L-BFGS-B")
        return optimize.minimize(softmax_loss(data, matrix=True, lam=1e-2), start, jac=True, method="L-BFGS-B")

    return run


def scipy_ets(data: CalibData) -> Callable[[], Any]:
    u, y = data.scores, data.labels

    def nll(p: Any) -> float:
        return float(-np.mean(np.log(np.clip(np.where(y == 1, p, 1 - p), 1e-12, 1))))

    def run() -> Any:
        t = optimize.minimize_scalar(lambda t: nll(sigmoid(u / t)), bounds=(0.05, 5), method="bounded").x
        parts = np.stack([sigmoid(u / t), sigmoid(u), np.full(len(u), 0.5)], axis=1)
        whole = {"type": "eq", "fun": lambda w: w.sum() - 1}
        return optimize.minimize(
            lambda w: nll(parts @ w), [1.0, 0.0, 0.0], bounds=[(0, 1)] * 3, constraints=whole, method="SLSQP"
        )

    return run


def peers(data: CalibData) -> dict[str, tuple[str, Callable[[], Any]]]:
    found = {
        "temperature": ("scikit-learn", sklearn_fit("temperature", data)),
        "platt": ("scikit-learn", sklearn_fit("sigmoid", data)),
        "isotonic": ("scikit-learn", sklearn_fit("isotonic", data)),
        "classwise_temperature": ("scikit-learn", sklearn_fit("temperature", data)),
        "vector": ("scipy", scipy_vector(data)),
        "dirichlet": ("scipy", scipy_dirichlet(data)),
        "ets": ("scipy", scipy_ets(data)),
    }
    try:
        found["beta"] = ("betacal", betacal_fit(data))
    except ImportError:
        print("betacal is not installed: no peer for beta")
    return found


def best(run: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Lowest wall and CPU seconds of ``repeats`` runs after one that is not counted."""
    run()
    wall, cpu = [], []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return min(wall), min(cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=716, help="calibration images")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    data = make_sample(args.n)
    known = peers(data)
    rows = []
    print(
        f"{'calibrator':<22} {'ms':>8} {'CPU ms':>8}  "
        f"{'peer':<13} {'ms':>8} {'CPU ms':>8} {'ratio':>6} {'CPU ratio':>9}"
    )
    for name in CALIBRATORS:
        wall, cpu = best(lambda name=name: create(name).fit(data), args.repeats)  # type: ignore[misc]
        row: dict[str, Any] = {"name": name, "seconds": wall, "cpu_seconds": cpu}
        line = f"{name:<22} {wall * 1e3:>8.2f} {cpu * 1e3:>8.2f}"
        if name in known:
            peer, run = known[name]
            peer_wall, peer_cpu = best(run, args.repeats)
            row |= {"peer": peer, "peer_seconds": peer_wall, "peer_cpu_seconds": peer_cpu}
            line += f"  {peer:<13} {peer_wall * 1e3:>8.2f} {peer_cpu * 1e3:>8.2f}"
            line += f" {peer_wall / wall:>6.1f} {peer_cpu / max(cpu, 1e-9):>9.1f}"
        print(line)
        rows.append(row)
    paired = [r for r in rows if "peer" in r]
    total, shared = (sum(r["seconds"] for r in group) for group in (rows, paired))
    theirs = sum(r["peer_seconds"] for r in paired)
    print(f"all {len(rows)} calibrators at n = {args.n}: {total:.3f} s (limit 2 s at n = 716)")
    print(f"the {len(paired)} with a peer: {shared:.3f} s, peers {theirs:.3f} s, ratio {theirs / shared:.1f}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        machine = {"machine": platform.machine(), "cores": os.cpu_count()}
        report = {**machine, "n": args.n, "rows": rows, "total_seconds": total, "ratio": theirs / shared}
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
