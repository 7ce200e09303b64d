"""Ablation: the same images, folds and seeds for every variant, and differences with paired intervals."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workzone.cluster import Launcher
from workzone.config import RunConfig
from workzone.data.manifest import Manifest
from workzone.data.splits import Splits
from workzone.errors import ConfigError
from workzone.files import write_atomic, write_json
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.phase import Progress
from workzone.pipeline.phases import prepare
from workzone.predictions import FloatArray, Predictions
from workzone.tuning.cell import ONE_VIEW, Cell, cell_config, run_cell
from workzone.tuning.folds import make_folds
from workzone.tuning.grid import BASELINE
from workzone.tuning.judge import Images, check_metric, judge
from workzone.tuning.pool import neighbours, open_pool
from workzone.tuning.shared import first_folder

METRICS = ("macro_auroc", "auroc", "average_precision", "nll", "mcc")
ONE_VIEW_ROW = "one view"


@dataclass(frozen=True, slots=True)
class Plan:
    """How an ablation is measured.

    Attributes:
        folds: folds of one dealing.
        splits: dealings, each with folds of its own.
        seeds: training seeds per dealing.
        select: share of the images outside a fold that stop training early.
        metric: figure that variants are ordered and drawn by.
        resamples: draws of whole groups.
        fewest: images of each class that a source needs to count in a macro figure.
        workers: cells trained at the same time, each in a process and on one thread where more than 1.
        launcher: processes of this machine, or tasks of a Ray cluster that sees the same folders.
        address: of the cluster; None for ``RAY_ADDRESS`` or one of this machine.
    """

    folds: int = 5
    splits: int = 1
    seeds: int = 1
    select: float = 0.125
    metric: str = "macro_auroc"
    resamples: int = 2000
    fewest: int = 5
    workers: int = 1
    launcher: Launcher = "local"
    address: str | None = None


def run_ablation(
    configs: Mapping[str, RunConfig], out: Path, plan: Plan, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Train every variant on every fold, and write ``ablation.json``, ``ablation.csv`` and ``forest.png`` to ``out``.

    Finished cells are found again, so a killed ablation goes on where it stopped.

    Returns:
        The content of ``ablation.json``.

    Raises:
        ConfigError: impossible numbers, or an unknown metric.
        DataError: too few groups for the folds.
    """
    check_metric(plan.metric)
    if min(plan.splits, plan.seeds, plan.workers) < 1 or plan.resamples < 100:
        raise ConfigError("splits, seeds and workers must be at least 1, resamples at least 100")
    from workzone.training.check import check_settings

    for config in configs.values():
        check_settings(config)
    show = progress or Progress()
    base = configs[BASELINE]
    home = Artifacts(out / "base")
    run_pipeline(base.model_copy(update={"out": home.root}), (prepare.SPEC,), progress=show)
    cells = _cells(configs, out, plan, home)
    scores: dict[Cell, tuple[Predictions, float]] = {}
    with show.bar(f"training {len(cells)} cells of {len(configs)} variants") as advance:
        for cell, found in _run_all(cells, plan):
            scores[cell] = found
            advance(len(scores), len(cells))
    result = summarise(scores, plan, list(configs), base.seed)
    write_json(out / "ablation.json", result)
    write_atomic(out / "ablation.csv", _csv(result))
    from workzone.tuning.draw import forest

    write_atomic(out / "forest.png", forest(result))
    return result


def _cells(configs: Mapping[str, RunConfig], out: Path, plan: Plan, home: Artifacts) -> list[Cell]:
    manifest, splits = Manifest.load(home.manifest), Splits.load(home.splits)
    base = configs[BASELINE]
    cells = []
    for dealing in range(plan.splits):
        dealt = make_folds(manifest, splits, folds=plan.folds, select=plan.select, seed=base.seed + dealing)
        for fold, roles in enumerate(dealt):
            path = roles.save(out / "folds" / f"{dealing}-{fold}.json")
            for seed in range(plan.seeds):
                for name, config in configs.items():
                    key = (dealing, fold, seed, plan.folds, plan.select)
                    number = base.seed + 1000 * dealing + seed
                    at_once = neighbours(plan.launcher, plan.workers)
                    own = cell_config(config, out, *key, seed=number, workers=at_once)
                    cells.append(Cell(name, own, home.manifest, path, dealing * plan.seeds + seed, fold))
    return cells


