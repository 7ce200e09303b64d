"""One round of mining: does a head learn from pseudo-labels and reviewed hard negatives of an unlabelled pool?

    python benchmarks/mining.py --images LABELLED --pool UNLABELLED [--reviewed TEXT] [--splits 1] [--out FILE]

For each fold a teacher is trained on the labelled images outside the fold and calibrated (Platt) on those that stop
its training. It scores the pool; images that share a unit (group, copy, near duplicate) with the fold are left out.
Students are trained on the labelled images and what was mined, and all are judged on the fold, as in fusion.py: paired
draws of whole groups within their source, 95 %, not corrected for the number of rows.

Hard negatives need a person. --reviewed names a text in the column notes of the pool that says that somebody looked at
the image and saw no roadwork; among these the --budget highest scores are taken, with weight 2, and as a control as
many at random, with weight 1. Pseudo-labels take the whole pool, at a calibrated probability of --confidence.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from fusion import HEAD, PLAIN, Pool, compare, folds, left_out, part, read, show
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold
from views import embedded

from workzone import calibration
from workzone.config.run import FuseConfig, ModelConfig
from workzone.config.views import ViewSpec
from workzone.data.manifest import Manifest
from workzone.data.mining.select import pseudo_labels
from workzone.data.roles import CalibData, Role
from workzone.data.sources.build import build_manifest
from workzone.data.units import find_units
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator, score_features

WAYS = (PLAIN, "pseudo-labels, prior", "pseudo-labels, equal", "reviewed negatives at random",
        "reviewed hard negatives, weight 2", "pseudo-labels, prior, and hard negatives")  # fmt: skip
HARD_WEIGHT = 2.0


def joint_units(labelled: Manifest, pool: Manifest) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Units over both manifests together, of the labelled images and of the pool."""
    frames = [
        m.frame.select("id", "group", "sha256", "phash").with_columns(
            pl.lit(None, dtype=pl.Int8).alias("label"), pl.Series("path", [str(p) for p in m.paths])
        )
        for m in (labelled, pool)
    ]
    units = np.array(find_units(Manifest.from_frame(pl.concat(frames), root=Path("/"))), dtype=np.str_)
    return units[: len(labelled)], units[len(labelled) :]


def joined(train: Features, pool: Features, parts: list[tuple[Any, Any, float]]) -> Features:
    """``train`` with the pool images of each part: rows, labels, weight in the loss."""
    whole = [train, *(_few(pool, rows) for rows, _, _ in parts if len(rows))]
    weights = [np.ones(len(train)), *(np.full(len(rows), w) for rows, _, w in parts if len(rows))]
    labels = [train.labels, *(labels for rows, labels, _ in parts if len(rows))]
    names = ("embeddings", "boxes", "mask")
    stacked = {name: np.concatenate([getattr(w, name) for w in whole]) for name in names}
    weight = np.concatenate(weights).astype(np.float32)
    return replace(train, **stacked, labels=np.concatenate(labels), weights=weight, sets=None)


def _few(data: Features, rows: Any) -> Features:
    return Features(data.embeddings[rows], data.boxes[rows], data.mask[rows], data.labels[rows], data.role)


