"""Across data sets: train on one and test on each other, and on all but one and test on that one."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workzone.config import RunConfig
from workzone.data.allocate import allocate
from workzone.data.manifest import Manifest
from workzone.data.roles import Role
from workzone.data.splits import Splits
from workzone.errors import DataError
from workzone.evaluation.report.style import Palette, Plot, printable
from workzone.files import sha256_json, write_atomic, write_json
from workzone.metrics.bootstrap import bootstrap
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.phase import Progress
from workzone.pipeline.phases import prepare
from workzone.predictions import Predictions, sigmoid
from workzone.tuning.cell import Cell, run_cell
from workzone.tuning.folds import HELD_OUT
from workzone.tuning.shared import settings_of

ALL_OTHERS = "all others"
_OPEN = (Role.TRAIN, Role.VAL_SELECT)
METRIC = "auroc"
_TESTED = 3
"""Images of each class that a figure needs."""
_GROUPS = 2
"""Groups that an interval needs: of one group there is nothing to draw."""
_DARK = 0.85
_COLUMN = 13
"""Letters of a name that fit below one column."""


@dataclass(frozen=True, slots=True)
class CrossPlan:
    """How it is measured.

    Attributes:
        by: column that names the data set.
        fewest: images of each class that a set needs to be trained on; 3 of each are enough to be tested on.
        select: share of the training images that stop the training early.
        held: share of a set that is kept from its own training, for the diagonal.
        resamples: draws of whole groups.
    """

    by: str = "source"
    fewest: int = 10
    select: float = 0.15
    held: float = 0.3
    resamples: int = 1000


@dataclass(frozen=True, slots=True)
class _Pool:
    ids: list[str]
    labels: np.ndarray
    sets: np.ndarray
    units: np.ndarray
    content: Mapping[str, str]

    def counts(self, name: str) -> np.ndarray:
        return np.bincount(self.labels[self.sets == name], minlength=2)


def run_cross(config: RunConfig, out: Path, plan: CrossPlan, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train one model per data set and one per set left out, and write ``cross.json``, ``cross.csv`` and ``cross.png``.

    Only images of train and val_select are used. A unit (group, or copies of one picture) never lies on both sides,
    even if its images are in two data sets. Finished trainings are found again.

    Returns:
        The content of ``cross.json``.

    Raises:
        DataError: fewer than two data sets with enough images of both classes, or no such column.
    """
    show = progress or Progress()
    home = Artifacts(out / "base")
    run_pipeline(config.model_copy(update={"out": home.root}), (prepare.SPEC,), progress=show)
    pool = _pool(Manifest.load(home.manifest), Splits.load(home.splits), plan.by)
    names = [str(s) for s in np.unique(pool.sets) if pool.counts(str(s)).min() >= plan.fewest]
    if len(names) < 2:
        raise DataError(
            f"{len(names)} data sets have {plan.fewest} images of each class",
            where=f"column {plan.by}",
            fix="give more data, or lower --fewest",
        )
    jobs = [(name, _one(pool, name, plan, config.seed)) for name in names]
    tested = [str(s) for s in np.unique(pool.sets) if pool.counts(str(s)).min() >= min(plan.fewest, _TESTED)]
    jobs += [(f"not {name}", _others(pool, name, plan, config.seed)) for name in tested]
    rows = []
    with show.bar(f"training {len(jobs)} models on {len(names)} data sets") as advance:
        for done, (trained, roles) in enumerate(jobs, 1):
            own = settings_of(config) | {"seed": config.seed}
            key = sha256_json([roles.fingerprint, own])[:16]
            path = roles.save(out / "roles" / f"{key}.json")
            cell = Cell(trained, config.model_copy(update={"out": out / "cells" / key}), home.manifest, path, 0, 0)
            predictions, seconds = run_cell(cell)
            rows += _figures(trained, predictions, roles, plan, config.seed, seconds)
            advance(done, len(jobs))
    not_tested = {str(s): _why_not(pool.counts(str(s))) for s in np.unique(pool.sets) if str(s) not in tested}
    result = {
        "metric": METRIC, "by": plan.by, "sets": names, "tested": tested, "not_tested": not_tested, "rows": rows
    }  # fmt: skip
    write_json(out / "cross.json", result)
    write_atomic(out / "cross.csv", _csv(rows))
    write_atomic(out / "cross.png", heat_map(result).render()[0])
    return result


