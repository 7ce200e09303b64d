"""False alarms without drift and days until an alarm under drift, by simulation.

    python benchmarks/drift.py [--quick] [--out FILE]

A camera sends 200 images a day to a bundle whose reference holds 700. Scores are calibrated before the drift.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from workzone.metrics.proportions import clopper_pearson
from workzone.monitoring.daily import DriftSettings, judge
from workzone.monitoring.drift import DRIFT_TESTS
from workzone.monitoring.drift.psi import MODERATE
from workzone.monitoring.estimate import estimate
from workzone.monitoring.sequential import e_values
from workzone.monitoring.table import Log
from workzone.predictions import sigmoid

REFERENCE, PER_DAY, PREVALENCE, DIMENSIONS = 700, 200, 0.3, 16
HISTORY, AFTER = 7, 12
FIRST = date(2026, 3, 1)
World = Callable[[np.random.Generator, int, int], tuple[Any, Any, Any]]
"""Log-odds, embeddings and labels of n images on day k of the drift, 0 before it."""


def world(
    rng: np.random.Generator, n: int, *, prevalence: float = PREVALENCE, scale: float = 1.0, offset: float = 0.0,
    camera: float = 0.0, swapped: float = 0.0,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Two Gaussian classes, so that the log-odds are those of Bayes' rule at the usual prevalence.

    Args:
        rng: of the images.
        n: images.
        prevalence: share of roadwork; the bundle goes on believing in the usual one.
        scale: of the evidence in the images; below 1 they are harder, and the bundle knows it.
        offset: what the bundle adds to its log-odds by mistake.
        camera: shift of half of the dimensions of the embedding.
        swapped: share of the images without roadwork whose label now means roadwork.
    """
    y = rng.random(n) < prevalence
    d = 4.0 * scale
    evidence = np.where(y, 0.5, -0.5) * d + rng.normal(size=n) * np.sqrt(d)
    z = np.log(PREVALENCE / (1 - PREVALENCE)) + evidence + offset
    e = rng.normal(size=(n, DIMENSIONS))
    e[:, 0] += evidence / 2
    e[:, 1 : 1 + DIMENSIONS // 2] += camera
    return z, e, y | (rng.random(n) < swapped)


DRIFTS: dict[str, tuple[str, World]] = {
    "prevalence up": ("30 % to 45 % roadwork", lambda r, n, k: world(r, n, prevalence=0.45 if k else PREVALENCE)),
    "prevalence down": ("30 % to 18 %", lambda r, n, k: world(r, n, prevalence=0.18 if k else PREVALENCE)),
    "covariate": ("images 40 % less telling, and known to be", lambda r, n, k: world(r, n, scale=0.6 if k else 1.0)),
    "camera": ("half of the embedding moved by 0.3 sd", lambda r, n, k: world(r, n, camera=0.3 if k else 0.0)),
    "calibration": ("log-odds 0.7 too high", lambda r, n, k: world(r, n, offset=0.7 if k else 0.0)),
    "slow": ("log-odds 0.1 higher each day", lambda r, n, k: world(r, n, offset=0.1 * k)),
    "labels": ("5 % of the empty roads now count as roadwork", lambda r, n, k: world(r, n, swapped=0.05 if k else 0.0)),
}


def steady(rng: np.random.Generator, n: int, day: int) -> tuple[Any, Any, Any]:
    """No drift on any day."""
    return world(rng, n)


def make_log(rng: np.random.Generator, world_of: World, days: range, per_day: int) -> Log:
    """Predictions of these days; day 1 is the first with drift."""
    z, e, stamps = [], [], []
    for k in days:
        scores, embeddings, _ = world_of(rng, per_day, max(k, 0))
        z.append(scores)
        e.append(embeddings)
        stamps += [np.datetime64(FIRST + timedelta(days=k), "s")] * per_day
    p = sigmoid(np.concatenate(z))
    codes = np.where(p > 0.8, 1, np.where(p < 0.05, 0, -1))
    return Log(np.arange(len(p)).astype(str), np.array(stamps), p, codes, {}, np.concatenate(e))


def no_drift(resamples: int, days: int) -> dict[str, Any]:
    """False alarms over streams without drift, of the rules here and of fixed cut-offs."""
    found: dict[str, list[Any]] = {name: [] for name in ("off", "alarm", "psi above 0.1", "KS p below 0.05")}
    for seed in range(resamples):
        rng = np.random.default_rng(seed)
        reference = make_log(rng, steady, range(0, 1), REFERENCE)
        log = make_log(rng, steady, range(-HISTORY, days), PER_DAY)
        verdicts = judge(log, reference, DriftSettings(), today=FIRST + timedelta(days=days), days=days + 1)[:-1]
        found["off"].append([bool(d.off) for d in verdicts])
        found["alarm"].append([bool(d.alarms) for d in verdicts])
        frozen = [[t for t in d.tests if t.reference == "frozen" and t.signal == "probability"] for d in verdicts]
        found["psi above 0.1"].append([any(t.test == "psi" and t.statistic > MODERATE for t in f) for f in frozen])
        any_ks = [any(t.test == "ks" and t.p < 0.05 for t in d.tests) for d in verdicts]
        found["KS p below 0.05"].append(any_ks)
    table = {}
    for name, rows in found.items():
        hits = np.array(rows)
        streams = int(hits.any(axis=1).sum())
        table[name] = {
            "days": int(hits.size), "off": int(hits.sum()), "streams": resamples, "streams_off": streams,
            "share_of_streams": streams / resamples,
            "interval": [float(v) for v in clopper_pearson(streams, resamples)],
            "share_of_days": float(hits.mean()), "interval_of_days": _by_stream(hits),
        }  # fmt: skip
    return table


def _by_stream(hits: Any) -> list[float]:
    """95 % interval of the share of days, streams drawn whole since their days share a reference."""
    rng = np.random.default_rng(0)
    drawn = hits.mean(axis=1)[rng.integers(0, len(hits), (2000, len(hits)))].mean(axis=1)
    return [float(v) for v in np.quantile(drawn, [0.025, 0.975])]


def delay(name: str, resamples: int) -> dict[str, Any]:
    """Days from the begin of a drift to its alarm."""
    days, first_signal = [], []
    for seed in range(resamples):
        rng = np.random.default_rng(10_000 + seed)
        reference = make_log(rng, steady, range(0, 1), REFERENCE)
        log = make_log(rng, DRIFTS[name][1], range(1 - HISTORY, AFTER + 1), PER_DAY)
        today = FIRST + timedelta(days=AFTER + 1)
        verdicts = judge(log, reference, DriftSettings(), today=today, days=AFTER + 1)
        hit = [d for d in verdicts if d.alarms]
        days.append((hit[0].day - FIRST).days if hit else np.inf)
        first_signal += list(hit[0].alarms) if hit else []
    d = np.array(days)
    caught = int(np.isfinite(d).sum())
    drawn = d[np.random.default_rng(0).integers(0, len(d), (2000, len(d)))]
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975], method="nearest")
    signals = {s: first_signal.count(s) / resamples for s in dict.fromkeys(first_signal)}
    return {
        "drift": name, "what": DRIFTS[name][0], "streams": resamples, "caught": caught,
        "interval": [float(v) for v in clopper_pearson(caught, resamples)], "median_days": float(np.median(d)),
        "median_interval": [float(low), float(high)], "first_signals": signals,
    }  # fmt: skip


