"""Ranking against mean cost of a cascade over the views of an image, on labelled street images by group-wise folds.

    python benchmarks/cascade.py --images FOLDER_OR_TABLE [--sources a,b] [--folds 5] [--members 3] [--out FILE]

Of each fold the other images give training, selection and calibration roles as in a run; order of views, calibrators
and operating points come from the calibration images, and the scores of the left-out fold from the exported head. AUROC
is that of each source, averaged ("macro"), with intervals over resampled groups, paired with the full model. Backbone:
frozen EfficientNet-Lite0, default views.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workzone import calibration
from workzone.bundle.cascade import stage_log_odds
from workzone.bundle.embedding import EmbeddingCache, ViewEmbeddings, default_cache_folder, embed_images
from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine
from workzone.config.load import load_config
from workzone.config.models import FuseConfig, ModelConfig, RunConfig
from workzone.data.manifest import Manifest
from workzone.data.roles import CalibData, Role
from workzone.data.sources.build import build_manifest
from workzone.data.splits import make_splits, open_role
from workzone.metrics.bootstrap import replicates
from workzone.pipeline.cascade import plan_cascade
from workzone.predictions import logit
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator
from workzone.vision import Preprocessing

SHARES = {Role.TRAIN: 0.7, Role.VAL_SELECT: 0.1, Role.VAL_CALIB: 0.2}
BUDGETS = (1.0, 0.8, 0.65, 0.5, 0.35, 0.25, 0.15, 0.1)
POINTS = 40
Scores = NDArray[np.float64]


@dataclass
class Curve:
    """Out-of-fold calibrated log-odds and costs of all images at each budget, and of the same views for everyone."""

    scores: dict[float, Scores] = field(default_factory=dict)
    costs: dict[float, Scores] = field(default_factory=dict)
    uniform: dict[float, Scores] = field(default_factory=dict)


def score_fold(
    manifest: Manifest,
    views: ViewEmbeddings,
    held: NDArray[np.bool_],
    backbone: Path,
    config: RunConfig,
    members: int,
    stages: dict[str, tuple[int, ...]],
    curves: dict[str, Curve],
) -> None:
    """Fill the rows ``held`` of every curve from a head, calibrators and a plan that saw none of their groups."""
    import polars as pl

    from workzone.export.onnx import export_head

    rest = Manifest(manifest.frame.filter(pl.Series(~held)), manifest.root)
    splits = make_splits(rest, SHARES, seed=0, near_duplicates=False)
    row_of = {image_id: i for i, image_id in enumerate(manifest.frame["id"].to_list())}
    parts, roles = {}, {}
    for role in SHARES:
        data = open_role(rest, splits, role)
        some = views.take(np.array([row_of[i] for i in data.ids.tolist()]))
        roles[role] = (data, some)
        parts[role] = Features(some.embeddings, some.boxes, some.mask, data.labels, role)
    fit = fit_aggregator(parts[Role.TRAIN], parts[Role.VAL_SELECT], FuseConfig(members=members), seed=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_head(fit.head, folder)
        (folder / "backbone.onnx").write_bytes(backbone.read_bytes())
        engine = OnnxRuntimeEngine.open(folder, threads=1)
        data, some = roles[Role.VAL_CALIB]
        scored = CalibData.from_arrays(
            data.labels,
            engine.aggregate(some.embeddings, some.boxes, some.mask).log_odds,
            groups=data.groups,
            ids=data.ids,
        )
        last = calibration.create("platt").fit(scored)
        test = views.take(np.flatnonzero(held))
        p = last(engine.aggregate(test.embeddings, test.boxes, test.mask).log_odds)
        for label, chosen in stages.items():
            decide = config.decide.model_copy(update={"stages": chosen})
            plan = plan_cascade(config.model_copy(update={"decide": decide}), engine, scored, some, last, points=POINTS)
            between = stage_log_odds(engine, test, plan)
            for budget in BUDGETS:
                point = plan.nearest(budget)
                if point < 0:
                    continue
                answer, stop = plan.walk(point, p, between)
                curve = curves[label]
                curve.scores.setdefault(budget, np.full(len(held), np.nan))[held] = logit(answer)
                curve.costs.setdefault(budget, np.full(len(held), np.nan))[held] = plan.cost(stop)
            for stage, name in enumerate(plan.names):
                same = logit(plan.calibrators[stage](between[name]))
                share = float(plan.shares[stage])
                curves[label].uniform.setdefault(share, np.full(len(held), np.nan))[held] = same


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
    parser.add_argument("--sources", default="", help="sources of the macro average; all with enough images")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, default=default_cache_folder() / "benchmarks" / "cascade")
    args = parser.parse_args()
    if args.images is None:
        print("No labelled street images come with workzone: give --images. Nothing was measured.")
        return

    from workzone.export.onnx import export_backbone
    from workzone.models.backbones import create_backbone

    backbone = create_backbone(ModelConfig())
    pre = Preprocessing(image_size=backbone.image_size)
    file = export_backbone(backbone, args.work / "onnx")
    engine = OnnxRuntimeEngine.open(args.work / "onnx", head=False)
    cache = EmbeddingCache(default_cache_folder(), engine, file, pre)
    manifest = build_manifest(args.images)
    frame = manifest.frame
    views = embed_images(
        [str(p) for p in manifest.paths],
        frame["sha256"].to_list(),
        engine,
        pre,
        cache=cache,
        workers=1,
        max_pixels=120_000_000,
        progress=lambda done, total: print(f"\rembedding {done}/{total}", end="", file=sys.stderr),
    )
    print(file=sys.stderr)
    labels = frame["label"].to_numpy().astype(np.int64)
    groups = np.array([str(g) for g in manifest.groups])
    sources = np.array([str(s) for s in frame["source"].to_list()])
    config = load_config([f"data={args.images}", "out=unused", "decide.policy=cascade", "calibrate.method=platt"])
    stages = {"1, 10": (1, 10), "1, 4, 10": (1, 4, 10), "2, 4, 10": (2, 4, 10), "2, 5, 10": (2, 5, 10)}
    curves = {label: Curve() for label in stages}
    fold = folds(labels, groups, args.folds)
    for number in range(args.folds):
        score_fold(manifest, views, fold == number, file, config, args.members, stages, curves)
        print(f"fold {number + 1} of {args.folds}", file=sys.stderr)

    def enough(name: str) -> bool:
        positives = int(labels[sources == name].sum())
        return min(positives, int((sources == name).sum()) - positives) >= 9

    names = [s for s in args.sources.split(",") if s] or [s for s in np.unique(sources).tolist() if enough(s)]
    counts = {s: (int((sources == s).sum()), int(labels[sources == s].sum())) for s in names}
    print(f"{len(labels)} images, {len(np.unique(groups))} groups; macro over {counts} (images, roadwork)")
    print("| stages | budget | cost | macro AUROC | share of the full model's | 95 % | pooled AUROC |")
    print("|---|---|---|---|---|---|---|")
    full, full_draws = macro(labels, curves["1, 10"].scores[1.0], sources, groups, names, args.resamples)
    rows = []
    for label, curve in curves.items():
        lines = [(f"{b:g}", float(curve.costs[b].mean()), s) for b, s in curve.scores.items()]
        lines += [("same views for all", share, s) for share, s in curve.uniform.items()]
        for budget, cost, scores in lines:
            value, draws = macro(labels, scores, sources, groups, names, args.resamples)
            pooled = macro(labels, scores, np.full(len(labels), "all"), groups, ["all"], 2)[0]
            row = [label, budget, f"{cost:.2f}", f"{value:.3f}", f"{value / full:.1%}", interval(draws / full_draws)]
            rows.append([*row, f"{pooled:.3f}"])
            print("| " + " | ".join(rows[-1]) + " |", flush=True)
    if args.out:
        args.out.write_text(json.dumps({"n": len(labels), "sources": counts, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
