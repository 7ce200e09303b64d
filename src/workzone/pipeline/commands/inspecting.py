"""``workzone data quality``: read, measure, embed, check, and write table, page and review file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.bundle.runtime import Detector
from workzone.config import RunConfig
from workzone.data.manifest import Manifest
from workzone.data.quality.inspect import Inspection, inspect
from workzone.data.quality.measures import Measures, measure_files
from workzone.data.quality.review import apply_review, read_review, write_review
from workzone.evaluation.report.quality import render
from workzone.evaluation.shortcuts import Shortcut, find_shortcuts
from workzone.files import write_atomic, write_json
from workzone.pipeline.embedding import embed_manifest, picture_and_tiles, read_embeddings, whole_picture
from workzone.pipeline.phase import Progress
from workzone.pipeline.reading import workers

CSV, PAGE, REVIEW, JSON = "quality.csv", "quality.html", "review.csv", "quality.json"
FACTS = ("source", "camera_id", "weather", "hour", "domain", "time_of_day")
"""Columns whose values alone may give the label away."""


def run_quality(
    manifest: Manifest,
    config: RunConfig,
    out: Path,
    *,
    detector: Detector | None = None,
    embeddings: Path | None = None,
    review: Path | None = None,
    similarity: float,
    outliers: int,
    contamination: float,
    confidence: float,
    shown: int,
    title: str,
    progress: Progress | None = None,
) -> tuple[Inspection, list[Shortcut]]:
    """Check ``manifest`` and write ``quality.csv``, ``quality.json``, ``quality.html`` and ``review.csv`` to ``out``.

    A review that is given is obeyed first. A ``review.csv`` in ``out`` that holds decisions is never overwritten: the
    new one is written beside it as ``review-new.csv``.
    """
    show = progress or Progress()
    kept: tuple[str, ...] = ()
    if review is not None:
        applied = apply_review(manifest, read_review(review))
        manifest, kept = applied.manifest, applied.kept
        show.message(f"  review obeyed: {applied.sentence()}")
    with show.bar("measuring pictures") as advance:
        measured = measure_files(
            manifest.paths, workers=workers(config), max_pixels=config.compute.max_pixels, progress=advance
        )
    features: NDArray[np.float32] | None = None
    if embeddings is not None:
        whole = read_embeddings(embeddings, manifest)
    else:
        views = embed_manifest(manifest, config, folder=out / "backbone", detector=detector, progress=show)
        whole, features = whole_picture(views), picture_and_tiles(views)
    show.message("  looking for label errors, outliers and shortcuts")
    found = inspect(
        manifest,
        measured,
        embeddings=whole,
        features=features,
        similarity=similarity,
        outliers=outliers,
        contamination=contamination,
        confidence=confidence,
        reviewed=kept,
        seed=config.seed,
    )
    shortcuts = shortcuts_of(found, seed=config.seed)
    found.write_csv(out / CSV)
    write_json(out / JSON, summary(found, shortcuts))
    write_atomic(out / PAGE, render(found, shortcuts, title=title, shown=shown))
    target = out / REVIEW
    if target.exists() and read_review(target):
        show.message(f"  {target} holds decisions and is left as it is; the new findings are in review-new.csv")
        target = out / "review-new.csv"
    write_review(target, found.review_rows())
    return found, shortcuts


def shortcuts_of(found: Inspection, *, seed: int) -> list[Shortcut]:
    """Shortcuts among the labelled, readable images."""
    frame = found.manifest.frame
    readable = np.array([m is not None for m in found.measures], dtype=bool)
    use = np.flatnonzero(frame["label"].is_not_null().to_numpy() & readable)
    if not len(use):
        return []
    rows = use.tolist()
    facts: dict[str, NDArray[Any]] = {}
    for column in FACTS:
        if column in frame.columns and frame[column].null_count() < len(frame):
            values = ["unknown" if v is None else str(v) for v in frame[column].to_list()]
            facts[column] = np.array(values, dtype=np.str_)[use]
    facts["image size"] = frame[rows].select("width", "height").to_numpy().astype(np.float64)
    measures = [m for m in (found.measures[i] for i in rows) if isinstance(m, Measures)]
    facts["orange"] = np.array([[m.orange.share, m.orange.largest] for m in measures])
    facts["light and contrast"] = np.array([[m.light, m.contrast] for m in measures])
    facts["sharpness"] = np.array([[m.sharpness] for m in measures])
    return find_shortcuts(
        facts, frame["label"][rows].to_numpy().astype(np.int64), [found.units[i] for i in rows], seed=seed
    )


def summary(found: Inspection, shortcuts: Sequence[Shortcut]) -> dict[str, Any]:
    """The findings as counts, and the shortcuts with their intervals, as JSON values."""
    labels = found.manifest.frame["label"]
    doubts = found.doubts
    return {
        "images": len(found.manifest),
        "roadwork": int((labels == 1).sum()),
        "no_roadwork": int((labels == 0).sum()),
        "unlabelled": int(labels.null_count()),
        "units": len(set(found.units)),
        "findings": dict(sorted(found.counts().items())),
        "label_confidence": found.confidence,
        "in_review": len(found.queued()),
        "confident_joint": None if doubts is None else doubts.joint.tolist(),
        "shortcuts": [
            {"known": s.name, "auroc": s.auroc.value, "low": _finite(s.auroc.low), "high": _finite(s.auroc.high),
             "n": s.auroc.n, "groups": s.groups}
            for s in shortcuts
        ],
        "not_checked": list(found.skipped),
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
