"""Scores of a finished bundle on labelled images from elsewhere, ready to be evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workzone.bundle import Detector
from workzone.data.sources.build import build_manifest
from workzone.decisions import apply_policy
from workzone.errors import DataError, ImageError
from workzone.evaluation.inputs import Evaluated
from workzone.pipeline.phase import Progress
from workzone.predictions import Predictions, pad_rows


def evaluate_bundle_inputs(bundle: Path, data: Path, *, threads: int, progress: Progress) -> Evaluated:
    """Score the labelled images of ``data`` with ``bundle``.

    Raises:
        BundleError: the bundle is not good.
        DataError: no labelled images, or an image that was readable a moment ago is not.
    """
    detector = Detector.load(bundle, threads=threads)
    with progress.bar("reading images") as advance:
        manifest = build_manifest(data, progress=advance)
    frame = manifest.frame.filter(manifest.frame["label"].is_not_null())
    if not frame.height:
        raise DataError("none of the images has a label", where=str(data), fix="give a label column or class folders")
    paths = [p for p, label in zip(manifest.paths, manifest.frame["label"].to_list(), strict=True) if label is not None]

    def fail(index: int, error: ImageError) -> None:
        raise DataError(f"an image can no longer be read: {error.what}", where=str(paths[index])) from error

    log_odds = np.empty(len(paths))
    views: list[list[float]] = []
    with progress.bar("scoring images") as advance:
        for index, decision in detector.predict(paths, on_error=fail, workers=threads):
            log_odds[index] = decision.log_odds
            views.append([view.log_odds for view in decision.views])
            advance(index + 1, len(paths))
    columns = {c: np.array(frame[c].to_list(), dtype=object) for c in frame.columns if c not in ("id", "label", "path")}
    predictions = Predictions(
        ids=np.array(frame["id"].to_list(), dtype=np.str_),
        log_odds=log_odds,
        view_log_odds=pad_rows(views),
        labels=frame["label"].cast(int).to_numpy().astype(np.int64),
        columns={**columns, "path": np.array([str(p) for p in paths])},
    )
    probability = detector.calibrator(log_odds)
    return Evaluated(
        predictions=predictions,
        probability=probability,
        decisions=apply_policy(detector.policy, probability, predictions.view_log_odds),
        policy=detector.policy.to_dict(),
        certificate=detector.certificate,
        meta={"bundle": detector.manifest.name, "engine": detector.certificate.engine, "data": str(data)},
    )
