"""Losses, optimisers, class balance and curriculum against the default, in the training of the head over views.

    python benchmarks/ablation_losses.py --images FOLDER_OR_TABLE [--out FILE] [--folds 3] [--seeds 2] [--only NAME ...]

Backbone: frozen EfficientNet-Lite0, default views. Group-wise cross-validation; figures are those of the left-out
images: macro AUROC over the sources that have both labels, and NLL as it is and after Platt scaling
on the selection images.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from views import embedded

from workzone import calibration
from workzone.config.run import FuseConfig, ModelConfig
from workzone.config.views import ViewSpec
from workzone.data.roles import CalibData, Role
from workzone.data.sources.build import build_manifest
from workzone.metrics.bootstrap import replicates
from workzone.predictions import sigmoid
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator, score_features

LOSSES = (
    "focal", "label_smoothing", "supcon+ce", "ce+0.1*koleo", "evidential", "gatekeeper", "lcron(items=batch)",
    "0.9*lcron(items=batch)+0.1*koleo", "0.5*lcron(items=batch)+0.5*ce", "cascade_survival",
)  # fmt: skip
OPTIMISERS = ("sam", "asam", "sophia", "schedule_free", "ademamix", "muon")
WAYS: dict[str, dict[str, Any]] = {
    "default (cross_entropy, adamw)": {},
    **{f"loss={name}": {"loss": name} for name in LOSSES},
    **{f"optimizer={name}": {"optimizer": name} for name in OPTIMISERS},
    "class_balance=weights": {"class_balance": "weights"},
    "class_balance=sampler": {"class_balance": "sampler"},
    "curriculum=0.5": {"curriculum": 0.5},
}


def read(images: Path) -> tuple[Features, NDArray[np.str_], NDArray[np.str_]]:
    """Features of all images with codes of their groups, groups and sources."""
    manifest = build_manifest(images)
    views = embedded(manifest, ModelConfig(), ViewSpec())
    labels = manifest.frame["label"].to_numpy().astype(np.int64)
    groups = np.array(manifest.frame["group"].to_list())
    codes = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    data = Features(views.embeddings, views.boxes, views.mask, labels, Role.TRAIN, groups=codes)
    return data, groups, np.array(manifest.frame["source"].to_list())


def take(data: Features, rows: NDArray[np.intp], role: Role) -> Features:
    assert data.groups is not None
    return Features(
        data.embeddings[rows], data.boxes[rows], data.mask[rows], data.labels[rows], role, groups=data.groups[rows]
    )


def out_of_fold(data: Features, options: dict[str, Any], folds: int, seed: int, epochs: int) -> NDArray[np.float64]:
    """Log-odds (2, N) of each image from a head that saw none of its group: as it is, and after Platt scaling."""
    from sklearn.model_selection import StratifiedGroupKFold

    config = FuseConfig(members=1, epochs=epochs, patience=10, **options)
    out = np.full((2, len(data)), np.nan)
    blank = np.zeros(len(data))
    for fold, (rest, test) in enumerate(
        StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(blank, data.labels, data.groups)
    ):
        inner = StratifiedGroupKFold(6, shuffle=True, random_state=fold)
        fit_rows, held_rows = next(inner.split(blank[rest], data.labels[rest], data.groups[rest]))
        held = take(data, rest[held_rows], Role.VAL_SELECT)
        fit = fit_aggregator(take(data, rest[fit_rows], Role.TRAIN), held, config, seed=1000 * seed + fold)
        platt = calibration.create("platt").fit(CalibData.from_arrays(held.labels, score_features(fit.head, held)))
        raw = score_features(fit.head, take(data, test, Role.VAL_TEST))
        p = np.clip(platt(raw), 1e-9, 1 - 1e-9)
        out[:, test] = raw, np.log(p) - np.log1p(-p)
    return out


def figures(
    data: Features, groups: NDArray[np.str_], sources: NDArray[np.str_], scores: NDArray[np.float64], resamples: int
) -> dict[str, NDArray[np.float64]]:
    """Each figure, as measured first and then as resampled by groups; equal draws for all ways."""
    y = data.labels
    found: dict[str, list[NDArray[np.float64]]] = {"auroc": [], "nll": [], "nll_platt": []}
    mixed = [s for s in np.unique(sources).tolist() if len(np.unique(y[sources == s])) == 2]
    for row, name in ((0, "nll"), (1, "nll_platt")):
        found[name].append(_draws("nll", y, sigmoid(scores[row]), groups, resamples))
    masks = [sources == s for s in mixed]
    by_source = [_draws("auroc", y[m], sigmoid(scores[0][m]), groups[m], resamples) for m in masks]
    found["auroc"].append(np.mean(by_source, axis=0))
    return {name: parts[0] for name, parts in found.items()}


def _draws(
    metric: str, y: NDArray[np.int64], p: NDArray[np.float64], groups: NDArray[np.str_], resamples: int
) -> NDArray[np.float64]:
    said = (p >= 0.5).astype(int)
    drawn = replicates((metric,), y, p, said, groups=groups, n_resamples=resamples)[metric]
    if metric == "nll":
        value = float(-np.mean(np.log(np.clip(np.where(y == 1, p, 1 - p), 1e-12, 1))))
    else:
        order = np.argsort(np.argsort(p, kind="stable"), kind="stable") + 1.0
        n1 = int(y.sum())
        value = float((order[y == 1].sum() - n1 * (n1 + 1) / 2) / (n1 * (len(y) - n1)))
    return np.concatenate([[value], drawn])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--only", nargs="*", default=[], help="ways whose name contains one of these words")
    args = parser.parse_args()
    if args.images is None:
        print("Pass --images with labelled street images; drawn ones say nothing about losses.")
        return
    data, groups, sources = read(args.images)
    rows: dict[str, dict[str, Any]] = {}
    base: dict[str, NDArray[np.float64]] = {}
    for name, options in WAYS.items():
        if options and args.only and not any(word in name for word in args.only):
            continue
        start = time.process_time()
        parts = []
        for seed in range(args.seeds):
            scores = out_of_fold(data, options, args.folds, seed, args.epochs)
            parts.append(figures(data, groups, sources, scores, args.resamples))
        mean = {metric: np.mean([p[metric] for p in parts], axis=0) for metric in parts[0]}
        base = base or mean
        rows[name] = {"cpu": time.process_time() - start}
        for metric, draws in mean.items():
            low, high = np.nanquantile(draws[1:] - base[metric][1:], [0.025, 0.975])
            rows[name][metric] = [draws[0], draws[0] - base[metric][0], low, high]
        say(line(name, rows[name]))
    head = {"images": len(data), "roadwork": int(data.labels.sum()), "groups": len(np.unique(groups)),
            "folds": args.folds, "seeds": args.seeds, "epochs": args.epochs, "resamples": args.resamples}  # fmt: skip
    print(", ".join(f"{k} {v}" for k, v in head.items()))
    print(
        "\n| way | macro AUROC | less default | NLL | less default | NLL after Platt | less default | CPU s |\n|"
        + "---|" * 8
    )
    for name, row in rows.items():
        print(line(name, row))
    if args.out:
        args.out.write_text(json.dumps({**head, "ways": rows}, indent=1))


def line(name: str, row: dict[str, Any]) -> str:
    def apart(metric: str) -> str:
        return "" if not any(row[metric][1:]) else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*row[metric][1:])

    cells = [cell for metric in ("auroc", "nll", "nll_platt") for cell in (f"{row[metric][0]:.3f}", apart(metric))]
    return f"| {name} | " + " | ".join([*cells, f"{row['cpu']:.0f}"]) + " |"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