def sequential(streams: int, alpha: float = 0.02, delta: float = 0.05) -> dict[str, Any]:
    """False alarms of the sequential test at its limit, and its delay; besides, a fixed test repeated at each label."""
    from scipy.stats import binom

    rng = np.random.default_rng(1)
    x = (rng.random((streams, 10_000)) < alpha).astype(np.float64)
    ours = int((e_values(x, alpha).max(axis=1) >= 1 / delta).sum())
    p = binom.sf(np.cumsum(x, axis=1) - 1, np.arange(1, 10_001), alpha)
    repeated = int((p <= delta).any(axis=1).sum())
    rows = []
    for before in (0, 500, 5000):
        for rate in (0.04, 0.06, 0.10):
            n = min(streams, 300)
            limit = np.where(np.arange(before + 4000) < before, alpha / 2, rate)
            hit = e_values((rng.random((n, before + 4000)) < limit).astype(np.float64), alpha) >= 1 / delta
            late = hit[:, before:]
            wait = np.where(late.any(axis=1), late.argmax(axis=1) + 1.0, np.inf)
            q = np.quantile(wait, [0.1, 0.5, 0.9], method="nearest")
            rows.append({"before": before, "rate": rate, "streams": n, "wait": [float(v) for v in q]})
    return {
        "alpha": alpha, "delta": delta, "streams": streams, "steps": 10_000, "false": ours,
        "interval": [float(v) for v in clopper_pearson(ours, streams)], "repeated_false": repeated,
        "repeated_interval": [float(v) for v in clopper_pearson(repeated, streams)], "delays": rows,
    }  # fmt: skip


def unlabelled(windows: int) -> list[dict[str, Any]]:
    """How often the interval of the estimate without labels holds the true error rates, by kind of drift."""
    rows = []
    for name in ("none", *DRIFTS):
        held = {"accuracy": 0, "false_negative_rate": 0}
        for seed in range(windows):
            rng = np.random.default_rng(50_000 + seed)
            z, _, y = (steady if name == "none" else DRIFTS[name][1])(rng, 500, 7)
            p = sigmoid(z)
            codes = np.where(p > 0.8, 1, np.where(p < 0.05, 0, -1))
            rates = estimate(p, codes, seed=1_000_000 + seed).rates
            told = codes >= 0
            true = {"accuracy": (codes == y)[told].mean(), "false_negative_rate": (codes[y] == 0).mean()}
            for k in held:
                held[k] += int(rates[k].low <= true[k] <= rates[k].high)
        shares = {k: [v / windows, *map(float, clopper_pearson(v, windows))] for k, v in held.items()}
        rows.append({"drift": name, "windows": windows, **shares})
    return rows


