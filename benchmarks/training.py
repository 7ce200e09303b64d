"""Adaptation, augmentation and pretraining on street images, each for the same CPU time, against the frozen backbone.

    python benchmarks/training.py --images FOLDER_OR_TABLE [--dinov2 FILE] [--unlabelled TABLE] [--minutes 1]
        [--folds 3] [--deals 1] [--variants NAME ...] [--work FOLDER] [--out FILE] [--table | --cells]

Folds of whole groups, dealt --deals times, each time with another seed. A way that is trained with labels begins with
the frozen backbone and its head over ten views of its fold, trains the late blocks and the head through the whole
image and tiles that are drawn by what the frozen head says of them, and keeps the weights of the lowest NLL on the
selection images, those of the start included. A pretraining sees images without labels, of groups that no labelled
image is in, for the time of all folds together; heads are then trained as for the frozen backbone. Ways that lack a
deal are left out of the table. Seconds are CPU seconds of one thread. Finished cells are kept in --work and not
repeated; --table only prints what is there, --cells prints no table. Intervals: paired draws of whole groups within
their source, 95 %, not corrected for the number of rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold
from training_cells import DINO, LITE, Fold, Way, all_activations, all_pixels, train_cell
from views import METRICS, embedded, false_alarms, hard_negatives, signed

from workzone.bundle.embedding import ViewEmbeddings, default_cache_folder
from workzone.config.run import FuseConfig, ModelConfig, PretrainConfig
from workzone.config.views import ViewSpec
from workzone.data.roles import Role
from workzone.data.sources.build import build_manifest
from workzone.files import atomic_path, sha256_file
from workzone.metrics.resampling import group_weights
from workzone.models.backbones import save_backbone
from workzone.pipeline.phase import Progress
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator, score_features, score_views
from workzone.training.pretraining.pool import Pool
from workzone.training.pretraining.run import pretrain_backbone
from workzone.tuning.judge import Images, figure, judge

TEN, WHOLE, HARD = "frozen, ten views", "frozen, whole image", "frozen, hard negatives x 3"
PYRAMID = "frozen, 35 views"
DINO_VIEWS, DINO_WHOLE = "frozen DINOv2-S", "frozen DINOv2-S, whole image"
WAYS = {
    "late blocks": Way(),
    "late blocks, StreetVision": Way(augment="streetvision"),
    "late blocks, hard negatives x 3": Way(hard_weight=3.0),
    "DINOv2-S LoRA": Way(DINO, "lora", lr=5e-4),
    "DINOv2-S LoRA, whole image": Way(DINO, "lora", lr=5e-4, views=1),
    "DINOv2-S DoRA, whole image": Way(DINO, "dora", lr=5e-4, views=1),
    "late blocks, light, scales": Way(augment="light", multiscale=True),
    "late blocks, MixUp": Way(mixup=0.2),
    "DINOv2-S DoRA": Way(DINO, "dora", lr=5e-4),
    "late blocks, standard": Way(augment="standard"),
}
WIDE = "frozen, views of 160 x 288"
DISTIL, EXPLORA, HYBRID = "distilled from DINOv2-S", "DINOv2-S ExPLoRA, whole image", "BYOL + SwAV + DINO"
ORDER = (
    "late blocks", WIDE, "late blocks, StreetVision", "DINOv2-S LoRA, whole image", DISTIL, "late blocks, MixUp",
    "late blocks, hard negatives x 3", "DINOv2-S DoRA, whole image", "late blocks, light, scales", EXPLORA, HYBRID,
    "DINOv2-S LoRA", "DINOv2-S DoRA", "late blocks, standard",
)  # fmt: skip
Rows = NDArray[np.int64]


def first(views: ViewEmbeddings, seen: int | None) -> ViewEmbeddings:
    """The first ``seen`` views, None for all."""
    return ViewEmbeddings(views.embeddings[:, :seen], views.boxes[:, :seen], views.mask[:, :seen])


class Study:
    """The images, their folds, and the cells that were finished.

    Attributes:
        deal: which dealing of the folds is asked for; also the seed of what is trained.
    """

    deal = 0

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.work = args, args.work
        self.manifest = build_manifest(args.images)
        frame = self.manifest.frame
        self.images = Images(
            frame["label"].to_numpy().astype(np.int64),
            np.array(frame["group"].to_list(), dtype=np.str_),
            np.array(frame["source"].fill_null("unknown").to_list(), dtype=np.str_),
        )
        self.hard = hard_negatives(self.manifest)
        self.weights = None if args.dinov2 is None else str(args.dinov2)
        self._sets: dict[str, ViewEmbeddings] = {}
        self._heads: dict[tuple[str, int], Any] = {}

    def seed(self, fold: int) -> int:
        """Seed of a cell."""
        return 100 * self.deal + fold

    def folds(self) -> list[tuple[Rows, Rows, Rows]]:
        """Rows to train on, to stop by and to test on, of each fold."""
        y, groups = self.images.labels, self.images.groups
        found = []
        outer = StratifiedGroupKFold(self.args.folds, shuffle=True, random_state=self.deal)
        for fold, (rest, test) in enumerate(outer.split(y, y, groups)):
            inner = StratifiedGroupKFold(8, shuffle=True, random_state=self.seed(fold))
            fit, stop = next(inner.split(rest, y[rest], groups[rest]))
            found.append((rest[fit], rest[stop], test))
        return found

    def frozen(self, backbone: str, weights: str | None = None, views: ViewSpec | None = None) -> ViewEmbeddings:
        """Embeddings of all images by a backbone as it is."""
        key = f"{backbone}{weights}{views}"
        if key not in self._sets:
            model = ModelConfig(backbone=backbone, weights=weights)
            own = weights == self.weights_of(backbone) and views is None
            layout = views or ViewSpec()
            self._sets[key] = self._kept(backbone, model) if own else embedded(self.manifest, model, layout)
        return self._sets[key]

    def _kept(self, backbone: str, model: ModelConfig) -> ViewEmbeddings:
        """Embeddings of ten views: opening the engine to look into its cache takes half a minute."""
        file = Path(self.work) / f"{backbone}.npz"
        names = ("embeddings", "boxes", "mask")
        if not file.is_file():
            found = embedded(self.manifest, model, ViewSpec())
            with atomic_path(file) as partial, partial.open("wb") as stream:
                np.savez(stream, **{name: getattr(found, name) for name in names})
        with np.load(file, allow_pickle=False) as data:
            return ViewEmbeddings(*(data[name] for name in names))

    def weights_of(self, backbone: str) -> str | None:
        """The file of a backbone, None for the package."""
        return self.weights if backbone == DINO else None

    def part(self, views: ViewEmbeddings, rows: Rows, role: Role) -> Features:
        """Features of one role."""
        return Features(views.embeddings[rows], views.boxes[rows], views.mask[rows], self.images.labels[rows], role)

    def head(self, views: ViewEmbeddings, fold: int, rows: tuple[Rows, Rows, Rows], hard: float = 1.0) -> Any:
        """The default head, trained on a fold."""
        train = self.part(views, rows[0], Role.TRAIN)
        if hard != 1.0:
            train = train.with_hard_negatives(self.hard[rows[0]].astype(np.int64), hard)
        config = FuseConfig(members=2, epochs=40, patience=8)
        return fit_aggregator(train, self.part(views, rows[1], Role.VAL_SELECT), config, seed=self.seed(fold)).head

    def default_head(self, backbone: str, fold: int, seen: int | None = None) -> Any:
        """The default head of a fold on the first ``seen`` views by a backbone as it is."""
        key = (f"{backbone} {seen}", self.seed(fold))
        if key not in self._heads:
            views = first(self.frozen(backbone, self.weights_of(backbone)), seen)
            self._heads[key] = self.head(views, fold, self.folds()[fold])
        return self._heads[key]

    def out_of_fold(self, views: ViewEmbeddings, hard: float = 1.0) -> NDArray[np.float64]:
        """Log-odds (N,) by default heads on frozen features."""
        scores = np.full(len(self.images.labels), np.nan)
        for fold, rows in enumerate(self.folds()):
            known = views is self._sets.get(f"{LITE}NoneNone") and hard == 1.0
            head = self.default_head(LITE, fold) if known else self.head(views, fold, rows, hard)
            scores[rows[2]] = score_features(head, self.part(views, rows[2], Role.VAL_TEST))
        return scores

    def file(self, name: str, fold: int) -> Path:
        """Where a cell is kept."""
        plain = "".join(c if c.isalnum() else "_" for c in name)
        return Path(self.work) / f"{plain}-{fold}of{self.args.folds}-{self.args.minutes:g}min{self.suffix()}.npz"

    def suffix(self) -> str:
        """End of the names of files of this deal."""
        return f"-deal{self.deal}" if self.deal else ""

    def save(self, name: str, fold: int, report: dict[str, Any], **scores: NDArray[Any]) -> None:
        """Keep a cell."""
        with atomic_path(self.file(name, fold)) as partial, partial.open("wb") as stream:
            np.savez(stream, report=np.array(json.dumps(report)), **scores)
        print(f"{time.strftime('%H:%M:%S')} {name}, deal {self.deal}, fold {fold}: {json.dumps(report)}", flush=True)

    def load(self, name: str, fold: int) -> dict[str, NDArray[Any]]:
        """A kept cell."""
        with np.load(self.file(name, fold), allow_pickle=False) as data:
            return dict(data)


def train_way(study: Study, name: str) -> None:
    """All folds of a way that is trained with labels."""
    way, weights = WAYS[name], study.weights_of(WAYS[name].backbone)
    todo = [f for f in range(study.args.folds) if not study.file(name, f).is_file()]
    if not todo:
        return
    pixels = all_pixels([str(p) for p in study.manifest.paths], study.work)
    acts = all_activations(pixels, way.backbone, weights, study.work, way.views)
    views = first(study.frozen(way.backbone, weights), way.views)
    for fold in todo:
        rows = study.folds()[fold]
        head = study.default_head(way.backbone, fold, way.views)
        every = study.part(views, np.arange(len(study.images.labels)), Role.VAL_TEST)
        said = Fold(*rows, head, score_views(head, every), views.boxes[0], study.images.labels, study.hard)
        seconds = 60 * study.args.minutes
        scores, report = train_cell(way, said, pixels, acts, weights=weights, seconds=seconds, seed=study.seed(fold))
        default = score_features(head, study.part(views, rows[2], Role.VAL_TEST))
        study.save(name, fold, report, rows=rows[2], scores=scores, default=default)


def pretrain_way(study: Study, name: str) -> None:
    """A pretraining without labels, then default heads on its features."""
    if study.file(name, 0).is_file():
        return
    backbone, images, epochs, config = _plan(study, name)
    pool = _pool(study)
    settings = PretrainConfig(epochs=epochs, check_every=10_000, **config)
    model = ModelConfig(backbone=backbone, weights=study.weights_of(backbone))
    chosen = np.random.default_rng(study.deal).permutation(pool.frame.height)[:images]
    pool = Pool(pool.frame[np.sort(chosen).tolist()], pool.counts)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        done = pretrain_backbone(
            model, settings, pool, seed=study.deal, folder=place, cache=place / "cache", report=Progress(), device="cpu"
        )
        seconds = time.process_time() - start
        file = save_backbone(done.backbone, place / "saved")
        layout = ViewSpec(layout="global") if name == EXPLORA else ViewSpec()
        scores = study.out_of_fold(study.frozen(backbone, str(file), layout))
    history = [{k: v for k, v in row.items() if k != "check"} for row in done.metrics["history"]]
    report = {"images": pool.frame.height, "epochs": epochs, "seconds": seconds, "history": history}
    study.save(name, 0, report, rows=np.arange(len(scores)), scores=scores)


def wide_way(study: Study) -> None:
    """The default on ten views that are not square, at the cost of nine square ones; height and width in pixels."""
    if not study.file(WIDE, 0).is_file():
        views = embedded(study.manifest, ModelConfig(image_size=160, image_width=288), ViewSpec())
        study.save(WIDE, 0, {}, rows=np.arange(len(study.images.labels)), scores=study.out_of_fold(views))


def _plan(study: Study, name: str) -> tuple[str, int, int, dict[str, Any]]:
    """Backbone, images, epochs and settings that fill the time of all folds, by CPU seconds measured on one thread."""
    total = 60 * study.args.minutes * study.args.folds
    if name == DISTIL:
        config = {"method": "distil", "teacher": DINO, "teacher_weights": study.weights, "lr": 1e-4, "batch_size": 32}
        return LITE, int(total / (0.15 + 4 * study.args.distil_cost)), 4, config
    if name == HYBRID:
        config = {"method": "hybrid", "lr": 5e-5, "batch_size": 32}
        return LITE, int(total / study.args.hybrid_cost), 1, config
    config = {"method": "dino", "trains": "explora", "lr": 1e-4, "batch_size": 32}
    return DINO, int(total / study.args.explora_cost), 1, config


def _pool(study: Study) -> Pool:
    """Unlabelled images of groups that no labelled image is in."""
    table = study.args.unlabelled
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    own = set(study.images.groups.tolist())
    kept = [r for r in rows if r["group"] not in own]
    paths = [table.parent / r["file"] for r in kept]
    frame = pl.DataFrame(
        {
            "id": [r["id"] for r in kept],
            "path": [str(p) for p in paths],
            "sha256": [sha256_file(p) for p in paths],
            "label": pl.Series([None] * len(kept), dtype=pl.Int64),
            "group": [r["group"] for r in kept],
        }
    )
    return Pool(frame, {"further": frame.height, "related": len(rows) - frame.height})


def frozen_rows(study: Study) -> dict[str, NDArray[np.float64]]:
    """Scores of everything that trains no backbone, made once."""
    dino = "-dinov2" if study.weights else ""
    kept = Path(study.work) / f"frozen-{study.args.folds}-pyramid{dino}{study.suffix()}.npz"
    if not kept.is_file():
        with atomic_path(kept) as partial, partial.open("wb") as stream:
            np.savez(stream, **_frozen(study))
    with np.load(kept, allow_pickle=False) as data:
        return dict(data)


def _frozen(study: Study) -> dict[str, NDArray[np.float64]]:
    lite = study.frozen(LITE)
    one = first(lite, 1)
    found = {TEN: study.out_of_fold(lite), WHOLE: study.out_of_fold(one), HARD: study.out_of_fold(lite, 3.0)}
    found[PYRAMID] = study.out_of_fold(study.frozen(LITE, views=ViewSpec(pyramid=((5, 5),))))
    if study.weights:
        dino = study.frozen(DINO, study.weights)
        found |= {DINO_VIEWS: study.out_of_fold(dino), DINO_WHOLE: study.out_of_fold(first(dino, 1))}
    return found


def finished(study: Study) -> dict[str, NDArray[np.float64]]:
    """Scores of every way all of whose cells are there, with the mean of each and the frozen backbone."""
    found = frozen_rows(study)
    default = found[TEN]
    if DINO_VIEWS in found:
        found[f"{DINO_VIEWS}, with ten views"] = (found[DINO_VIEWS] + default) / 2
    for name in ORDER:
        cells = range(study.args.folds if name in WAYS else 1)
        if not all(study.file(name, f).is_file() for f in cells):
            continue
        loaded = [study.load(name, f) for f in cells]
        found[name] = np.full(len(default), np.nan)
        for cell in loaded:
            found[name][cell["rows"]] = cell["scores"]
        if name in WAYS and WAYS[name].backbone == DINO:
            start = np.full(len(default), np.nan)
            for cell in loaded:
                start[cell["rows"]] = cell["default"]
            found.setdefault(DINO_VIEWS if WAYS[name].views is None else DINO_WHOLE, start)
        found[f"{name}, with ten views"] = (found[name] + default) / 2
    return found


def all_deals(study: Study) -> dict[str, list[NDArray[np.float64]]]:
    """Scores of every way that is there in every deal."""
    found = []
    for deal in range(study.args.deals):
        study.deal = deal
        found.append(finished(study))
    return {name: [scores[name] for scores in found] for name in found[0] if all(name in scores for scores in found)}


def compared(study: Study, scores: dict[str, list[NDArray[np.float64]]], baseline: str) -> list[dict[str, Any]]:
    """Print and return the figures of ``scores`` with their differences to ``baseline``."""
    rows = judge(
        study.images, scores, METRICS, baseline=baseline, resamples=study.args.resamples, seed=0, fewest=9
    )
    print(f"\n| way (differences: less {baseline}) | macro AUROC | difference | AUROC | NLL | MCC |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        f, d = row["figures"], row["differences"]
        cells = [str(f["macro_auroc"]), signed(d["macro_auroc"])]
        cells += [f"{f[m].value:.3f}, {signed(d[m])}" for m in ("auroc", "nll", "mcc")]
        print(f"| {row['variant']} | " + " | ".join(cells) + " |")
    return rows


def show(study: Study) -> list[dict[str, Any]]:
    """Print the tables and return their content."""
    images, scores = study.images, all_deals(study)
    print(f"\nn = {len(images.labels)}, {int(images.labels.sum())} roadwork, {len(np.unique(images.groups))} groups")
    rows = compared(study, scores, TEN)
    for start in (DINO_WHOLE, DINO_VIEWS):
        own = {k: v for k, v in scores.items() if k.startswith("DINOv2-S") and (", whole" in k) == (", whole" in start)}
        if start in scores and own:
            compared(study, {start: scores[start], **own}, start)
    weights = group_weights(images.groups, study.args.resamples, 0, strata=images.sources)
    negative = images.labels == 0
    counts = f"{int(study.hard.sum())} hard negatives, {int(negative.sum())} in all"
    print(f"\nfalse alarms at a recall of 0.9; {counts}")
    print("| way | hard | over whole image | less ten views | all | over whole image |\n|---|---|---|---|---|---|")
    sets = (study.hard, negative)
    alarms = {
        k: [np.mean([false_alarms(images, v, among, weights) for v in deals], axis=0) for among in sets]
        for k, deals in scores.items()
    }
    table = []
    for row, (name, (hard, every)) in zip(rows, alarms.items(), strict=True):
        ratios = [figure(a / np.maximum(b, 1e-9)) for a, b in zip((hard, every), alarms[WHOLE], strict=True)]
        less = figure(hard - alarms[TEN][0])
        print(f"| {name} | {figure(hard)} | {ratios[0]} | {signed(less)} | {figure(every)} | {ratios[1]} |")
        plain = {
            key: {k: asdict(v) for k, v in row[key].items()} for key in ("figures", "differences", "sources")
        }
        plain |= {"hard": asdict(figure(hard)), "hard_over_whole": asdict(ratios[0]), "hard_less_ten": asdict(less)}
        table.append({"row": name, **plain})
    print()
    for row in rows:
        print(f"{row['variant']}: " + ", ".join(f"{s} {v.value:.3f}" for s, v in row["sources"].items()))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="labelled folder or table with column hard_negative")
    parser.add_argument("--unlabelled", type=Path, help="table of further images; without it nothing is pretrained")
    parser.add_argument("--dinov2", type=Path, help="safetensors file of DINOv2 ViT-S/14 in timm's naming")
    parser.add_argument("--minutes", type=float, default=1.0, help="CPU minutes of training of one fold")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--deals", type=int, default=1, help="times that the folds are dealt")
    parser.add_argument("--variants", nargs="*", choices=ORDER, help="ways, in this order; default all")
    parser.add_argument("--work", type=Path, default=default_cache_folder() / "benchmarks" / "training")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--distil-cost", type=float, default=0.09, help="CPU seconds per image and epoch, student")
    parser.add_argument("--hybrid-cost", type=float, default=0.45, help="CPU seconds per image")
    parser.add_argument("--explora-cost", type=float, default=2.0, help="CPU seconds per image")
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--cells", action="store_true", help="print no table")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    study = Study(args)
    cells = [(deal, name) for deal in range(args.deals) for name in args.variants or ORDER]
    for deal, name in [] if args.table else cells:
        study.deal = deal
        needs_dino = WAYS[name].backbone == DINO if name in WAYS else name in (DISTIL, EXPLORA)
        if needs_dino and args.dinov2 is None:
            continue
        if name in WAYS:
            train_way(study, name)
        elif name == WIDE:
            wide_way(study)
        elif args.unlabelled is not None:
            pretrain_way(study, name)
    if args.cells:
        return
    table = show(study)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
