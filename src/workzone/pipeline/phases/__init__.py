"""The phases of a run, in order."""

from __future__ import annotations

from workzone.pipeline.phase import PhaseSpec
from workzone.pipeline.phases import bundle, calibrate, decide, evaluate, export, fuse, prepare, train

PHASES: tuple[PhaseSpec, ...] = (
    prepare.SPEC,
    train.SPEC,
    fuse.SPEC,
    export.SPEC,
    calibrate.SPEC,
    decide.SPEC,
    evaluate.SPEC,
    bundle.SPEC,
)