def _run_all(cells: Sequence[Cell], plan: Plan) -> Any:
    if plan.workers == 1 and plan.launcher == "local":
        for cell in cells:
            yield cell, run_cell(cell)
        return
    # The first cell fills the feature cache, so that not every process embeds the images of the baseline.
    yield cells[0], run_cell(cells[0])
    with open_pool(plan.launcher, plan.workers, address=plan.address) as pool:
        waiting = {pool.submit(run_cell, cell): cell for cell in _shared_first(cells[1:])}
        for done in as_completed(waiting):
            yield waiting[done], done.result()


def _shared_first(cells: Sequence[Cell]) -> list[Cell]:
    """``cells`` with one of each shared pretraining or adaptation in front, so that processes seldom wait for it."""
    seen: set[Path] = set()
    first: list[Cell] = []
    rest: list[Cell] = []
    for cell in cells:
        home = first_folder(cell.config, cell.splits)
        (rest if home is None or home in seen else first).append(cell)
        if home is not None:
            seen.add(home)
    return [*first, *rest]


def summarise(
    scores: Mapping[Cell, tuple[Predictions, float]], plan: Plan, names: Sequence[str], seed: int
) -> dict[str, Any]:
    """Figures and differences of all variants from the scores of their cells."""
    some = [p for cell, (p, _) in scores.items() if cell.variant == names[0] and cell.repeat == 0]
    ids = np.concatenate([p.ids for p in some])
    order = np.argsort(ids)
    ids = ids[order]
    labels = np.concatenate([np.asarray(p.labels) for p in some])[order].astype(np.int64)
    images = Images(
        labels,
        np.concatenate([p.column("group") for p in some])[order],
        np.concatenate([p.column("source") for p in some])[order],
    )
    repeats = plan.splits * plan.seeds

    def gather(name: str, read: Callable[[Predictions], FloatArray]) -> list[FloatArray]:
        found = []
        for repeat in range(repeats):
            own = [p for cell, (p, _) in scores.items() if cell.variant == name and cell.repeat == repeat]
            at = np.argsort(np.concatenate([p.ids for p in own]))
            found.append(np.concatenate([read(p) for p in own])[at])
        return found

    by_name = {name: gather(name, lambda p: p.log_odds) for name in names}
    once = gather(names[0], lambda p: np.asarray(p.columns[ONE_VIEW], dtype=np.float64))
    metrics = list(dict.fromkeys((plan.metric, *METRICS)))
    rows = judge(
        images,
        {**by_name, ONE_VIEW_ROW: once},
        metrics,
        baseline=names[0],
        resamples=plan.resamples,
        seed=seed,
        fewest=plan.fewest,
    )
    seconds = {
        name: sum(s for cell, (_, s) in scores.items() if cell.variant == name) / (repeats * plan.folds)
        for name in names
    }
    return {
        "plan": asdict(plan),
        "n": len(ids),
        "n_positive": int(labels.sum()),
        "n_groups": len(np.unique(images.groups)),
        "macro_sources": images.macro_sources(plan.fewest),
        "baseline": names[0],
        "rows": [
            {
                "variant": row["variant"],
                "seconds_per_training": seconds.get(row["variant"]),
                **{
                    kind: {m: asdict(f) for m, f in row[kind].items()} for kind in ("figures", "differences", "sources")
                },
            }
            for row in rows
        ],
    }


def _csv(result: Mapping[str, Any]) -> str:
    text = io.StringIO()
    metrics = list(result["rows"][0]["figures"])
    writer = csv.writer(text, lineterminator="\n")
    ends = ("value", "low", "high")
    writer.writerow(
        ["variant", "seconds_per_training"]
        + [f"{m}_{e}" for m in metrics for e in ends]
        + [f"difference_{m}_{e}" for m in metrics for e in ends]
    )
    for row in result["rows"]:
        figures = [row[kind][m][e] for kind in ("figures", "differences") for m in metrics for e in ends]
        writer.writerow([row["variant"], row["seconds_per_training"], *figures])
    return text.getvalue()
