"""Ranking against mean cost of cascades, on labelled street images by group-wise folds.

    python benchmarks/cascade.py --images FOLDER_OR_TABLE [--dinov2 FILE] [--sources a,b] [--trainings a,b] [--out FILE]

Of each fold the other images give training, selection and calibration roles as in a run; order of views, calibrators
and operating points come from the calibration images, and the scores of the left-out fold from the exported heads.
AUROC is that of each source, averaged ("macro"), with intervals over resampled groups. It is compared, paired, with the
dearest way through the same cascade when all heads are trained by cross-entropy. Frozen EfficientNet-Lite0 with default
views and with those of the preset small; with --dinov2 also DINOv2 ViT-S/14 as a larger model, whose pass costs --price
passes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from views import embedded

from workzone.bundle.cascade import chain_log_odds
from workzone.bundle.embedding import ViewEmbeddings
from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine
from workzone.config.load import load_config
from workzone.config.run import FuseConfig, ModelConfig, RunConfig
from workzone.config.views import ViewSpec
from workzone.data.manifest import Manifest
from workzone.data.roles import CalibData, Role
from workzone.data.sources.build import build_manifest
from workzone.data.splits import make_splits, open_role
from workzone.metrics.bootstrap import replicates
from workzone.pipeline.cascade import plan_chain
from workzone.predictions import logit
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator

SHARES = {Role.TRAIN: 0.7, Role.VAL_SELECT: 0.1, Role.VAL_CALIB: 0.2}
BUDGETS = "1,0.8,0.65,0.5,0.35,0.25,0.2,0.15,0.1"
POINTS = 40
LITE, PYRAMID, DINO = "Lite0", "Lite0, 3 x 3 and 5 x 5 tiles", "DINOv2-S"
CE = "cross-entropy"
TRAININGS: dict[str, dict[str, Any]] = {
    CE: {},
    "gatekeeper": {"loss": "gatekeeper"},
    "gatekeeper of exits": {"stages": (2, 4), "exit_loss": "gatekeeper"},
    "survival": {"stages": (2, 4), "loss": "cascade_survival(stages=3)"},
}
"""How the heads of the small model are trained; those of the large one by cross-entropy."""
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Chain:
    """A cascade: looks of each stage of each model, and whether later models add to the score of earlier ones."""

    looks: tuple[tuple[str, tuple[int, ...]], ...]
    mean: bool = False
    trainings: tuple[str, ...] = tuple(TRAININGS)
    focus: int = 0

    def __str__(self) -> str:
        name = " > ".join(f"{m} {', '.join(map(str, seen))}" for m, seen in self.looks)
        return f"{name}, mean" if self.mean else f"{name}, focus after {self.focus}" if self.focus else name


VIEWS = (
    Chain(((LITE, (2, 4, 10)),)),
    Chain(((LITE, (1, 4, 10)),), trainings=(CE,)),
    *(Chain(((PYRAMID, seen),), trainings=(CE,)) for seen in ((7, 14, 35), (4, 12, 35), (10, 35))),
    *(Chain(((PYRAMID, seen),), trainings=(CE,), focus=10) for seen in ((4, 10, 14, 35), (10, 12, 35))),
)
MODELS = (
    Chain(((LITE, (1, 10)), (DINO, (10,))), mean=True),
    Chain(((LITE, (1, 10)), (DINO, (10,))), trainings=(CE, "gatekeeper")),
)


@dataclass
class Curve:
    """Out-of-fold calibrated log-odds and costs of all images at each budget, and of the same looks for everyone."""

    scores: dict[float, Scores] = field(default_factory=dict)
    costs: dict[float, Scores] = field(default_factory=dict)
    uniform: dict[float, Scores] = field(default_factory=dict)
    stages: dict[float, Scores] = field(default_factory=dict)


@dataclass(frozen=True)
class HeadOnly:
    """An exported head that scores cached embeddings, where an engine is wanted."""

    aggregate: Callable[..., Any]


def score_fold(
    manifest: Manifest,
    views: dict[str, ViewEmbeddings],
    held: NDArray[np.bool_],
    config: RunConfig,
    head_settings: FuseConfig,
    prices: dict[str, float],
    trainings: list[str],
    budgets: list[float],
    curves: dict[tuple[Chain, str], Curve],
) -> None:
    """Fill the rows ``held`` of every curve from heads, calibrators and a plan that saw none of their groups."""
    import polars as pl

    rest = Manifest(manifest.frame.filter(pl.Series(~held)), manifest.root)
    splits = make_splits(rest, SHARES, seed=0, near_duplicates=False)
    row_of = {image_id: i for i, image_id in enumerate(manifest.frame["id"].to_list())}
    data = {role: open_role(rest, splits, role) for role in SHARES}
    rows = {role: np.array([row_of[i] for i in part.ids.tolist()]) for role, part in data.items()}
    calib = data[Role.VAL_CALIB]
    known = CalibData.from_arrays(calib.labels, np.zeros(len(calib)), groups=calib.groups, ids=calib.ids)

    def head(model: str, options: dict[str, Any]) -> HeadOnly:
        from workzone.export.onnx import export_head

        train, select = (_features(views[model], rows[r], data[r].labels, r) for r in (Role.TRAIN, Role.VAL_SELECT))
        fit = fit_aggregator(train, select, head_settings.model_copy(update=options), seed=0)
        with tempfile.TemporaryDirectory() as name:
            return HeadOnly(OnnxRuntimeEngine.open_head(export_head(fit.head, Path(name))))

    large = {model: head(model, {}) for model in views if model != LITE}
    for training in trainings:
        heads: dict[str, Any] = {LITE: head(LITE, TRAININGS[training]), **large}
        for (chain, wanted), curve in curves.items():
            if wanted != training:
                continue
            calibration = [(heads[m], views[m].take(rows[Role.VAL_CALIB])) for m, _ in chain.looks]
            test = [(heads[m], views[m].take(np.flatnonzero(held))) for m, _ in chain.looks]
            costs = [prices[m] for m, _ in chain.looks]
            looks = [seen for _, seen in chain.looks]
            kind = {"mean": chain.mean, "points": POINTS, "focus": chain.focus}
            plan, last = plan_chain(config, calibration, known, looks, costs, **kind)
            between, final = chain_log_odds(test, plan)
            p = last(final)
            for budget in budgets:
                point = plan.nearest(budget)
                if point < 0:
                    continue
                answer, stop = plan.walk(point, p, between)
                for store, value in (
                    (curve.scores, logit(answer)),
                    (curve.costs, plan.cost(stop, point)),
                    (curve.stages, stop.astype(float)),
                ):
                    store.setdefault(budget, np.full(len(held), np.nan))[held] = value
            for stage, name in enumerate(plan.names):
                same = logit(plan.calibrators[stage](between[name]))
                share = round(float(plan.shares[stage]), 4)
                curve.uniform.setdefault(share, np.full(len(held), np.nan))[held] = same


def _features(views: ViewEmbeddings, rows: Any, labels: NDArray[np.int64], role: Role) -> Features:
    some = views.take(rows)
    return Features(some.embeddings, some.boxes, some.mask, labels, role)


def folds(labels: NDArray[np.int64], groups: NDArray[np.str_], count: int) -> NDArray[np.int64]:
    """Fold (N,) of each image; groups stay whole and both classes are spread."""
    from sklearn.model_selection import StratifiedGroupKFold

    out = np.zeros(len(labels), dtype=np.int64)
    parts = StratifiedGroupKFold(count, shuffle=True, random_state=0).split(labels[:, None], labels, groups)
    for fold, (_, rows) in enumerate(parts):
        out[rows] = fold
    return out


def macro(
    labels: NDArray[np.int64],
    scores: Scores,
    sources: NDArray[np.str_],
    groups: NDArray[np.str_],
    names: list[str],
    b: int,
) -> tuple[float, Scores]:
    """AUROC averaged over sources, and its paired replicates (B,)."""
    from sklearn.metrics import roc_auc_score

    values, draws = [], []
    for name in names:
        here = sources == name
        values.append(roc_auc_score(labels[here], scores[here]))
        # Ranks keep the order and fit the range of a probability.
        ranks = np.unique(scores[here], return_inverse=True)[1].astype(float)
        ranks /= max(ranks.max(), 1.0)
        draws.append(replicates(["auroc"], labels[here], ranks, groups=groups[here], n_resamples=b)["auroc"])
    return float(np.mean(values)), np.mean(draws, axis=0)


def interval(draws: Scores) -> str:
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return f"{low:.3f} to {high:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--dinov2", type=Path, help="safetensors file of DINOv2 ViT-S/14 in timm's naming")
    parser.add_argument("--price", type=float, default=7.5, help="cost of a pass of DINOv2-S in passes of Lite0")
    parser.add_argument("--sources", default="", help="sources of the macro average; all with enough images")
    parser.add_argument("--trainings", default=",".join(TRAININGS), help=f"some of {', '.join(TRAININGS)}")
    parser.add_argument("--budgets", default=BUDGETS, help="shares of the full cost, 1 among them")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.images is None:
        print("No labelled street images come with workzone: give --images. Nothing was measured.")
        return
    manifest = build_manifest(args.images)
    frame = manifest.frame
    pyramid = ViewSpec(pyramid=((5, 5),))
    views = {LITE: embedded(manifest, ModelConfig(), ViewSpec()), PYRAMID: embedded(manifest, ModelConfig(), pyramid)}
    if args.dinov2:
        views[DINO] = embedded(manifest, ModelConfig(backbone="dinov2_vits14", weights=str(args.dinov2)), ViewSpec())
    labels = frame["label"].to_numpy().astype(np.int64)
    groups = np.array([str(g) for g in manifest.groups])
    sources = np.array([str(s) for s in frame["source"].to_list()])
    config = load_config([f"data={args.images}", "out=unused", "decide.policy=cascade", "calibrate.method=platt"])
    trainings = [t for t in TRAININGS if t == CE or t in args.trainings.split(",")]
    chains = [*VIEWS, *(MODELS if args.dinov2 else ())]
    curves = {(c, t): Curve() for c in chains for t in trainings if t in c.trainings}
    fold = folds(labels, groups, args.folds)
    budgets = sorted({1.0, *(float(b) for b in args.budgets.split(","))}, reverse=True)
    prices = {LITE: 1.0, PYRAMID: 1.0, DINO: args.price}
    settings = FuseConfig(members=args.members, epochs=args.epochs)
    for number in range(args.folds):
        score_fold(manifest, views, fold == number, config, settings, prices, trainings, budgets, curves)
        print(f"fold {number + 1} of {args.folds}", file=sys.stderr, flush=True)

    def enough(name: str) -> bool:
        positives = int(labels[sources == name].sum())
        return min(positives, int((sources == name).sum()) - positives) >= 9

    names = [s for s in args.sources.split(",") if s] or [s for s in np.unique(sources).tolist() if enough(s)]
    counts = {s: (int((sources == s).sum()), int(labels[sources == s].sum())) for s in names}
    print(f"{len(labels)} images, {len(np.unique(groups))} groups; macro over {counts} (images, roadwork)")
    head = ("cascade", "training", "budget", "cost", "macro AUROC", "share of the dearest way's", "95 %")
    print("| " + " | ".join((*head, "pooled AUROC", "NLL", "stages")) + " |")
    print("|" + "---|" * (len(head) + 3))
    rows = []
    for (chain, training), curve in curves.items():
        full, full_draws = macro(labels, curves[chain, CE].scores[1.0], sources, groups, names, args.resamples)
        lines = [(f"{b:g}", float(curve.costs[b].mean()), s, curve.stages[b]) for b, s in curve.scores.items()]
        lines += [("same for all", share, s, None) for share, s in curve.uniform.items()]
        for budget, cost, scores, stop in lines:
            value, draws = macro(labels, scores, sources, groups, names, args.resamples)
            pooled = macro(labels, scores, np.full(len(labels), "all"), groups, ["all"], 2)[0]
            nll = float(np.logaddexp(0.0, np.where(labels == 1, -scores, scores)).mean())
            last = int(max(s.max() for s in curve.stages.values()))
            shares = "" if stop is None else " ".join(f"{(stop == s).mean():.0%}" for s in range(1, last + 1))
            row = [str(chain), training, budget, f"{cost:.2f}", f"{value:.3f}", f"{value / full:.1%}"]
            rows.append([*row, interval(draws / full_draws), f"{pooled:.3f}", f"{nll:.3f}", shares])
            print("| " + " | ".join(rows[-1]) + " |", flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"n": len(labels), "sources": counts, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
