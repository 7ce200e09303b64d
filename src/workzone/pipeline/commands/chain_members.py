"""Finished runs as the models of one cascade: what they must share, and which images are left to certify it on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from workzone.bundle import Detector
from workzone.bundle.embedding import ViewEmbeddings
from workzone.bundle.engines import Engine
from workzone.config import RunConfig
from workzone.config.load import load_config
from workzone.data.roles import CalibData, RoleData, TestData
from workzone.errors import ArtifactError, DataError, LeakageError
from workzone.files import sha256_file
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.phase import Context, PhaseSpec, Progress
from workzone.pipeline.phases.calibrate import calibration_parts
from workzone.pipeline.phases.embedding import embed_role
from workzone.pipeline.variants import main_variant

R = TypeVar("R", bound=RoleData)
_SPEC = PhaseSpec(
    name="cascade",
    version=1,
    config=(),
    inputs=lambda a, c: [],
    outputs=lambda a, c: [],
    roles=(CalibData.role, TestData.role),
    run=lambda context: None,
)


@dataclass(frozen=True, slots=True)
class Member:
    """One finished run whose bundle is a model of the cascade."""

    context: Context
    detector: Detector

    @property
    def config(self) -> RunConfig:
        """Configuration of the run."""
        return self.context.config

    def embed(self, data: RoleData) -> tuple[Engine, ViewEmbeddings]:
        """The engine of the bundle, and its embeddings of the views of ``data``; known ones come from the cache."""
        folder = f"export/{main_variant(self.config)}"
        return self.detector.engine, embed_role(self.context, data, self.detector.engine, folder)


def open_member(run: Path, progress: Progress) -> Member:
    """The run in folder ``run`` with its bundle.

    Raises:
        ArtifactError: it is not finished, or its split was made anew since.
    """
    fix = "finish it with workzone run"
    if not (run / "config.yaml").is_file() or not (run / "bundle" / "bundle.json").is_file():
        raise ArtifactError("there is no finished run here", where=str(run), fix=f"give the folder of a run; {fix}")
    # The folder may have been moved since.
    config = load_config([f"out={run.resolve()}"], file=run / "config.yaml")
    made = Artifacts(config.out)
    detector = Detector.load(made.bundle, threads=config.compute.threads)
    if detector.certificate.split_sha256 != sha256_file(made.splits):
        raise ArtifactError("the split of the run is not the one its bundle was certified on", where=str(run), fix=fix)
    return Member(Context(_SPEC, config, made, progress), detector)


def certification_parts(members: Sequence[Member]) -> tuple[CalibData, CalibData, CalibData]:
    """All images of val_calib; those that fitted the calibrator of any member; and those that fitted none.

    Raises:
        DataError: the members have other images, labels or splits, or no image with roadwork is left.
        LeakageError: the calibrator of a member was fitted on other images than its run says.
    """
    data = same_role(members, CalibData)
    used: set[str] = set()
    for member in members:
        part, _ = calibration_parts(member.context.open(CalibData), member.config)
        if part.fingerprint != member.detector.certificate.calibration_images_sha256:
            raise LeakageError(
                "the calibrator of a member was fitted on other images than its configuration says",
                where=str(member.context.artifacts.root),
                fix="finish the run again with workzone run",
            )
        used |= set(part.ids.tolist())
    mine = np.isin(data.ids, sorted(used))
    # Images of one group are not independent, so a group that any calibrator knows is no evidence.
    mine = np.isin(data.groups, np.unique(data.groups[mine]))
    first, second = data.take(mine), data.take(~mine)
    if not second.n_positive or second.n_positive == len(second):
        raise DataError(
            f"the calibrators of the members were fitted on {len(first)} of the {len(data)} images of val_calib, and "
            f"the {len(second)} others are not of both classes, so the cascade cannot be certified",
            where=", ".join(str(m.context.artifacts.root) for m in members),
            fix="train the members with the same seed and calibrate.fraction, so that their calibrators share images",
        )
    return data, first, second


def same_role(members: Sequence[Member], kind: type[R]) -> R:
    """The images of a role; raises DataError unless they are the same, with labels and groups, for every member."""
    first, *others = (m.context.open(kind) for m in members)
    where = " and ".join(str(m.context.artifacts.root) for m in members)
    splits = {sha256_file(m.context.artifacts.splits) for m in members}
    if any(set(o.ids.tolist()) != set(first.ids.tolist()) for o in others) or len(splits) > 1:
        raise DataError(
            "the members have different splits, so one may have learned from images of the other's val_calib",
            where=where,
            fix="make the runs with the same data, split keys and seed",
        )
    known = _marks(first)
    for other in others:
        if wrong := [i for i, mark in _marks(other).items() if known[i] != mark]:
            raise DataError(
                f"{len(wrong)} images of role {kind.role} have another label or group in another member",
                where=f"image {wrong[0]!r} of {where}",
                fix="make the runs from the same labelled data",
            )
    return first


def _marks(data: RoleData) -> dict[str, tuple[int, str]]:
    """Label and group of each image."""
    marks = zip(data.labels.tolist(), data.groups.tolist(), strict=True)
    return dict(zip(data.ids.tolist(), marks, strict=True))


def look_cost(engine: Engine, *, repeats: int = 5) -> float:
    """Seconds that one look takes on this machine: the fastest of ``repeats`` passes, divided by their views."""
    side, views = engine.image_size, engine.views_per_pass
    pixels = np.random.default_rng(0).integers(0, 256, (views, side, side, 3), dtype=np.uint8)
    engine.embed(pixels)
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        engine.embed(pixels)
        times.append(time.perf_counter() - begun)
    return min(times) / views