def _why_not(counts: np.ndarray) -> str:
    """Why a data set has no figure, from its images without and with roadwork."""
    without, roadwork = counts.tolist()
    if not roadwork or not without:
        return f"{without + roadwork} images, all {'with' if roadwork else 'without'} roadwork"
    return f"{roadwork} of {without + roadwork} images with roadwork, fewer than {_TESTED} of one class"


def _pool(manifest: Manifest, splits: Splits, by: str) -> _Pool:
    if by not in manifest.frame.columns:
        raise DataError(f"the images have no column {by!r}", where="--by", fix="take source, or origin after data fuse")
    frame = manifest.frame
    open_ids = {i for i, role in splits.assignment.items() if role in _OPEN}
    frame = frame.filter(frame["id"].is_in(list(open_ids)) & frame["label"].is_not_null())
    ids = frame["id"].to_list()
    return _Pool(
        ids,
        frame["label"].to_numpy().astype(np.int64),
        np.array(["unknown" if v is None else str(v) for v in frame[by].to_list()], dtype=np.str_),
        np.array([splits.units.get(i, i) for i in ids], dtype=np.str_),
        splits.content,
    )


def _one(pool: _Pool, name: str, plan: CrossPlan, seed: int) -> Splits:
    """Train on ``name``; a part of it, and every unit that holds no image of it, is held out."""
    own = np.isin(pool.units, pool.units[pool.sets == name])
    shares = [(1 - plan.held) * (1 - plan.select), (1 - plan.held) * plan.select, plan.held]
    return _roles(pool, own, shares, seed)


def _others(pool: _Pool, name: str, plan: CrossPlan, seed: int) -> Splits:
    """Train on all units without an image of ``name``; the images of ``name`` are held out."""
    own = ~np.isin(pool.units, pool.units[pool.sets == name])
    return _roles(pool, own, [1 - plan.select, plan.select, 0.0], seed)


def _roles(pool: _Pool, own: np.ndarray, shares: Sequence[float], seed: int) -> Splits:
    """Deal the units of the images ``own`` by ``shares`` to train, val_select and held out; hold out all others."""
    units, unit_of = np.unique(pool.units[own], return_inverse=True)
    sets = np.unique(pool.sets)
    strata = np.zeros((len(units), len(sets), 2))
    np.add.at(strata, (unit_of, np.searchsorted(sets, pool.sets[own]), pool.labels[own]), 1)
    negatives, positives = strata.sum(axis=1).T
    kept = [i for i, s in enumerate(shares) if s > 0]
    flat = strata.reshape(len(units), -1)
    dealt = allocate(positives, negatives, flat, positives + negatives, np.array([shares[i] for i in kept]), seed=seed)
    roles = (Role.TRAIN, Role.VAL_SELECT, HELD_OUT)
    role_of = {str(u): roles[kept[int(k)]] for u, k in zip(units, dealt, strict=True)}
    assignment = {i: role_of.get(str(u), HELD_OUT) for i, u in zip(pool.ids, pool.units, strict=True)}
    content = {i: pool.content[i] for i in pool.ids if i in pool.content}
    return Splits(assignment, content, dict(zip(pool.ids, pool.units.tolist(), strict=True)), seed=seed)