def one_fold(
    pool: Pool, extra: Features, usable: Any, seen: Any, rest: Any, test: Any, seed: int, args: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, int]]:
    """Scores of the images ``test`` by teacher and students, and what was mined."""
    labels, units = pool.images.labels[rest], pool.images.groups[rest]
    fit, stop = next(StratifiedGroupKFold(8, shuffle=True, random_state=seed).split(rest, labels, units))
    config = FuseConfig(**HEAD)
    train, select = part(pool, rest[fit], Role.TRAIN), part(pool, rest[stop], Role.VAL_SELECT)
    held = part(pool, test, Role.VAL_TEST)
    teacher = fit_aggregator(train, select, config, seed=seed).head
    platt = calibration.create("platt").fit(CalibData.from_arrays(select.labels, score_features(teacher, select)))
    p = np.asarray(platt(score_features(teacher, extra)))
    own = np.flatnonzero(usable)
    found = {b: pseudo_labels(p[own], confidence=args.confidence, balance=b) for b in ("prior", "equal")}  # type: ignore[arg-type]
    reviewed = np.flatnonzero(usable & seen)
    hard = reviewed[np.argsort(-p[reviewed], kind="stable")[: args.budget]]
    chance = np.random.default_rng(seed).permutation(reviewed)[: args.budget]
    pseudo = {b: (own[f.rows], f.labels, 1.0) for b, f in found.items()}
    mined = (hard, np.zeros(len(hard), dtype=np.int64), HARD_WEIGHT)
    plans = {
        "pseudo-labels, prior": [pseudo["prior"]],
        "pseudo-labels, equal": [pseudo["equal"]],
        "reviewed negatives at random": [(chance, np.zeros(len(chance), dtype=np.int64), 1.0)],
        "reviewed hard negatives, weight 2": [mined],
        # A person's word goes before a guess.
        "pseudo-labels, prior, and hard negatives": [_without(pseudo["prior"], hard), mined],
    }
    scores = {PLAIN: score_features(teacher, held)}
    for name, parts in plans.items():
        head = fit_aggregator(joined(train, extra, parts), select, config, seed=seed).head
        scores[name] = score_features(head, held)
    f = found["prior"]
    counts = {
        "usable": len(own), "pseudo_roadwork": int(f.labels.sum()), "pseudo_without": int((f.labels == 0).sum()),
        "hard": len(hard), "hard_above_half": int((p[hard] > 0.5).sum()),
        "pseudo_roadwork_reviewed_without": int(seen[own[f.rows]][f.labels == 1].sum()),
    }  # fmt: skip
    return scores, counts


def _without(chosen: tuple[Any, Any, float], rows: Any) -> tuple[Any, Any, float]:
    kept = ~np.isin(chosen[0], rows)
    return chosen[0][kept], chosen[1][kept], chosen[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="labelled folder or table")
    parser.add_argument("--pool", type=Path, help="unlabelled folder or table")
    parser.add_argument("--reviewed", default="label 0", help="text in the column notes of images seen to be negative")
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--budget", type=int, default=100, help="hard negatives")
    parser.add_argument("--components", type=int, default=256)
    parser.add_argument("--splits", type=int, default=1)
    parser.add_argument("--fewest", type=int, default=9)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.images is None or args.pool is None:
        print("this needs images of yours: --images and --pool")
        return
    import torch

    torch.set_num_threads(1)
    pool, labelled = read(args.images, 30, args.components)
    unlabelled = build_manifest(args.pool)
    views = embedded(unlabelled, ModelConfig(), ViewSpec())
    nothing = np.zeros(len(unlabelled), dtype=np.int64)
    extra = Features(pool.reduce(views), views.boxes, views.mask, nothing, Role.TRAIN)
    notes = unlabelled.frame["notes"].to_list() if "notes" in unlabelled.frame.columns else [""] * len(unlabelled)
    seen = np.array([args.reviewed in (n or "") for n in notes])
    units, theirs = joint_units(labelled, unlabelled)
    pool = replace(pool, images=replace(pool.images, groups=units))
    print(f"{len(labelled)} labelled, {len(unlabelled)} in the pool, {int(seen.sum())} of them reviewed", flush=True)
    stored: dict[str, Any] = {"labelled": len(labelled), "pool": len(unlabelled), "tables": {}, "mined": {}}
    jobs = {"folds": list(folds(pool, args.splits)), "source left out": [left_out(pool, args.fewest)]}
    for title, dealt in jobs.items():
        scores: dict[str, list[Any]] = {name: [] for name in WAYS}
        mined = []
        for deal in dealt:
            own = {name: np.full(len(labelled), np.nan) for name in WAYS}
            for rest, test, seed in deal:
                start = time.perf_counter()
                usable = ~np.isin(theirs, units[test])
                found, counts = one_fold(pool, extra, usable, seen, rest, test, seed, args)
                for name, z in found.items():
                    own[name][test] = z
                mined.append(counts)
                print(f"{title}: {time.perf_counter() - start:.0f} s, {counts}", flush=True)
            for name in WAYS:
                scores[name].append(own[name])
        table = compare(pool, scores, args.fewest, args.resamples)
        show(f"{title} (macro over {', '.join(pool.images.macro_sources(args.fewest))})", table)
        stored["mined"][title] = mined
        stored["tables"][title] = {
            name: {kind: {m: asdict(v) for m, v in row[kind].items()} for kind in row} for name, row in table.items()
        }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(stored, indent=2) + "\n")


if __name__ == "__main__":
    main()
