"""From labelled clips and a bundle to a fitted score over the frames of a drive."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workzone.bundle.drive import look_at_frames
from workzone.bundle.runtime import Decider
from workzone.data.roles import CalibData
from workzone.decisions.sequences import DriveScore
from workzone.errors import DataError
from workzone.files import sha256_file
from workzone.pipeline.phase import Progress
from workzone.predictions import FloatArray, logit, sigmoid

if TYPE_CHECKING:
    from workzone.training.drives import AttentionSettings, DriveFrames

METRICS = ("auroc", "nll")
_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
_COLUMNS = ("drive", "seconds", "label")


@dataclass(frozen=True, slots=True)
class FittedDrives:
    """A fitted score, and what it is worth on drives that it was not fitted on.

    Attributes:
        score: pool and calibrator.
        figures: counts, steps, and per metric the single frame, the pooled score and their paired difference, each as
            value, low and high.
    """

    score: DriveScore
    figures: dict[str, Any]


def read_labels(folder: Path) -> dict[str, list[tuple[float, int]]]:
    """Labelled moments (seconds, label) of each drive from ``folder/labels.csv``.

    Raises:
        DataError: no such file, a missing column, or a value that is no time or label; with the line.
    """
    file = folder / "labels.csv"
    if not file.is_file():
        raise DataError(
            "there are no labels", where=str(file), fix=f"write a table with the columns {', '.join(_COLUMNS)}"
        )
    found: dict[str, list[tuple[float, int]]] = {}
    with file.open(newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream)
        if absent := [c for c in _COLUMNS if c not in (rows.fieldnames or ())]:
            raise DataError(f"the table has no column {absent[0]!r}", where=str(file), fix="name the columns")
        for row in rows:
            try:
                seconds, label = float(row["seconds"]), {"0": 0, "1": 1}[row["label"].strip()]
            except (TypeError, ValueError, KeyError, AttributeError):
                raise DataError(
                    "seconds must be a number and label 0 or 1", where=f"{file}, line {rows.line_num}"
                ) from None
            found.setdefault(row["drive"], []).append((seconds, label))
    return found


def read_frames(
    detector: Decider, folder: Path, *, every: float = 1.0, workers: int = 0, progress: Progress | None = None
) -> list[DriveFrames]:
    """Frames of every labelled clip of ``folder`` as ``detector`` sees them; a label goes to the nearest frame.

    Raises:
        DataError: labels without a clip, or a label farther than half of ``every`` from any frame.
        ImageError: a clip cannot be read in full.
        MissingExtraError: PyAV is not installed.
    """
    from workzone.training.drives import DriveFrames
    from workzone.vision.video import Video

    labels, show = read_labels(folder), progress or Progress()
    drives = []
    with show.bar(f"looking at {len(labels)} clips") as advance:
        for done, (name, moments) in enumerate(sorted(labels.items())):
            video = Video(_clip(folder, name), every=every)
            seen = look_at_frames(detector, video, embed=True, workers=workers)
            if video.problem is not None:
                raise video.problem
            seconds = np.array(seen.seconds, dtype=np.float64)
            drives.append(
                DriveFrames(
                    name,
                    seconds,
                    logit(np.array([d.probability for d in seen.alone])),
                    _labels(name, moments, seconds, every),
                    np.stack(seen.embeddings),
                )
            )
            advance(done + 1, len(labels))
    return drives


def _clip(folder: Path, name: str) -> Path:
    found = [p for p in (folder / f"{name}{suffix}" for suffix in _SUFFIXES) if p.is_file()]
    if Path(name).name != name or not found:
        raise DataError(f"there is no clip of drive {name!r}", where=str(folder), fix=f"add {name}.mp4")
    return found[0]


def _labels(name: str, moments: Sequence[tuple[float, int]], seconds: FloatArray, every: float) -> Any:
    labels = np.full(len(seconds), -1, dtype=np.int64)
    for moment, label in moments:
        nearest = int(np.abs(seconds - moment).argmin())
        if abs(seconds[nearest] - moment) > every / 2 + 1e-6:
            raise DataError(
                f"drive {name!r} has a label at {moment:g} s, and no frame within {every / 2:g} s of it",
                where="labels.csv",
                fix="check the times, or take a shorter --every",
            )
        labels[nearest] = label
    return labels


def fit_drives(
    drives: Sequence[DriveFrames],
    settings: AttentionSettings,
    *,
    seed: int = 0,
    folds: int = 0,
    resamples: int = 2000,
    progress: Progress | None = None,
) -> FittedDrives:
    """Train the attention on ``drives``, and a calibrator on what it says about drives it was not trained on.

    Args:
        drives: labelled drives.
        settings: how the attention is trained.
        seed: of everything that draws.
        folds: folds of whole drives of the out-of-fold scores, 0 leaves out one drive at a time.
        resamples: draws of whole drives for the intervals.
        progress: where messages go.

    Raises:
        DataError: fewer than three drives, or one class only without the drives of a fold.
    """
    from workzone.training.drives import fit_attention, out_of_fold

    if len(drives) < 3:
        raise DataError(
            f"{len(drives)} labelled drives are too few to train on some and judge on others",
            where="labels.csv",
            fix="label three drives or more; a dozen or two are better",
        )
    show = progress or Progress()
    show.message("  training, each drive left out in turn")
    held_out = out_of_fold(drives, settings, folds=folds, seed=seed)
    fit = fit_attention(drives, settings, seed=seed)
    known = [d.labels >= 0 for d in drives]
    labels = np.concatenate([d.labels[k] for d, k in zip(drives, known, strict=True)])
    names = np.concatenate([np.full(int(k.sum()), d.name) for d, k in zip(drives, known, strict=True)])
    alone = np.concatenate([d.log_odds[k] for d, k in zip(drives, known, strict=True)])
    pooled = np.concatenate([s[k] for s, k in zip(held_out, known, strict=True)])
    # Scores of drives that no training saw; what they calibrate is the pool that saw all.
    score = DriveScore.fit_pooled(CalibData.from_arrays(labels, pooled, groups=names), fit.pool)
    figures = {
        "frames": len(labels),
        "roadwork": int(labels.sum()),
        "drives": len(drives),
        "drives_without_roadwork_somewhere": len(np.unique(names[labels == 0])),
        "steps": fit.steps,
        "held_out_loss": {str(k): v for k, v in fit.curve.items()},
        "metrics": _figures(labels, names, alone, pooled, resamples, seed),
    }
    return FittedDrives(score, figures)


def _figures(
    labels: Any, names: Any, alone: FloatArray, pooled: FloatArray, resamples: int, seed: int
) -> dict[str, dict[str, list[float]]]:
    from workzone.metrics.comparison import paired_bootstrap

    found = paired_bootstrap(
        METRICS, labels, sigmoid(alone), sigmoid(pooled), groups=names, n_resamples=resamples, seed=seed, workers=1
    )
    return {
        metric: {
            key: [float(x) for x in (i.value, i.low, i.high)]
            for key, i in (("single", d.a), ("pooled", d.b), ("difference", d.difference))
        }
        for metric, d in found.items()
    }


def sources_of(folder: Path) -> Mapping[str, str]:
    """Hash of the labels that a score was fitted on."""
    return {"labels_sha256": sha256_file(folder / "labels.csv")}
