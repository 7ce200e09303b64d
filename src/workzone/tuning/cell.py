"""One training of an ablation or a sweep: a small run of its own, resumed like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workzone.config import RunConfig
from workzone.data.roles import CalibData
from workzone.files import read_json, sha256_json, write_atomic
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.phase import Context, PhaseSpec, Progress
from workzone.pipeline.phases import fuse, train
from workzone.pipeline.phases.embedding import embed_role
from workzone.pipeline.phases.train import to_features
from workzone.predictions import Predictions

ONE_VIEW = "one_view_log_odds"
FREE = ("model", "train", "fuse", "views")
"""Sections in which trainings of one ablation or sweep may differ."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one training is: the settings of a variant on one fold of one dealing, from one seed."""

    variant: str
    config: RunConfig
    manifest: Path
    splits: Path
    repeat: int
    fold: int


def cell_config(config: RunConfig, out: Path, *key: object, seed: int, workers: int) -> RunConfig:
    """``config`` in a folder of its own below ``out``, named by what is trained and by ``key``.

    Where several ``workers`` train at once, each takes one thread.
    """
    own = config.model_dump(mode="json", include=set(FREE))
    changed: dict[str, object] = {"out": out / "cells" / sha256_json([own, *key])[:16], "seed": seed}
    if workers > 1:
        changed["compute"] = config.compute.model_copy(update={"threads": 1, "workers": 1})
    return config.model_copy(update=changed)


def run_cell(cell: Cell, progress: Progress | None = None) -> tuple[Predictions, float]:
    """Train (or find trained) and score the held-out fold; returns the scores and the seconds of training.

    The column ``one_view_log_odds`` holds the scores of the head that looks once.
    """
    phases = (fold_phase(cell), train.SPEC, fuse.SPEC, _SCORE)
    run_pipeline(cell.config, phases, progress=progress)
    artifacts = Artifacts(cell.config.out)
    return Predictions.load(artifacts.held_out), seconds_of(artifacts, ("train", "fuse"))


def seconds_of(artifacts: Artifacts, phases: Sequence[str]) -> float:
    """Wall seconds that ``phases`` took when they were run."""
    done = read_json(artifacts.record)["phases"]
    return float(sum(done[name]["seconds"] for name in phases))


def fold_phase(cell: Cell) -> PhaseSpec:
    """Phase in place of prepare: the manifest of the base run, and the roles of the cell."""

    def run(context: Context) -> None:
        write_atomic(context.artifacts.manifest, cell.manifest.read_bytes())
        write_atomic(context.artifacts.splits, cell.splits.read_bytes())

    return PhaseSpec(
        name="prepare",
        version=1,
        config=(),
        inputs=lambda a, c: [cell.manifest, cell.splits],
        outputs=lambda a, c: [a.manifest, a.splits],
        roles=(),
        run=run,
    )


def _score(context: Context) -> None:
    from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine
    from workzone.models.storage import load_head
    from workzone.training.fuse import score_features

    artifacts = context.artifacts
    data = context.open(CalibData)
    engine = OnnxRuntimeEngine.open(artifacts.backbone_onnx, threads=context.config.compute.threads, head=False)
    features = to_features(embed_role(context, data, engine, "train/onnx"), data)
    once = score_features(load_head(artifacts.train, name="probe"), features.views(1))
    Predictions(
        ids=data.ids,
        labels=data.labels,
        log_odds=score_features(load_head(artifacts.fuse, name="fusion"), features),
        columns={**data.columns, "group": data.groups, ONE_VIEW: once},
    ).save(artifacts.held_out)


_SCORE = PhaseSpec(
    name="score",
    version=1,
    config=(),
    inputs=lambda a, c: [
        a.manifest,
        a.splits,
        a.backbone_onnx,
        a.preprocessing,
        *a.head_files(a.train, "probe"),
        *a.head_files(a.fuse, "fusion"),
    ],
    outputs=lambda a, c: [a.held_out],
    roles=(CalibData.role,),
    run=_score,
)
