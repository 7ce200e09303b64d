"""Single frames against frames pooled over time, on labelled dashcam clips; one drive is left out at a time.

    python benchmarks/drives.py --images FOLDER_OR_TABLE --drives FOLDER [--out FILE] [--members 3] [--work FOLDER]

``--drives`` holds clips ``<drive>.mp4`` and ``labels.csv`` (drive, seconds, label). Images of the training data whose
group is ``rwvid_<drive>`` are left out while that drive is scored. Backbone: frozen EfficientNet-Lite0, default views.
Trained attention is fitted on the other drives, of which folds choose the number of steps.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workzone import calibration
from workzone.bundle.embedding import EmbeddingCache, ViewEmbeddings, default_cache_folder, embed_images, pad_views
from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine
from workzone.bundle.parallel import embed_views
from workzone.config.run import FuseConfig, ModelConfig
from workzone.data.manifest import Manifest
from workzone.data.roles import CalibData, Role
from workzone.data.sources.build import build_manifest
from workzone.data.splits import make_splits, open_role
from workzone.decisions.pooling import POOLS, WindowMean, create_pool, pool_groups
from workzone.decisions.sequences import DriveScore
from workzone.metrics.bootstrap import bootstrap, replicates
from workzone.predictions import logit, sigmoid
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator, score_features
from workzone.vision import Preprocessing, open_views
from workzone.vision.video import Video

METRICS = ("auroc", "nll", "mcc")
SHARES = {Role.TRAIN: 0.7, Role.VAL_SELECT: 0.15, Role.VAL_CALIB: 0.15}


@dataclass(frozen=True)
class Drives:
    """All sampled frames of all clips, at one a second; label -1 where a frame has none."""

    names: NDArray[np.str_]
    seconds: NDArray[np.float64]
    labels: NDArray[np.int64]
    views: ViewEmbeddings


def read_drives(folder: Path, engine: OnnxRuntimeEngine, pre: Preprocessing) -> Drives:
    with (folder / "labels.csv").open() as stream:
        known = {(r["drive"], float(r["seconds"])): int(r["label"]) for r in csv.DictReader(stream)}
    names, seconds, labels, rows = [], [], [], []
    for drive in sorted({name for name, _ in known}):
        video = Video(folder / f"{drive}.mp4", every=1.0)
        for moment, image in video:
            pixels, boxes = open_views(image, pre)
            rows.append((embed_views(engine, pixels), boxes))
            names.append(drive)
            seconds.append(moment)
            labels.append(known.pop((drive, round(moment)), -1))
        if video.problem:
            raise video.problem
    if known:
        raise SystemExit(f"no frame was sampled for {sorted(known)[:3]}")
    return Drives(np.array(names), np.array(seconds), np.array(labels), pad_views(rows))


def score_left_out(
    manifest: Manifest, embed: ViewEmbeddings, drives: Drives, drive: str, members: int
) -> NDArray[np.float64]:
    """Calibrated log-odds of the frames of ``drive`` from a head that saw none of its images."""
    import polars as pl

    rest = Manifest(manifest.frame.filter(pl.col("group") != f"rwvid_{drive}"), manifest.root)
    splits = make_splits(rest, SHARES, seed=0, near_duplicates=False)
    row_of = {image_id: i for i, image_id in enumerate(manifest.frame["id"].to_list())}
    roles = {role: open_role(rest, splits, role) for role in SHARES}
    parts = {}
    for role, data in roles.items():
        views = embed.take(np.array([row_of[i] for i in data.ids.tolist()]))
        parts[role] = Features(views.embeddings, views.boxes, views.mask, data.labels, role)
    fit = fit_aggregator(parts[Role.TRAIN], parts[Role.VAL_SELECT], FuseConfig(members=members), seed=0)
    calib = roles[Role.VAL_CALIB]
    data = CalibData.from_arrays(calib.labels, score_features(fit.head, parts[Role.VAL_CALIB]), groups=calib.groups)
    platt = calibration.create("platt").fit(data)
    rows = drives.views.take(np.flatnonzero(drives.names == drive))
    # Labels of the drive play no part here; a head is handed features of some role only.
    blank = Features(rows.embeddings, rows.boxes, rows.mask, np.zeros(len(rows.mask), dtype=np.int64), Role.VAL_TEST)
    return logit(platt(score_features(fit.head, blank)))


def trained(
    components: int, drives: Drives, scores: NDArray[np.float64], whole: NDArray[np.float32]
) -> tuple[NDArray[np.float64], list[int]]:
    """Scores of each drive by attention that was trained on the others, and the steps of each training."""
    from workzone.training.drives import AttentionSettings, DriveFrames, fit_attention

    rows = {name: np.flatnonzero(drives.names == name) for name in np.unique(drives.names).tolist()}
    frames = {
        name: DriveFrames(name, drives.seconds[r], scores[r], drives.labels[r], whole[r]) for name, r in rows.items()
    }
    out, steps = np.empty(len(scores)), []
    for name, own in frames.items():
        others = [d for n, d in frames.items() if n != name]
        fit = fit_attention(others, AttentionSettings(components=components))
        out[rows[name]] = fit.pool(own.log_odds, own.seconds, own.embeddings)
        steps.append(fit.steps)
        say(f"attention without {name}: {fit.steps} steps")
    return out, steps


def after_fit(drives: Drives, pooled: NDArray[np.float64]) -> NDArray:
    """Probabilities of the labelled frames from ``DriveScore.fit`` on the other drives, each drive left out in turn."""
    labelled = drives.labels >= 0
    out = np.full(len(pooled), np.nan)
    # All frames are pooled, labelled or not; the calibrator sees the labelled ones. It is the same for every pool.
    pool = WindowMean()
    for drive in np.unique(drives.names):
        fitted = labelled & (drives.names != drive)
        data = CalibData.from_arrays(drives.labels[fitted], pooled[fitted], groups=drives.names[fitted])
        fitted_score = DriveScore.fit_pooled(data, pool)
        assert fitted_score.calibrator is not None
        out[drives.names == drive] = fitted_score.calibrator(pooled[drives.names == drive])
    return out[labelled]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--drives", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--work", type=Path, default=default_cache_folder() / "benchmarks" / "drives")
    args = parser.parse_args()
    if args.images is None or args.drives is None:
        print("No labelled clips come with workzone: give --images and --drives. Nothing was measured.")
        return

    from workzone.export.onnx import export_backbone
    from workzone.models.backbones import create_backbone

    backbone = create_backbone(ModelConfig())
    pre = Preprocessing(image_size=backbone.image_size)
    folder = args.work / "onnx"
    file = export_backbone(backbone, folder)
    engine = OnnxRuntimeEngine.open(folder, head=False)
    cache = EmbeddingCache(default_cache_folder(), engine, file, pre)
    say(f"cache {cache.key[:12]}")
    manifest = build_manifest(args.images)
    if absent := [d for d in drive_names(args.drives) if f"rwvid_{d}" not in set(manifest.groups)]:
        raise SystemExit(f"no images of group rwvid_{absent[0]}: the drives would not be left out")
    embedded = embed_images(
        [str(p) for p in manifest.paths],
        manifest.frame["sha256"].to_list(),
        engine,
        pre,
        cache=cache,
        workers=engine.threads,
        max_pixels=120_000_000,
        progress=lambda done, total: say(f"embedded {done}/{total}") if done % 100 == 0 else None,
    )
    drives = read_drives(args.drives, engine, pre)
    scores = np.empty(len(drives.names))
    for drive in np.unique(drives.names).tolist():
        start = time.perf_counter()
        scores[drives.names == drive] = score_left_out(manifest, embedded, drives, drive, args.members)
        say(f"{drive} left out: {time.perf_counter() - start:.0f} s")
    whole = drives.views.embeddings[:, 0]
    labelled = drives.labels >= 0
    y, groups = drives.labels[labelled], drives.names[labelled]
    ways = {"single frame": scores}
    ways |= {n: pool_groups(create_pool(n), scores, drives.names, drives.seconds, whole) for n in POOLS}
    steps = {}
    for name, components in (("trained, scores alone", 0), ("trained, 4 directions", 4)):
        ways[name], steps[name] = trained(components, drives, scores, whole)
    table: dict[str, dict] = {}
    drawn = {}
    for name, pooled in ways.items():
        p = sigmoid(pooled[labelled])
        found = bootstrap(METRICS, y, p, (p >= 0.5).astype(int), groups=groups, n_resamples=args.resamples)
        # One seed and one order of drives: the same drives are drawn for every way, so that differences are paired.
        drawn[name] = replicates(
            ("auroc", "nll"), y, p, (p >= 0.5).astype(int), groups=groups, n_resamples=args.resamples
        )
        first = table.get("single frame", {})
        apart = {
            m: [
                found[m].value - first[m][0],
                *np.nanquantile(drawn[name][m] - drawn["single frame"][m], [0.025, 0.975]),
            ]
            for m in (drawn[name] if first else ())
        }
        refit = None if name == "single frame" else after_fit(drives, pooled)
        table[name] = {
            **{m: [found[m].value, found[m].low, found[m].high, found[m].undefined] for m in METRICS},
            "less_single": apart,
            "false_alarms": int(((p >= 0.5) & (y == 0)).sum()),
            "missed": int(((p < 0.5) & (y == 1)).sum()),
            "nll_refit": None if refit is None else nll(y, refit),
        }
    share = float(y.mean())
    result = {
        "frames": len(y), "roadwork": int(y.sum()), "drives": len(np.unique(groups)), "sampled": len(scores),
        "negative_drives": len(np.unique(groups[y == 0])), "nll_of_constant": nll(y, np.full(len(y), share)),
        "members": args.members, "resamples": args.resamples, "steps": steps, "ways": table,
    }  # fmt: skip
    show(result)
    if args.out:
        args.out.write_text(json.dumps({**result, "scores": scores.tolist(), "names": drives.names.tolist(),
            "seconds": drives.seconds.tolist(), "labels": drives.labels.tolist()}, indent=1))  # fmt: skip


def nll(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    return float(-np.mean(np.log(np.clip(np.where(y == 1, p, 1 - p), 1e-12, 1))))


def drive_names(folder: Path) -> list[str]:
    return sorted(p.stem for p in folder.glob("*.mp4"))


def show(result: dict) -> None:
    print(f"{result['frames']} labelled frames, {result['frames'] - result['roadwork']} without roadwork (in "
          f"{result['negative_drives']} drives), {result['drives']} drives; NLL of a constant: "
          f"{result['nll_of_constant']:.3f}\n")  # fmt: skip
    print("| score | AUROC | NLL | MCC at 0.5 | false alarms | missed | NLL refitted |\n|---|---|---|---|---|---|---|")
    for name, row in result["ways"].items():
        cells = " | ".join("{:.3f} [{:.3f}, {:.3f}]".format(*row[m][:3]) for m in METRICS)
        refit = "" if row["nll_refit"] is None else f"{row['nll_refit']:.3f}"
        print(f"| {name} | {cells} | {row['false_alarms']} | {row['missed']} | {refit} |")
    print("\nLess the single frame, paired:\n\n| score | AUROC | NLL |\n|---|---|---|")
    for name, row in result["ways"].items():
        if row["less_single"]:
            cells = " | ".join("{:+.3f} [{:+.3f}, {:+.3f}]".format(*cell) for cell in row["less_single"].values())
            print(f"| {name} | {cells} |")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
