"""``workzone data mine``: score a pool by a bundle, and write what a person should look at and what may be used."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from workzone.bundle.runtime import Detector
from workzone.config import RunConfig
from workzone.data.manifest import Manifest
from workzone.data.mining.acquire import disagreement, entropy, margin, rank
from workzone.data.mining.select import PseudoLabels, confident_mistakes, orange_candidates, pseudo_labels
from workzone.data.quality.measures import Measures, measure_files
from workzone.data.quality.review import COLUMNS as REVIEW_COLUMNS
from workzone.data.roles import Role
from workzone.data.splits import Splits
from workzone.errors import DataError
from workzone.files import write_atomic
from workzone.pipeline.embedding import contents, embed_manifest, whole_picture
from workzone.pipeline.phase import Progress
from workzone.pipeline.reading import workers

FIGURES = ("rank", "p_roadwork", "entropy", "margin", "disagreement", "orange_largest")
_NAMES = {1: "roadwork", 0: "no_roadwork", -1: ""}


@dataclass(frozen=True, slots=True)
class MineOptions:
    """What is looked for.

    Attributes:
        budget: images of each kind in the queue.
        ranking: of ``workzone.data.mining.acquire.RANKINGS``, for unlabelled images.
        confidence: of a mistake.
        pseudo_confidence: of a pseudo-label.
        balance: how the classes of pseudo-labels are cut.
        pseudo_most: largest number of pseudo-labels.
    """

    budget: int = 100
    ranking: str = "mixed"
    confidence: float = 0.9
    pseudo_confidence: float = 0.95
    balance: Literal["equal", "prior", "none"] = "prior"
    pseudo_most: int | None = None


@dataclass(frozen=True, slots=True)
class Mined:
    """What was written.

    Attributes:
        queue: the review file.
        pseudo: manifest of pseudo-labelled images, None where there are none.
        counts: rows of the queue by finding.
        pseudo_labels: what they are, and how many were sure enough.
        pool: images that were scored.
    """

    queue: Path
    pseudo: Path | None
    counts: dict[str, int]
    pseudo_labels: PseudoLabels
    pool: int


def only_training(manifest: Manifest, splits: Splits) -> Manifest:
    """Images of role train, and those without a role; the others must not steer what a model is trained on.

    Raises:
        DataError: nothing is left.
    """
    other = [i for i, role in splits.assignment.items() if role is not Role.TRAIN]
    left = manifest.frame.filter(~pl.col("id").is_in(other))
    if not left.height:
        raise DataError("no image of role train is left to mine")
    return Manifest(left, manifest.root, manifest.rejected, manifest.warnings)


def run_mine(
    manifest: Manifest,
    detector: Detector,
    config: RunConfig,
    out: Path,
    options: MineOptions,
    *,
    progress: Progress | None = None,
) -> Mined:
    """Score ``manifest`` and write the queue to ``out`` (CSV), and pseudo-labels beside it as ``NAME-pseudo.parquet``.

    The queue is a review file: fill in ``action`` and give it to ``workzone data apply-review``. A false alarm or an
    orange negative that a person keeps becomes a hard negative.

    Raises:
        DataError: a queue with decisions is there already.
    """
    from workzone.data.quality.review import read_review

    if out.exists() and read_review(out):
        raise DataError("the queue holds decisions already", where=str(out), fix="apply them, or write to another file")
    show = progress or Progress()
    views = embed_manifest(manifest, config, folder=out.parent, detector=detector, progress=show)
    scores = detector.score(views)
    p = detector.calibrator(scores.log_odds)
    spread = disagreement(scores.view_log_odds, views.mask)
    with show.bar("looking for orange") as advance:
        measured = measure_files(
            manifest.paths, workers=workers(config), max_pixels=config.compute.max_pixels, progress=advance
        )
    orange = [m.orange if isinstance(m, Measures) else None for m in measured]
    frame = manifest.frame
    labels = np.array([-1 if v is None else v for v in frame["label"].to_list()], dtype=np.int64)
    rows: list[tuple[int, str, str, str]] = []
    for i in confident_mistakes(labels, p, confidence=options.confidence)[: options.budget].tolist():
        alarm = labels[i] == 0
        said = f"labelled {_NAMES[int(labels[i])]}, the model says {p[i]:.3f}"
        rows.append((i, "false_alarm" if alarm else "missed", said, "keep"))
    seen = {i for i, *_ in rows}
    found, strength = orange_candidates(labels, p, orange)
    left = [(i, s) for i, s in zip(found.tolist(), strength.tolist(), strict=True) if i not in seen]
    rows += [(i, "orange", f"orange part, score {s:.5f}", "keep") for i, s in left[: options.budget]]
    unlabelled = np.flatnonzero(labels < 0)
    whole = whole_picture(views)
    if len(unlabelled):
        known = whole[labels >= 0]
        order = rank(options.ranking, p[unlabelled], spread[unlabelled], whole[unlabelled], options.budget, known=known)
        seen = {i for i, *_ in rows}
        chosen = [int(i) for i in unlabelled[order] if int(i) not in seen]
        rows += [(i, "to_label", f"by {options.ranking}, p {p[i]:.3f}", "relabel") for i in chosen]
    pseudo = pseudo_labels(
        p[unlabelled], confidence=options.pseudo_confidence, balance=options.balance, most=options.pseudo_most
    )
    shas = contents(manifest)
    text = io.StringIO()
    writer = csv.DictWriter(text, (*REVIEW_COLUMNS, *FIGURES), lineterminator="\n", restval="")
    writer.writeheader()
    unsure, gap = entropy(p), margin(p)
    for place, (i, kind, detail, suggested) in enumerate(rows, 1):
        part = orange[i]
        figures: dict[str, Any] = {
            "rank": place, "p_roadwork": f"{p[i]:.5f}", "entropy": f"{unsure[i]:.5f}", "margin": f"{gap[i]:.5f}",
            "disagreement": f"{spread[i]:.5f}", "orange_largest": "" if part is None else f"{part.largest:.5f}",
        }  # fmt: skip
        writer.writerow(
            {
                "id": frame["id"][i], "path": str(manifest.paths[i]), "finding": kind, "detail": detail,
                "label": _NAMES[int(labels[i])], "sha256": shas[i], "suggested_action": suggested, **figures,
            }
        )  # fmt: skip
    write_atomic(out, text.getvalue())
    target = _save_pseudo(manifest, unlabelled[pseudo.rows], pseudo, detector, out)
    counts = {kind: sum(r[1] == kind for r in rows) for kind in ("false_alarm", "missed", "orange", "to_label")}
    return Mined(out, target, counts, pseudo, len(manifest))


def _save_pseudo(manifest: Manifest, rows: Any, pseudo: PseudoLabels, detector: Detector, out: Path) -> Path | None:
    """Manifest of the pseudo-labelled images; it says by which bundle and how surely."""
    if not len(rows):
        return None
    frame = manifest.frame[rows.tolist()].with_columns(
        pl.Series("label", pseudo.labels.tolist(), dtype=pl.Int8()),
        pl.Series("pseudo", [True] * len(rows)),
        pl.Series("pseudo_confidence", pseudo.confidence.tolist(), dtype=pl.Float64()),
        pl.Series("pseudo_by", [detector.manifest.name] * len(rows), dtype=pl.String()),
    )
    return Manifest(frame, manifest.root).save(out.with_name(f"{out.stem}-pseudo.parquet"))
