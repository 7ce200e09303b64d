"""Scores of a finished bundle, or of the parts of one, on images from elsewhere, ready to be evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from workzone.bundle.chain import open_bundle
from workzone.bundle.runtime import Decider
from workzone.bundle.slices import unknown_slices
from workzone.data.hours import HOUR_BAND, hour_bands
from workzone.data.sources.build import build_manifest
from workzone.decisions import Decision
from workzone.decisions.types import Decisions, together
from workzone.errors import DataError, ImageError
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.selective import policy_confidence
from workzone.pipeline.overlay import overlay_of
from workzone.pipeline.phase import Progress
from workzone.predictions import Predictions, pad_rows
from workzone.vision.corruptions import Picture


def evaluate_bundle_inputs(bundle: Path, data: Path, *, threads: int, progress: Progress) -> Evaluated:
    """Score the labelled images of ``data`` with ``bundle``.

    Raises:
        BundleError: the bundle is not good.
        DataError: no labelled images, or an image that was readable a moment ago is not.
    """
    detector = open_bundle(bundle, threads=threads)
    with progress.bar("reading images") as advance:
        manifest = build_manifest(data, progress=advance)
    frame = manifest.frame.filter(manifest.frame["label"].is_not_null())
    if not frame.height:
        raise DataError("none of the images has a label", where=str(data), fix="give a label column or class folders")
    paths = [p for p, label in zip(manifest.paths, manifest.frame["label"].to_list(), strict=True) if label is not None]

    def fail(index: int, error: ImageError) -> None:
        raise DataError(f"an image can no longer be read: {error.what}", where=str(paths[index])) from error

    columns = {c: np.array(frame[c].to_list(), dtype=object) for c in frame.columns if c not in ("id", "label", "path")}
    needed = detector.calibrator.needs
    if HOUR_BAND in needed and HOUR_BAND not in columns:
        columns[HOUR_BAND] = hour_bands(columns, len(paths))
    log_odds = np.empty(len(paths))
    answers: list[Decision] = []
    views: list[list[float]] = []
    with progress.bar("scoring images") as advance:
        for index, decision in detector.predict(
            paths, on_error=fail, workers=threads, columns={c: columns[c] for c in needed if c in columns}
        ):
            answers.append(decision)
            log_odds[index] = decision.log_odds
            views.append([view.log_odds for view in decision.views])
            advance(index + 1, len(paths))
    predictions = Predictions(
        ids=np.array(frame["id"].to_list(), dtype=np.str_),
        log_odds=log_odds,
        view_log_odds=pad_rows(views),
        labels=frame["label"].cast(int).to_numpy().astype(np.int64),
        columns={**columns, "path": np.array([str(p) for p in paths])},
    )
    # What stopped early can be decided by its cascade only while it is looked at.
    decided = together(answers)
    return Evaluated(
        predictions=predictions,
        probability=decided.probability,
        decisions=decided,
        policy=detector.policy.to_dict(),
        confidence=policy_confidence(detector.policy, decided.probability, predictions.view_log_odds),
        certificate=detector.certificate,
        meta={"bundle": detector.manifest.name, "engine": detector.certificate.engine, "data": str(data)},
        overlay=overlay_of(detector),
    )


def picture_scorer(decider: Decider, *, workers: int = 0) -> Callable[[Iterator[Picture]], Decisions]:
    """Decides on pictures (H, W, 3) in order; calibrators by slice take each for one of an unknown slice."""
    columns = unknown_slices(decider.calibrator)

    def score(pictures: Iterator[Picture]) -> Decisions:
        images = (Image.fromarray(p) for p in pictures)
        return together([d for _, d in decider.predict(images, workers=workers, columns=columns)])

    return score
