"""All checks of a data set together: one list of findings, and one row of figures per image."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workzone.data.manifest import Manifest
from workzone.data.quality.duplicates import SIMILAR, Cluster, find_clusters
from workzone.data.quality.labels import LabelDoubts, find_label_doubts, out_of_fold
from workzone.data.quality.measures import Measures
from workzone.data.quality.outliers import rank_outliers
from workzone.data.units import find_units
from workzone.errors import DataError, ImageError
from workzone.files import write_atomic

KINDS = ("unreadable", "exact_copy", "near_duplicate", "label_conflict", "label_doubt", "blank", "blurred", "dark",
         "outlier", "similar")  # fmt: skip
"""Kinds of findings in the order in which a person should see them."""
TOP_OUTLIERS = 100
CONTAMINATION = 0.05
CONFIDENCE = 0.9
_NAMES = ("no_roadwork", "roadwork")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a person should look at.

    Attributes:
        row: row of the manifest, -1 for an image that is not in it because it cannot be read.
        kind: one of ``KINDS``.
        score: orders findings of one kind, larger first.
        detail: figures in words.
        suggested: keep, drop or relabel.
        other: id of the image it was compared with, if any.
    """

    id: str
    path: str
    row: int
    kind: str
    score: float
    detail: str
    suggested: str
    other: str = ""


@dataclass(frozen=True, slots=True)
class Inspection:
    """Result of all checks on N images.

    Attributes:
        findings: by kind, the most telling first.
        measures: of each image; None where it could not be read.
        probability: (N,) out-of-fold probability of roadwork, NaN for unlabelled images.
        outlier: (N,) score of the isolation forest, NaN where there is no embedding.
        doubts: figures of confident learning, None without labels of both classes.
        confidence: least probability of the other label with which a label in doubt is put before a person.
        skipped: checks that were not made, and why.
    """

    manifest: Manifest
    findings: tuple[Finding, ...]
    measures: tuple[Measures | None, ...]
    probability: NDArray[np.float64]
    outlier: NDArray[np.float64]
    clusters: tuple[Cluster, ...]
    doubts: LabelDoubts | None
    skipped: tuple[str, ...] = ()
    units: tuple[str, ...] = field(default=())
    confidence: float = 0.0

    def counts(self) -> Counter[str]:
        """Number of findings of each kind."""
        return Counter(f.kind for f in self.findings)

    def write_csv(self, path: Path) -> None:
        """One row per image: its figures and the kinds of its findings."""
        kinds: dict[int, list[str]] = {}
        for f in self.findings:
            kinds.setdefault(f.row, []).append(f.kind)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = ["light", "contrast", "bits", "sharpness", "orange_share", "orange_largest"]
        writer.writerow(["id", "path", "label", "source", "findings", "p_roadwork_oof", "outlier_score", *names])
        frame = self.manifest.frame
        for i, (image, place, label, source) in enumerate(frame.select("id", "path", "label", "source").rows()):
            m = self.measures[i]
            figures = [] if m is None else [m.light, m.contrast, m.bits, m.sharpness, m.orange.share, m.orange.largest]
            shown = [_number(self.probability[i]), _number(self.outlier[i]), *map(_number, figures)]
            said = "|".join(sorted(set(kinds.get(i, [])), key=KINDS.index))
            writer.writerow([image, place, "" if label is None else label, source or "", said, *shown])
        for f in self.findings:
            if f.row < 0:
                writer.writerow([f.id, f.path, "", "", f.kind])
        write_atomic(path, text.getvalue())

    def queued(self) -> tuple[Finding, ...]:
        """Findings for the review: all but labels in doubt below the confidence."""
        return tuple(f for f in self.findings if f.kind != "label_doubt" or _probability(f) >= self.confidence)

    def review_rows(self) -> list[dict[str, object]]:
        """Rows of the review file, of what is ``queued``; the columns of the reviewer are empty."""
        frame = self.manifest.frame
        labels, content = frame["label"].to_list(), frame["sha256"].to_list()
        return [
            {
                "id": f.id,
                "path": f.path,
                "finding": f.kind,
                "detail": f.detail,
                "label": "" if f.row < 0 or labels[f.row] is None else _NAMES[labels[f.row]],
                "sha256": "" if f.row < 0 else content[f.row] or "",
                "suggested_action": f.suggested,
            }
            for f in self.queued()
        ]


def _probability(doubt: Finding) -> float:
    # The score is the probability of the other label less that of the given one.
    return (1.0 + doubt.score) / 2.0


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.5g}"


