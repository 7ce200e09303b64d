"""How well measures of uncertainty and failure gates find mistakes, on labelled images that the heads have not seen.

    python benchmarks/failure_gate.py DATA [--seed S] [--members M] [--out FILE]

DATA is a folder or table as for ``workzone run data=``. The images are embedded with EfficientNet-Lite0 (global view
and a grid of 3 x 3 tiles; the feature cache is used). In five folds of whole groups, heads are trained on the others;
the scores, and with them the mistakes at probability 0.5, are out of fold. So are the scores of the gates.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workzone.bundle.embedding import EmbeddingCache, default_cache_folder, embed_images
from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine
from workzone.calibration.folds import group_folds
from workzone.config.run import FuseConfig, ModelConfig
from workzone.config.views import ViewSpec
from workzone.data.roles import Role
from workzone.data.sources.build import build_manifest
from workzone.decisions.failure import FailureModel, compare_measures
from workzone.decisions.uncertainty import from_samples, from_views
from workzone.export.onnx import export_backbone
from workzone.models.backbones import create_backbone
from workzone.models.uncertainty import member_log_odds, sample_log_odds
from workzone.predictions import sigmoid
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator
from workzone.training.gate import fit_mlp
from workzone.vision import Preprocessing
from workzone.vision.decode import MAX_PIXELS

FOLDS, INNER, PASSES = 5, 8, 20


def load(data: Path) -> tuple[Features, Any]:
    """Features of all labelled images, and their groups."""
    manifest = build_manifest(data)
    rows = manifest.frame["label"].is_not_null().to_numpy()
    frame = manifest.frame.filter(rows)
    paths = [path for path, keep in zip(manifest.paths, rows.tolist(), strict=True) if keep]
    groups = np.array([group for group, keep in zip(manifest.groups, rows.tolist(), strict=True) if keep])
    backbone = create_backbone(ModelConfig())
    pre = Preprocessing(image_size=backbone.image_size, views=ViewSpec())
    with tempfile.TemporaryDirectory() as work:
        export_backbone(backbone, Path(work) / "onnx")
        engine = OnnxRuntimeEngine.open(Path(work) / "onnx", head=False)
        cache = EmbeddingCache(default_cache_folder(), engine, Path(work) / "onnx" / engine.backbone_file, pre)
        views = embed_images(
            paths, frame["sha256"].to_list(), engine, pre, cache=cache, workers=2, max_pixels=MAX_PIXELS
        )
    labels = frame["label"].cast(int).to_numpy().astype(np.int64)
    return Features(views.embeddings, views.boxes, views.mask, labels, Role.TRAIN), groups


def part(data: Features, index: Any, role: Role) -> Features:
    return Features(data.embeddings[index], data.boxes[index], data.mask[index], data.labels[index], role)


def score(data: Features, groups: Any, config: FuseConfig, seed: int) -> tuple[Any, dict[str, Any]]:
    """Out of fold: probability (N,), and every measure (N,) by name."""
    n, rng = len(data), np.random.default_rng(seed)
    fold = group_folds(data.labels, groups, FOLDS, rng)
    log_odds, views = np.empty(n), np.full(data.mask.shape, np.nan)
    passes, members = np.empty((PASSES, n)), np.empty((config.members, n))
    for k in range(FOLDS):
        rest, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        inner = group_folds(data.labels[rest], groups[rest], INNER, rng)
        train, select = part(data, rest[inner != 0], Role.TRAIN), part(data, rest[inner == 0], Role.VAL_SELECT)
        head = fit_aggregator(train, select, config, seed=seed).head
        mask = torch.from_numpy(data.mask[held])
        x = torch.from_numpy(data.embeddings[held]), torch.from_numpy(data.boxes[held]), mask
        with torch.no_grad():
            total, per_view, _ = head(*x)
        log_odds[held] = total.numpy()
        views[held] = np.where(data.mask[held], per_view.numpy(), np.nan)
        passes[:, held] = sample_log_odds(head, *x, samples=PASSES, seed=seed)
        members[:, held] = member_log_odds(head, *x)
        print(f"fold {k + 1} of {FOLDS}", flush=True)
    probability = sigmoid(log_odds)
    measures = from_views(probability, views, data.embeddings)
    measures["dropout mutual information"] = from_samples(sigmoid(passes))[1]["mutual_information"]
    measures["member mutual information"] = from_samples(sigmoid(members))[1]["mutual_information"]
    return probability, measures


def show(table: dict[str, Any]) -> None:
    """The table as Markdown."""
    print(
        f"{table['n']} images in {table['groups']} groups, {table['mistakes']} mistakes, {table['resamples']} resamples"
    )
    print("| | AUROC | AUPRC | AUGRC | AUROC against max-probability | better |")
    print("|---|---|---|---|---|---|")
    for row in table["rows"]:
        cells = [f"{v['value']:.3f} ({v['low']:.3f} to {v['high']:.3f})" for v in (row[k] for k in ("auroc", "auprc"))]
        a, d = row["augrc"], row["difference"]["auroc"]
        cells += [f"{a['value']:.4f} ({a['low']:.4f} to {a['high']:.4f})"]
        cells += [f"{d['value']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})", "yes" if row["better"] else "no"]
        print(f"| {row['name'].replace('_', ' ')} | {' | '.join(cells)} |")
    print(table["sentence"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, nargs="?", help="folder or table of labelled images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--members", type=int, default=3, help="heads trained and averaged in each fold")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args()
    if args.data is None:
        print("no DATA given: drawn scenes would say nothing about the mistakes of real ones, so nothing is measured")
        return
    data, groups = load(args.data)
    print(f"{len(data)} images embedded", flush=True)
    probability, measures = score(data, groups, FuseConfig(members=args.members), args.seed)
    wrong = (probability >= 0.5) != (data.labels == 1)
    models = {"logistic": FailureModel.fit, "mlp": partial(fit_mlp, seed=args.seed)}
    table = compare_measures(measures, wrong, groups, models=models)
    show(table)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
