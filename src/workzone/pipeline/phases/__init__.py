"""The phases of a run, in order."""

from __future__ import annotations

from workzone.pipeline.phase import PhaseSpec
from workzone.pipeline.phases import (
    augment,
    bundle,
    calibrate,
    decide,
    evaluate,
    export,
    fuse,
    prepare,
    pretrain,
    train,
)

PHASES: tuple[PhaseSpec, ...] = (
    prepare.SPEC,
    pretrain.SPEC,
    augment.SPEC,
    train.SPEC,
    fuse.SPEC,
    export.SPEC,
    calibrate.SPEC,
    decide.SPEC,
    evaluate.SPEC,
    bundle.SPEC,
)
