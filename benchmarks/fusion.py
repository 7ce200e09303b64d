"""Strategies for fusing data sets and domain-adversarial training, against the plain pool of all images.

    python benchmarks/fusion.py --images FOLDER_OR_TABLE [--splits 1] [--only NAME ...] [--out FILE]

Backbone: frozen, default views, embeddings reduced to --components principal components (of all views, no label is
used) and steps of 256 images, so that a hundred trainings of the head over views are affordable. Two questions, each
with paired draws of whole groups within their source (95 %, not corrected for the number of rows):

* folds: five folds of whole groups; every image is scored by a head that saw none of its group. All sources are known.
* source left out: every source with --fewest images of each class is scored by a head that saw no image of it.

A data set is a source; those with fewer than --small images are taken as one. The ratios mix images of dashcams with
all others. The last column is the AUROC of roadwork against the negatives marked as hard alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold
from views import embedded

from workzone.bundle.embedding import ViewEmbeddings
from workzone.config.run import FuseConfig, ModelConfig
from workzone.config.views import ViewSpec
from workzone.data.fusion.strategies import STRATEGIES
from workzone.data.fusion.strategies import Images as Known
from workzone.data.manifest import Manifest
from workzone.data.roles import Role
from workzone.data.sources.build import build_manifest
from workzone.data.units import find_units
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator, score_features
from workzone.tuning.judge import Images, judge

METRICS = ("macro_auroc", "auroc")
FITTED = 3000
"""Views that the principal components are fitted on."""
HEAD = {"members": 2, "epochs": 40, "patience": 10, "batch_size": 256, "lr": 3e-3}
PLAIN = "naive"
WAYS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "balanced": {"strategy": "balanced"},
    "inverse_frequency": {"strategy": "inverse_frequency"},
    "domain_stratified": {"strategy": "domain_stratified"},
    "hard_negative, weight 2": {"strategy": "hard_negative"},
    "ratio dashcam 50, others 50": {"strategy": "ratio", "dashcam": 50},
    "ratio dashcam 70, others 30": {"strategy": "ratio", "dashcam": 70},
    "ratio dashcam 30, others 70": {"strategy": "ratio", "dashcam": 30},
    "adaptive, every 5 epochs": {"strategy": "adaptive", "fuse": {"mixture": "adaptive"}},
    "naive, fuse.dann=0.1": {"fuse": {"dann": 0.1}},
    "naive, fuse.dann=1": {"fuse": {"dann": 1.0}},
    "domain_stratified, fuse.dann=0.1": {"strategy": "domain_stratified", "fuse": {"dann": 0.1}},
}


@dataclass(frozen=True, slots=True)
class Pool:
    """Features of all images with what the strategies may know of them."""

    features: Features
    images: Images
    sets: NDArray[np.str_]
    dashcam: NDArray[np.bool_]
    hard: NDArray[np.bool_]
    reduce: Reducer


@dataclass(frozen=True, slots=True)
class Reducer:
    """Principal components of embeddings, of equal spread."""

    mean: NDArray[np.float32]
    basis: NDArray[np.float32]

    @classmethod
    def of(cls, views: ViewEmbeddings, components: int) -> Reducer:
        from sklearn.utils.extmath import randomized_svd

        known = views.embeddings[views.mask]
        known = known[:: max(1, len(known) // FITTED)].astype(np.float32)
        mean, spread = known.mean(axis=0), known.std(axis=0) + 1e-6
        _, values, rows = randomized_svd((known - mean) / spread, components, random_state=0)
        return cls(mean, (rows.T / spread[:, None] / values * np.sqrt(len(known))).astype(np.float32))

    def __call__(self, views: ViewEmbeddings) -> NDArray[np.float32]:
        return np.where(views.mask[:, :, None], (views.embeddings - self.mean) @ self.basis, 0.0).astype(np.float32)


def read(place: Path, small: int, components: int) -> tuple[Pool, Manifest]:
    """Features, labels, units, sources and data sets of the labelled images of ``place``."""
    manifest = build_manifest(place)
    frame = manifest.frame.filter(manifest.frame["label"].is_not_null())
    manifest = Manifest(frame, manifest.root)
    views = embedded(manifest, ModelConfig(), ViewSpec())
    labels = frame["label"].to_numpy().astype(np.int64)
    sources = np.array(frame["source"].fill_null("unknown").to_list(), dtype=np.str_)
    units = np.array(find_units(manifest), dtype=np.str_)
    names, code, count = np.unique(sources, return_inverse=True, return_counts=True)
    sets = np.where(count[code] < small, "small", names[code])
    domain = frame["domain"].to_list() if "domain" in frame.columns else [None] * len(frame)
    marked = frame["hard_negative"].to_list() if "hard_negative" in frame.columns else [None] * len(frame)
    hard = np.array([str(v) in ("1", "1.0", "true") for v in marked]) & (labels == 0)
    reduce = Reducer.of(views, components)
    features = Features(reduce(views), views.boxes, views.mask, labels, Role.TRAIN)
    dashcam = np.array([d == "dashcam" for d in domain])
    return Pool(features, Images(labels, units, sources), sets, dashcam, hard, reduce), manifest


def part(pool: Pool, rows: NDArray[np.int64], role: Role, way: dict[str, Any] | None = None) -> Features:
    """Images ``rows`` in a role, weighed by ``way``."""
    f = pool.features
    data = Features(f.embeddings[rows], f.boxes[rows], f.mask[rows], f.labels[rows], role)
    if way is None:
        return data
    if strategy := way.get("strategy"):
        ratio = strategy == "ratio"
        sets = np.where(pool.dashcam[rows], "dashcam", "others") if ratio else pool.sets[rows]
        shares = {"dashcam": way["dashcam"], "others": 100 - way["dashcam"]} if ratio else {}
        draw, weigh = STRATEGIES[strategy](Known(f.labels[rows], sets, pool.hard[rows], shares))
        data = replace(data, draw=draw, weights=weigh.astype(np.float32))
    return replace(data, sets=np.unique(pool.sets[rows], return_inverse=True)[1].astype(np.int64))


def fit_and_score(pool: Pool, rest: NDArray[np.int64], test: NDArray[np.int64], way: dict[str, Any], seed: int) -> Any:
    """Log-odds of the images ``test`` by a head trained on ``rest``, an eighth of whose units stops the training."""
    labels, units = pool.images.labels[rest], pool.images.groups[rest]
    fit, stop = next(StratifiedGroupKFold(8, shuffle=True, random_state=seed).split(rest, labels, units))
    config = FuseConfig(**{**HEAD, **way.get("fuse", {})})
    train, select = part(pool, rest[fit], Role.TRAIN, way), part(pool, rest[stop], Role.VAL_SELECT)
    return score_features(fit_aggregator(train, select, config, seed=seed).head, part(pool, test, Role.VAL_TEST))


def folds(pool: Pool, splits: int) -> Iterator[list[tuple[NDArray[np.int64], NDArray[np.int64], int]]]:
    """For each dealing: rows to train on, rows to score, seed."""
    for deal in range(splits):
        dealt = StratifiedGroupKFold(5, shuffle=True, random_state=deal)
        pairs = dealt.split(pool.images.labels, pool.images.labels, pool.images.groups)
        yield [(rest, test, 100 * deal + k) for k, (rest, test) in enumerate(pairs)]


def left_out(pool: Pool, fewest: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64], int]]:
    """For each source with enough images: the units without an image of it, and its images."""
    jobs = []
    for k, source in enumerate(pool.images.macro_sources(fewest)):
        own = pool.images.sources == source
        touched = np.isin(pool.images.groups, pool.images.groups[own])
        jobs.append((np.flatnonzero(~touched), np.flatnonzero(own), 1000 + k))
    return jobs


def run(pool: Pool, way: dict[str, Any], jobs: list[Any]) -> NDArray[np.float64]:
    """Scores (N,) of all ``jobs``; NaN for images that none of them scores."""
    scores = np.full(len(pool.images.labels), np.nan)
    for rest, test, seed in jobs:
        scores[test] = fit_and_score(pool, rest, test, way, seed)
    return scores


def compare(pool: Pool, scores: dict[str, list[Any]], fewest: int, resamples: int) -> dict[str, dict[str, Any]]:
    """Figures of each way and their differences to the plain pool, also against hard negatives alone."""
    images = pool.images
    scored = np.isfinite(next(iter(scores.values()))[0])
    out: dict[str, dict[str, Any]] = {}
    for what, keep in (("all", scored), ("hard", scored & ((images.labels == 1) | pool.hard))):
        own = Images(images.labels[keep], images.groups[keep], images.sources[keep])
        cut = {name: [z[keep] for z in repeats] for name, repeats in scores.items()}
        metrics = METRICS if what == "all" else ("auroc",)
        for row in judge(own, cut, metrics, baseline=PLAIN, resamples=resamples, seed=0, fewest=fewest):
            prefix = "" if what == "all" else "hard_"
            found = out.setdefault(row["variant"], {"figures": {}, "differences": {}, "sources": {}})
            for kind in ("figures", "differences"):
                found[kind] |= {prefix + m: v for m, v in row[kind].items()}
            if what == "all":
                found["sources"] = row["sources"]
    return out


def show(title: str, table: dict[str, dict[str, Any]]) -> None:
    """Print one table as Markdown."""
    head = ("strategy", "macro AUROC", "less naive", "AUROC, less naive", "against hard negatives, less naive")
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|---|---|---|---|---|")
    for name, row in table.items():
        f, d = row["figures"], row["differences"]
        less = {m: "" if name == PLAIN else f"{v.value:+.3f} [{v.low:+.3f}, {v.high:+.3f}]" for m, v in d.items()}
        hard = f"{f['hard_auroc'].value:.3f} {less['hard_auroc']}".strip()
        pooled = f"{f['auroc'].value:.3f} {less['auroc']}".strip()
        print(f"| {name} | {f['macro_auroc']} | {less['macro_auroc']} | {pooled} | {hard} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="labelled folder or table")
    parser.add_argument("--splits", type=int, default=1, help="dealings of the folds")
    parser.add_argument("--only", nargs="*", default=list(WAYS), help="strategies to run besides naive")
    parser.add_argument("--small", type=int, default=30, help="sources with fewer images are one data set")
    parser.add_argument("--components", type=int, default=256)
    parser.add_argument("--fewest", type=int, default=9, help="images of each class that a source needs for a figure")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--scores", type=Path, help="folder where scores are kept, and found again")
    parser.add_argument("--out", type=Path, help="write the tables as JSON")
    args = parser.parse_args()
    if args.images is None:
        print("this needs images of yours: --images")
        return
    import torch

    torch.set_num_threads(1)
    pool, manifest = read(args.images, args.small, args.components)
    n, units = len(manifest), len(np.unique(pool.images.groups))
    ways = {name: way for name, way in WAYS.items() if name == PLAIN or name in args.only}
    dealt, without = list(folds(pool, args.splits)), left_out(pool, args.fewest)
    found: dict[str, dict[str, list[Any]]] = {"folds": {}, "source left out": {}}
    for name, way in ways.items():
        start = time.perf_counter()
        kept = None if args.scores is None else args.scores / f"{name.replace(' ', '_')}.npz"
        if kept is not None and kept.is_file():
            with np.load(kept, allow_pickle=False) as old:
                found["folds"][name], found["source left out"][name] = list(old["a"]), list(old["b"])
            continue
        found["folds"][name] = [run(pool, way, jobs) for jobs in dealt]
        found["source left out"][name] = [run(pool, way, without)]
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(kept, a=np.stack(found["folds"][name]), b=np.stack(found["source left out"][name]))
    print(f"\nn = {n}, {int(pool.images.labels.sum())} roadwork, {int(pool.hard.sum())} hard negatives, {units} units")
    print(f"data sets: {', '.join(f'{s} {int((pool.sets == s).sum())}' for s in np.unique(pool.sets))}")
    stored = {}
    for title, scores in found.items():
        table = compare(pool, scores, args.fewest, args.resamples)
        shown = ", ".join(pool.images.macro_sources(args.fewest))
        show(f"{title} (macro over {shown})", table)
        for name, row in table.items():
            print(f"{name}: " + ", ".join(f"{s} {v.value:.3f}" for s, v in row["sources"].items()))
        stored[title] = {
            name: {kind: {m: asdict(v) for m, v in row[kind].items()} for kind in row} for name, row in table.items()
        }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"n": n, "tables": stored}, indent=2) + "\n")


if __name__ == "__main__":
    main()
