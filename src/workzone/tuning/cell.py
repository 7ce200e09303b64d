"""One training of an ablation or a sweep: a small run of its own, resumed like any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workzone.config import RunConfig
from workzone.data.manifest import Manifest
from workzone.data.roles import CalibData
from workzone.files import sha256_json, write_atomic
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.phase import Context, PhaseSpec, Progress
from workzone.pipeline.phases import fuse
from workzone.pipeline.phases.embedding import embed_role
from workzone.pipeline.phases.train import to_features
from workzone.predictions import Predictions
from workzone.tuning.shared import first_phases, seconds_of, settings_of

ONE_VIEW = "one_view_log_odds"


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
    changed: dict[str, object] = {"out": out / "cells" / sha256_json([settings_of(config), *key])[:16], "seed": seed}
    if workers > 1:
        changed["compute"] = config.compute.model_copy(update={"threads": 1, "workers": 1})
    return config.model_copy(update=changed)


def run_cell(cell: Cell, progress: Progress | None = None) -> tuple[Predictions, float]:
    """Train (or find trained) and score the held-out fold; returns the scores and the seconds of training.

    The seconds are those of pretraining, search, adaptation and heads, whichever cell they were done for first. The
    column ``one_view_log_odds`` holds the scores of the head that looks once.
    """
    seconds = train_cell(cell, _SCORE, progress=progress)
    return Predictions.load(Artifacts(cell.config.out).held_out), seconds


def train_cell(cell: Cell, *more: PhaseSpec, progress: Progress | None = None) -> float:
    """Run the wanted phases up to fuse, then ``more``; returns the seconds of training.

    Pretraining, augmentation search and adaptation are done once for all cells that agree in them, see
    ``workzone.tuning.shared``.
    """
    first, before = first_phases(cell.config, fold_phase(cell), cell.splits, progress)
    run_pipeline(cell.config, (*first, fuse.SPEC, *more), progress=progress)
    return before + seconds_of(Artifacts(cell.config.out), ("train", "fuse"))


def fold_phase(cell: Cell) -> PhaseSpec:
    """Phase in place of prepare: the manifest of the base run, and the roles of the cell."""

    def run(context: Context) -> None:
        manifest = Manifest.load(cell.manifest)
        # Drawn scenes lie beside the manifest of the base run and are named from there.
        if all(Path(path).is_absolute() for path in manifest.frame["path"].to_list()):
            write_atomic(context.artifacts.manifest, cell.manifest.read_bytes())
        else:
            manifest.save(context.artifacts.manifest)
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
