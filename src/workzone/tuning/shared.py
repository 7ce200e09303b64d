"""Phases that cells of one ablation or sweep have in common: done once for each fold, and taken over by every cell."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from workzone.config import RunConfig
from workzone.files import atomic_path, read_json, sha256_file, sha256_json
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.engine import run_pipeline
from workzone.pipeline.phase import Context, PhaseSpec, Progress
from workzone.pipeline.phases import augment, pretrain, train

FREE = ("model", "pretrain", "augment", "train", "fuse", "views")
"""Sections in which trainings of one ablation or sweep may differ."""
_PRETRAIN = ("model", "pretrain")
_TRAIN = ("model", "pretrain", "augment", "train", "views")


def settings_of(config: RunConfig, sections: Sequence[str] = FREE) -> dict[str, object]:
    """What of ``sections`` decides a training; a phase that is off decides nothing."""
    own = config.model_dump(mode="json", include=set(sections))
    if config.pretrain.method == "none":
        own.pop("pretrain", None)
    if not config.augment.search:
        own.pop("augment", None)
    return own


def first_phases(
    config: RunConfig, prepare: PhaseSpec, splits: Path, progress: Progress | None = None
) -> tuple[tuple[PhaseSpec, ...], float]:
    """Phases of a cell up to train, and the seconds of those that were done in a shared folder.

    Pretraining, the search for an augmentation and the adaptation of a backbone see the images of role train of the
    cell alone, plus val_select where phase train stops early; they run in ``shared/`` beside the cells, under the
    seed and the folds of the cell. Cells that agree in what decides them find them done.

    Args:
        config: of the cell, with its own ``out`` two folders below that of the ablation.
        prepare: phase that gives the roles of the cell.
        splits: file of these roles.
        progress: where phases report.
    """
    pretrained, adapted = config.pretrain.method != "none", config.train.method != "frozen"
    if not pretrained and not adapted:
        return (prepare, train.SPEC), 0.0
    phases: list[PhaseSpec] = [prepare]
    seconds = 0.0
    for wanted, specs, sections in (
        (pretrained, (pretrain.SPEC,), _PRETRAIN),
        (True, (augment.SPEC, train.SPEC), _TRAIN),
    ):
        if wanted:
            home = _folder(config, splits, sections)
            seconds += _run(config, home, (*phases, *specs), specs, progress)
            phases = [prepare, taken(specs[-1], home)]
    return tuple(phases), seconds


def first_folder(config: RunConfig, splits: Path) -> Path | None:
    """Folder that the longest of the shared phases will use; None where a cell shares nothing."""
    if config.pretrain.method != "none":
        return _folder(config, splits, _PRETRAIN)
    return _folder(config, splits, _TRAIN) if config.train.method != "frozen" else None


def taken(spec: PhaseSpec, home: Path) -> PhaseSpec:
    """Phase in place of ``spec`` that takes over what it wrote to ``home``."""
    theirs = Artifacts(home)

    def run(context: Context) -> None:
        for path in spec.outputs(context.artifacts, context.config):
            source = home / path.relative_to(context.artifacts.root)
            for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
                if file.is_file():
                    _link(file, context.artifacts.root / file.relative_to(home))

    return PhaseSpec(
        name=spec.name,
        version=spec.version,
        config=(),
        inputs=lambda a, c: spec.outputs(theirs, c),
        outputs=spec.outputs,
        roles=(),
        run=run,
    )


def seconds_of(artifacts: Artifacts, phases: Sequence[str]) -> float:
    """Wall seconds that ``phases`` took when they were run; a phase that was not wanted took none."""
    done = read_json(artifacts.record)["phases"]
    return float(sum(done[name]["seconds"] for name in phases if name in done))


def _folder(config: RunConfig, splits: Path, sections: Sequence[str]) -> Path:
    key = sha256_json([settings_of(config, sections), config.seed, sha256_file(splits)])[:16]
    return config.out.parent.parent / "shared" / key


def _run(
    config: RunConfig, home: Path, phases: Sequence[PhaseSpec], own: Sequence[PhaseSpec], progress: Progress | None
) -> float:
    with _alone(home):
        run_pipeline(config.model_copy(update={"out": home}), phases, progress=progress)
    return seconds_of(Artifacts(home), [s.name for s in own if s.wanted is None or s.wanted(config)])


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Wait for another process that does the same; the run folder's own lock would refuse the second."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / f"{home.name}.lock").open("w") as stream:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX)
        yield


def _link(source: Path, target: Path) -> None:
    """Put ``source`` at ``target`` without a second copy where the disk allows; files of runs are never written to."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
