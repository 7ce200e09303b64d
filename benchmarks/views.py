"""Whole image, views, resolutions, poolings, aggregators and two backbones, on the same folds of frozen features.

    python benchmarks/views.py --images FOLDER_OR_TABLE [--dinov2 FILE] [--splits 2] [--first 0] [--rows NAME ...]
        [--work FOLDER] [--out FILE]

Every image is scored by heads that saw none of its group: five folds of whole groups, dealt --splits times. Macro is
the mean over the sources with nine images of each class or more. Intervals: paired draws of whole groups within their
source, 95 %, not corrected for the number of rows. Passes are those of EfficientNet-Lite0 at 224 px that cost as much.
Sizes are height x width in pixels. --rows takes some rows only (the whole image and the MIL head are always there);
--work keeps the scores of finished rows and reads them again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from workzone.bundle.embedding import EmbeddingCache, ViewEmbeddings, default_cache_folder, embed_images
from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine
from workzone.config.run import FuseConfig, ModelConfig
from workzone.config.views import ViewSpec
from workzone.data.manifest import Manifest
from workzone.data.roles import Role
from workzone.data.sources.build import build_manifest
from workzone.files import atomic_path
from workzone.metrics.resampling import group_weights
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator, score_features
from workzone.tuning.judge import Figure, Images, figure, judge
from workzone.vision import Preprocessing

LITE, LITE2, DINO = "efficientnet_lite0", "efficientnet_lite2", "dinov2_vits14"
METRICS = ("macro_auroc", "auroc", "nll", "mcc")
WHOLE, MIL = "whole image", "MIL head"
GRID, PYRAMID = "top-k mean, mean and max of cells", "3 x 3 and 5 x 5 tiles"
MIDDLE = (0, 4, 5, 6)
"""The whole image and the middle row of its tiles."""


def embedded(manifest: Manifest, model: ModelConfig, views: ViewSpec) -> ViewEmbeddings:
    """Embeddings of all images, from the cache where they are known."""
    from workzone.export.onnx import export_backbone
    from workzone.models.backbones import create_backbone

    backbone = create_backbone(model)
    pre = Preprocessing(image_size=backbone.image_size, image_width=backbone.image_width, views=views)
    with tempfile.TemporaryDirectory() as folder:
        file = export_backbone(backbone, Path(folder))
        engine = OnnxRuntimeEngine.open(Path(folder), head=False)
        return embed_images(
            [str(p) for p in manifest.paths],
            manifest.frame["sha256"].to_list(),
            engine,
            pre,
            cache=EmbeddingCache(default_cache_folder(), engine, file, pre),
            workers=engine.threads,
            max_pixels=120_000_000,
        )


def out_of_fold(
    views: ViewEmbeddings, images: Images, options: dict[str, Any], deal: int, seen: Sequence[int] | None
) -> NDArray[np.float64]:
    """Log-odds (N,) of dealing number ``deal``; ``seen`` limits the views that are looked at."""
    config = FuseConfig(**{"members": 2, "epochs": 40, "patience": 8, **options})
    scores = np.full(len(images.labels), np.nan)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=deal)
    for fold, (rest, test) in enumerate(folds.split(images.labels, images.labels, images.groups)):
        inner = StratifiedGroupKFold(8, shuffle=True, random_state=fold)
        fit, stop = next(inner.split(rest, images.labels[rest], images.groups[rest]))
        parts = [
            _part(views, images, rows, role, seen)
            for rows, role in ((rest[fit], Role.TRAIN), (rest[stop], Role.VAL_SELECT), (test, Role.VAL_TEST))
        ]
        head = fit_aggregator(parts[0], parts[1], config, seed=100 * deal + fold).head
        scores[test] = score_features(head, parts[2])
    return scores


def _part(views: ViewEmbeddings, images: Images, rows: Any, role: Role, seen: Sequence[int] | None) -> Features:
    own = slice(None) if seen is None else list(seen)
    parts = (part[rows][:, own] for part in (views.embeddings, views.boxes, views.mask))
    return Features(*parts, images.labels[rows], role)


def hard_negatives(manifest: Manifest) -> NDArray[np.bool_]:
    """(N,) images without roadwork that the column hard_negative marks; none without the column."""
    frame = manifest.frame
    if "hard_negative" not in frame.columns:
        return np.zeros(frame.height, dtype=bool)
    marked = frame["hard_negative"].cast(pl.String).fill_null("").is_in(["1", "1.0", "true"]).to_numpy()
    return np.asarray(marked & (frame["label"].to_numpy() == 0))


def false_alarms(
    images: Images, scores: NDArray[np.float64], among: NDArray[np.bool_], weights: NDArray[np.int64]
) -> NDArray[Any]:
    """(1 + B,) share of the negatives ``among`` above the threshold that finds 0.9 of the roadwork images."""
    positive = np.flatnonzero(images.labels == 1)
    order = positive[np.argsort(-scores[positive], kind="stable")]
    reached = np.cumsum(weights[:, order], axis=1)
    place = (reached >= 0.9 * reached[:, -1:]).argmax(axis=1)
    above = scores[among][None, :] >= scores[order][place][:, None]
    drawn = weights[:, among]
    return np.asarray((above * drawn).sum(axis=1) / drawn.sum(axis=1))


def signed(f: Figure) -> str:
    """A difference with its interval."""
    return f"{f.value:+.3f} [{f.low:+.3f}, {f.high:+.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="labelled folder or table")
    parser.add_argument("--dinov2", type=Path, help="safetensors file of DINOv2 ViT-S/14 in timm's naming")
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="number of the first dealing of the folds")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--rows", nargs="*", help="names of rows; default all")
    parser.add_argument("--work", type=Path, help="folder for the scores of finished rows")
    parser.add_argument("--table", type=Path, help="write the first dealing of the default as a table of predictions")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args()
    manifest = build_manifest(args.images)
    frame = manifest.frame
    images = Images(
        frame["label"].to_numpy().astype(np.int64),
        np.array(frame["group"].to_list(), dtype=np.str_),
        np.array(frame["source"].fill_null("unknown").to_list(), dtype=np.str_),
    )
    layouts = {
        "whole": ViewSpec(layout="global"),
        "2x2": ViewSpec(rows=2, cols=2),
        "4x4": ViewSpec(rows=4, cols=4),
        "5x5": ViewSpec(rows=5, cols=5),
        "3x5": ViewSpec(rows=3, cols=5),
        "3x3 4x4": ViewSpec(pyramid=((4, 4),)),
        "3x3 5x5": ViewSpec(pyramid=((5, 5),)),
        "3x3 4x4 5x5": ViewSpec(pyramid=((4, 4), (5, 5))),
    }

    @cache
    def features(kind: str, layout: str = "", size: str = "") -> ViewEmbeddings:
        if kind == "both":
            both = [features("mean+max").embeddings, features("dino").embeddings]
            return replace(features("mean+max"), embeddings=np.concatenate(both, axis=2))
        height, width = (int(side) for side in (size or "224x0").split("x"))
        model = {"mean": {"pooling": "avg"}, "mean+max": {"pooling": "avg_max"}, "lite2": {"backbone": LITE2}}.get(kind)
        model = model or {"backbone": DINO, "weights": str(args.dinov2)}
        config = ModelConfig(**model, image_size=height, image_width=width)
        return embedded(manifest, config, layouts.get(layout, ViewSpec()))

    topk, lse = {"aggregator": "topk_mean"}, {"aggregator": "logsumexp"}
    both, one = ("mean+max",), ("mean+max", "whole")
    rows: dict[str, tuple[tuple[str, ...], dict[str, Any], Sequence[int] | None, float]] = {
        WHOLE: (("mean",), topk, [0], 1),
        MIL: (("mean",), lse, None, 10),
        "top-k mean": (("mean",), topk, None, 10),
        "whole image, mean and max of cells": (both, topk, [0], 1),
        "whole image at 448 px, mean and max of cells": ((*one, "448x448"), topk, None, 4),
        "whole image at 224 x 384, mean and max of cells": ((*one, "224x384"), topk, None, 1.7),
        "whole image at 384 x 640, mean and max of cells": ((*one, "384x640"), topk, None, 4.9),
        "whole image and 2 x 2 tiles, mean and max of cells": ((*both, "2x2"), topk, None, 5),
        "whole image and middle row of tiles, mean and max of cells": (both, topk, MIDDLE, 4),
        "log-sum-exp, mean and max of cells": (both, lse, None, 10),
        GRID: (both, topk, None, 10),
        "top-k mean, views of 160 x 288": ((*both, "", "160x288"), topk, None, 9.2),
        "noisy-or, mean and max of cells": (both, {"aggregator": "noisy_or"}, None, 10),
        "gated attention, mean and max of cells": (both, {"aggregator": "attention"}, None, 10),
        "view attention, mean and max of cells": (both, {"aggregator": "view_attention"}, None, 10),
        "four views, mean and max of cells": (both, topk, range(4), 4),
        "3 x 5 tiles": ((*both, "3x5"), topk, None, 16),
        "4 x 4 tiles": ((*both, "4x4"), topk, None, 17),
        "5 x 5 tiles": ((*both, "5x5"), topk, None, 26),
        "3 x 3 and 4 x 4 tiles": ((*both, "3x3 4x4"), topk, None, 26),
        PYRAMID: ((*both, "3x3 5x5"), topk, None, 35),
        "3 x 3, 4 x 4 and 5 x 5 tiles": ((*both, "3x3 4x4 5x5"), topk, None, 51),
        "EfficientNet-Lite2 at 256 px, top-k mean": (("lite2", "", "256x256"), topk, None, 25),
    }
    if args.dinov2:
        dino = ("dino", "whole")
        rows |= {
            "DINOv2-S, whole image": (("dino",), topk, [0], 7.5),
            "DINOv2-S, whole image at 280 x 504": ((*dino, "280x504"), topk, None, 22),
            "DINOv2-S, whole image and middle row": (("dino",), topk, MIDDLE, 30),
            "DINOv2-S, whole image at 448 x 448": ((*dino, "448x448"), topk, None, 33),
            "DINOv2-S, whole image at 518 x 518": ((*dino, "518x518"), topk, None, 49),
            "DINOv2-S, top-k mean": (("dino",), topk, None, 75),
            "both backbones, top-k mean": (("both",), topk, None, 85),
        }
    means = {
        "mean of 3 x 3 and 5 x 5 tiles, a head each": (GRID, "5 x 5 tiles"),
        f"mean of {PYRAMID} and DINOv2-S": (PYRAMID, "DINOv2-S, top-k mean"),
    }
    unknown = set(args.rows or ()) - set(rows)
    if unknown:
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    if args.table and args.rows is not None and PYRAMID not in args.rows:
        parser.error(f"--table needs the row {PYRAMID!r}")
    scores = {}
    for name, (kind, options, seen, _) in rows.items():
        if args.rows is not None and name not in {WHOLE, MIL, *args.rows}:
            continue
        scores[name] = []
        for deal in range(args.first, args.first + args.splits):
            kept = None if args.work is None else args.work / f"{name.replace(' ', '-')}-{deal}.npy"
            if kept is None or not kept.is_file():
                found = out_of_fold(features(*kind), images, options, deal, seen)
                if kept is not None:
                    with atomic_path(kept) as partial, partial.open("wb") as stream:
                        np.save(stream, found)
            scores[name].append(found if kept is None else np.load(kept, allow_pickle=False))
        print(f"{name}: trained", flush=True)
    if args.table:
        first = frame.select("id", "label", "group", "source").with_columns(log_odds=pl.Series(scores[PYRAMID][0]))
        first.write_csv(args.table)
    passes = {name: row[3] for name, row in rows.items()}
    for name, parts in means.items():
        if all(part in scores for part in parts):
            scores[name] = [np.mean(deals, axis=0) for deals in zip(*(scores[part] for part in parts), strict=True)]
            passes[name] = sum(passes[part] for part in parts)
    against = {
        base: judge(images, scores, METRICS, baseline=base, resamples=args.resamples, seed=0, fewest=9)
        for base in (WHOLE, MIL)
    }
    table = []
    head = ("macro AUROC", "less whole image", "less MIL head", "AUROC", "NLL", "MCC")
    print(f"\nn = {len(images.labels)}, {int(images.labels.sum())} roadwork, {len(np.unique(images.groups))} groups")
    print("| head over views | passes | " + " | ".join(head) + " |")
    print("|---|---|" + "---|" * len(head))
    for to_whole, to_mil in zip(against[WHOLE], against[MIL], strict=True):
        name, f = to_whole["variant"], to_whole["figures"]
        differences = [r["differences"]["macro_auroc"] for r in (to_whole, to_mil)]
        shown = [signed(d) for d in differences]
        cells = [str(f["macro_auroc"]), *shown, *(str(f[m]) for m in ("auroc", "nll", "mcc"))]
        print(f"| {name} | {passes[name]:g} | " + " | ".join(cells) + " |")
        sources = {s: asdict(v) for s, v in to_whole["sources"].items()}
        table.append({"row": name, "figures": {m: asdict(v) for m, v in f.items()}, "sources": sources})
    print(
        "\n"
        + "\n".join(
            f"{r['row']}: " + ", ".join(f"{s} {v['value']:.3f}" for s, v in r["sources"].items()) for r in table
        )
    )
    hard = hard_negatives(manifest)
    if hard.any():
        weights = group_weights(images.groups, args.resamples, 0, strata=images.sources)
        negative = images.labels == 0
        sets = {f"{int(hard.sum())} hard negatives": hard, f"{int(negative.sum())} negatives": negative}
        alarms = {
            name: [np.mean([false_alarms(images, z, among, weights) for z in deals], axis=0) for among in sets.values()]
            for name, deals in scores.items()
        }
        print("\nfalse alarms at a recall of 0.9, as a share, and as a multiple of the whole image")
        print("| head over views | " + " | ".join(f"{name} | multiple" for name in sets) + " |\n|---|" + "---|" * 4)
        for row, (name, found) in zip(table, alarms.items(), strict=True):
            pairs = [(figure(a), figure(a / np.maximum(b, 1e-9))) for a, b in zip(found, alarms[WHOLE], strict=True)]
            print(f"| {name} | " + " | ".join(f"{share} | {ratio}" for share, ratio in pairs) + " |")
            row["false_alarms"] = {k: [asdict(p) for p in pair] for k, pair in zip(sets, pairs, strict=True)}
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