def inspect(
    manifest: Manifest,
    measured: Sequence[Measures | ImageError],
    *,
    embeddings: NDArray[np.floating] | None = None,
    features: NDArray[np.floating] | None = None,
    similarity: float = SIMILAR,
    outliers: int = TOP_OUTLIERS,
    contamination: float = CONTAMINATION,
    confidence: float = CONFIDENCE,
    reviewed: Collection[str] = (),
    seed: int = 0,
) -> Inspection:
    """Make all checks.

    Args:
        manifest: N images.
        measured: measures of each, or why it cannot be read.
        embeddings: (N, D) of the whole picture, for likeness and outliers; None leaves these checks out.
        features: (N, F) for the search of label errors, None for ``embeddings``.
        similarity: least cosine of similar images.
        outliers: most of the oddest images that are listed.
        contamination: largest share of the images that is listed as odd.
        confidence: least probability of the other label with which a label in doubt goes to the review.
        reviewed: ids that a person has decided to keep; they are not listed again.
        seed: of folds and trees.

    Raises:
        ValueError: arrays that do not fit the manifest.
    """
    n = len(manifest)
    if len(measured) != n or any(a is not None and len(a) != n for a in (embeddings, features)):
        raise ValueError(f"measures and embeddings must have {n} rows")
    frame = manifest.frame
    ids, paths = frame["id"].to_list(), frame["path"].to_list()
    measures = tuple(m if isinstance(m, Measures) else None for m in measured)
    findings: list[Finding] = []
    skipped: list[str] = []

    def add(row: int, kind: str, score: float, detail: str, suggested: str, other: int | None = None) -> None:
        findings.append(
            Finding(ids[row], paths[row], row, kind, score, detail, suggested, "" if other is None else ids[other])
        )

    for image, place, reason in manifest.rejected.rows():
        findings.append(Finding(image, place, -1, "unreadable", 0.0, reason, "drop"))
    for i, m in enumerate(measured):
        if isinstance(m, ImageError):
            add(i, "unreadable", 0.0, f"{m.reason}: {m.what}", "drop")
        else:
            for kind, detail in m.faults().items():
                add(i, kind, 0.0, detail, "keep" if kind == "dark" else "drop")
    squares = np.stack([np.full((32, 32), np.nan, np.float32) if m is None else m.square for m in measures])
    clusters = find_clusters(manifest, squares=np.nan_to_num(squares), embeddings=embeddings, similarity=similarity)
    for cluster in clusters:
        first, *rest = cluster.members
        if cluster.conflict and cluster.kind != "similar":
            for i in cluster.members:
                add(i, "label_conflict", 1.0, f"copies of {ids[first]} carry both labels", "relabel", first)
        for i in rest:
            suggested = "keep" if cluster.kind == "similar" or cluster.conflict else "drop"
            add(i, cluster.kind, float(len(cluster.members)), f"as {ids[first]}", suggested, first)
    # Copies must not vouch for each other, so folds are dealt by units, not by the groups of the manifest.
    units = find_units(manifest)
    probability, doubts = np.full(n, np.nan), None
    given = features if features is not None else embeddings
    known = np.flatnonzero(frame["label"].is_not_null().to_numpy())
    if given is None:
        skipped.append("label errors and outliers: no embeddings were given")
    else:
        finite = np.isfinite(given).all(axis=1)
        use = known[finite[known]]
        labels = frame["label"][use.tolist()].to_numpy().astype(np.int64)
        try:
            if len(np.unique(labels)) < 2:
                raise DataError("the labelled images are of one class")
            probability[use] = out_of_fold(given[use], labels, [units[i] for i in use], seed=seed)
        except DataError as error:
            skipped.append(f"label errors: {error.what}")
        else:
            doubts = find_label_doubts(labels, probability[use])
            for place, margin, p in zip(doubts.rows, doubts.margin, doubts.probability, strict=True):
                i = int(use[place])
                other = _NAMES[1 - int(labels[place])]
                add(i, "label_doubt", float(margin), f"others say {other} with probability {p:.2f}", "relabel")
    odd = np.full(n, np.nan)
    if embeddings is not None:
        rows = np.flatnonzero(np.isfinite(embeddings).all(axis=1))
        if len(rows) < 10:
            skipped.append("outliers: fewer than 10 images")
        else:
            order, score = rank_outliers(embeddings[rows], seed=seed)
            odd[rows] = score
            # A data set has no share of outliers that could be estimated here; this one bounds the list.
            most = min(outliers, max(1, int(contamination * len(rows)))) if contamination else 0
            for rank, place in enumerate(order[:most], 1):
                add(int(rows[place]), "outlier", float(score[place]), f"rank {rank} of {len(rows)}", "keep")
    left = [f for f in findings if f.id not in reviewed]
    left.sort(key=lambda f: (KINDS.index(f.kind), -f.score, f.id))
    return Inspection(
        manifest,
        tuple(left),
        measures,
        probability,
        odd,
        tuple(clusters),
        doubts,
        tuple(skipped),
        tuple(units),
        confidence,
    )