def power(resamples: int) -> list[dict[str, Any]]:
    """Share of windows with p at or below 0.05, by test and size of the window."""
    rows = []
    for name, test in DRIFT_TESTS.items():
        for n in (100, 200, 1000):
            shares = []
            for shift in (0.0, 0.25, 0.5):
                hits = 0
                for seed in range(resamples):
                    rng = np.random.default_rng(seed)
                    if test.kind == "scores":
                        a, b = rng.normal(size=REFERENCE), rng.normal(shift, 1, n)
                    elif test.kind == "classes":
                        a = np.searchsorted([-1.0, 1.0], rng.normal(size=REFERENCE))
                        b = np.searchsorted([-1.0, 1.0], rng.normal(shift, 1, n))
                    else:
                        a = rng.normal(size=(REFERENCE, DIMENSIONS))
                        b = rng.normal(size=(n, DIMENSIONS)) + shift / np.sqrt(DIMENSIONS)
                    # Another seed: the same would draw permutations from the numbers that made the samples.
                    hits += test(a, b, seed=1_000_000 + seed).p <= 0.05
                shares.append([hits / resamples, *map(float, clopper_pearson(hits, resamples))])
            rows.append({"test": name, "n": n, "windows": resamples, "shares": shares})
    return rows


PARTS = ("sequential", "unlabelled", "power", "no_drift", "delays")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer streams")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    parser.add_argument("--out", type=Path, help="write the tables as JSON")
    args = parser.parse_args()
    begin, found = time.perf_counter(), {}
    for part in args.only:
        found[part] = globals()[f"show_{part}"](args.quick)
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"{time.perf_counter() - begin:.0f} s")


def show_sequential(quick: bool) -> dict[str, Any]:
    s = sequential(200 if quick else 1000)
    print(f"Limit {s['alpha']:.0%}, delta {s['delta']:g}, {s['streams']} streams of {s['steps']:,} labels at the limit")
    print(f"  e-process refutes {_share(s['false'], s['streams'])}")
    print(f"  test repeated at each label refutes {_share(s['repeated_false'], s['streams'])}")
    for r in s["delays"]:
        print(f"  after {r['before']:>4} labels at 1 %, rate {r['rate']:.0%}: 10, 50, 90 % of waits {r['wait']}")
    return s


def show_unlabelled(quick: bool) -> list[dict[str, Any]]:
    rows = unlabelled(30 if quick else 200)
    print(f"Estimate without labels, {rows[0]['windows']} windows of 500: how often the 95 % interval holds")
    for r in rows:
        print(f"  {r['drift']:<16} accuracy {_ends(r['accuracy'])}, FNR {_ends(r['false_negative_rate'])}", flush=True)
    return rows


def show_power(quick: bool) -> list[dict[str, Any]]:
    rows = power(10 if quick else 100)
    print(f"Share of {rows[0]['windows']} windows with p <= 0.05 at shift 0, 0.25, 0.5 sd")
    for r in rows:
        print(f"  {r['test']:<20} n {r['n']:>5}  {'  '.join(map(_ends, r['shares']))}", flush=True)
    return rows


def show_no_drift(quick: bool) -> dict[str, Any]:
    days = 10 if quick else 30
    table = no_drift(4 if quick else 40, days)
    print(f"No drift, streams of {days} days")
    for name, r in table.items():
        low, high = r["interval_of_days"]
        streams = _share(r["streams_off"], r["streams"])
        print(f"  {name:<16} days {r['share_of_days']:.3f} ({low:.3f} to {high:.3f}), streams {streams}", flush=True)
    return table


def show_delays(quick: bool) -> list[dict[str, Any]]:
    rows = []
    print(f"Days from the begin of a drift to its alarm, up to {AFTER}")
    for name in DRIFTS:
        r = delay(name, 4 if quick else 25)
        caught, signals = _share(r["caught"], r["streams"]), r["first_signals"]
        print(f"  {name:<16} caught {caught}, median {r['median_days']} {r['median_interval']}, {signals}", flush=True)
        rows.append(r)
    return rows


def _share(hits: int, n: int) -> str:
    low, high = clopper_pearson(hits, n)
    return f"{hits / n:.3f} ({low:.3f} to {high:.3f})"


def _ends(v: list[float]) -> str:
    return f"{v[0]:.2f} ({v[1]:.2f}-{v[2]:.2f})"


if __name__ == "__main__":
    main()