def _figures(
    trained: str, predictions: Predictions, roles: Splits, plan: CrossPlan, seed: int, seconds: float
) -> list[dict[str, Any]]:
    sets, groups = predictions.column(plan.by), predictions.column("group")
    labels = np.asarray(predictions.labels, dtype=np.int64)
    out = []
    for tested in np.unique(sets):
        left_out = trained.startswith("not ") and trained != f"not {tested}"
        own = sets == tested
        if left_out or np.bincount(labels[own], minlength=2).min() < min(plan.fewest, _TESTED):
            continue
        units = len(np.unique(groups[own]))
        interval = bootstrap(
            [METRIC], labels[own], sigmoid(predictions.log_odds[own]), groups=groups[own], n_resamples=plan.resamples,
            seed=seed,
        )[METRIC]  # fmt: skip
        ends = [float(v) if np.isfinite(v) else None for v in (interval.value, interval.low, interval.high)]
        if units < _GROUPS:
            ends[1:] = [None, None]
        out.append(
            {
                "trained": ALL_OTHERS if trained.startswith("not ") else trained, "tested": str(tested),
                "value": ends[0], "low": ends[1], "high": ends[2], "n": int(own.sum()),
                "n_positive": int(labels[own].sum()), "n_groups": units,
                "n_train": len(roles.ids(Role.TRAIN)), "seconds": seconds,
            }
        )  # fmt: skip
    return out


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def heat_map(result: Mapping[str, Any]) -> Plot:
    """Trained on (rows) against tested on (columns), with intervals; a cell without both classes is empty."""
    trained = [*result["sets"], ALL_OTHERS]
    tested = sorted({row["tested"] for row in result["rows"]}, key=lambda t: (t not in result["sets"], t))
    values = np.full((len(trained), len(tested)), np.nan)
    told: dict[tuple[int, int], str] = {}
    counts: dict[str, tuple[int, int]] = {}
    for row in result["rows"]:
        i, j = trained.index(row["trained"]), tested.index(row["tested"])
        if row["value"] is not None:
            values[i, j] = row["value"]
            between = "1 group" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
            told[i, j] = f"{row['value']:.2f}\n{between}"
        # A set is tested in part where it is also trained on; the whole of it is named below the picture.
        if row["n"] >= counts.get(row["tested"], (0, 0))[1]:
            counts[row["tested"]] = row["n_positive"], row["n"]

    def draw(figure: Any, colours: Palette) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes = figure.subplots()
        shades = LinearSegmentedColormap.from_list("auroc", [colours.grid, colours.clear])
        axes.imshow(values, cmap=shades, vmin=0.5, vmax=1.0, aspect="auto")
        names = [f"{_in_lines(t)}\n{counts[t][0]} of {counts[t][1]}" for t in tested]
        axes.set_xticks(range(len(tested)), names)
        axes.set_yticks(range(len(trained)), [printable(t, 28) for t in trained])
        about = "AUROC with 95% interval\ndotted: trained on other images of this set"
        figure.suptitle(about, x=0.01, ha="left", fontsize=8)
        axes.set(xlabel="tested on (roadwork of images)", ylabel="trained on")
        axes.grid(visible=False)
        for (i, j), text in told.items():
            ink = "white" if values[i, j] > _DARK else colours.ink
            axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=8)
        for i in range(len(result["sets"])):
            if result["sets"][i] in tested:
                j = tested.index(result["sets"][i])
                axes.add_patch(_frame(i, j, colours.ink))

    size = (1.9 + 1.0 * len(tested), 1.6 + 0.55 * len(trained))
    return Plot("cross", draw, size, f"AUROC of models trained on one {result['by']} and tested on another")


def _in_lines(name: str) -> str:
    """A name in lines that fit below one column."""
    return textwrap.fill(printable(name, 36).replace("_", "_ "), _COLUMN).replace("_ ", "_")


def _frame(i: int, j: int, colour: Any) -> Any:
    """Frame of a cell whose data set was trained on in part."""
    from matplotlib.patches import Rectangle

    return Rectangle((j - 0.48, i - 0.46), 0.96, 0.92, fill=False, edgecolor=colour, linewidth=0.8, linestyle=":")
