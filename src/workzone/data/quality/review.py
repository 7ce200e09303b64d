"""The review file: what was found, what a person decided, and the manifest that follows from the decisions."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from workzone.data.manifest import NOTES, Manifest
from workzone.errors import DataError, unreadable
from workzone.files import write_atomic

Action = Literal["keep", "drop", "relabel"]
ACTIONS: tuple[Action, ...] = ("keep", "drop", "relabel")
COLUMNS = (
    "id", "path", "finding", "detail", "label", "sha256", "suggested_action", "action", "new_label", "reviewer", "note"
)  # fmt: skip
_LABELS = {"1": 1, "roadwork": 1, "0": 0, "no_roadwork": 0}
MINED = ("false_alarm", "orange")
"""Findings of mining after which a picture that a person calls no roadwork is a hard negative."""
HARD = "hard_negative"
DROPPED = "dropped after review"
"""How the reason begins for which a reviewed image was left out."""
_NAMES = {1: "roadwork", 0: "no_roadwork", None: "unlabelled"}
MAX_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a person decided on one image; ``label`` is the new one of ``relabel``."""

    action: Action
    label: int | None = None
    finding: str = ""
    sha256: str = ""
    reviewer: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """A manifest after review.

    Attributes:
        manifest: without the dropped images, with the new labels; the column ``review`` says what was done to a row.
        dropped: ids of dropped images.
        relabelled: ids whose label changed.
        kept: ids that a person looked at and left as they are.
        hard: ids of mined images that a person called no roadwork: they are marked in the column ``hard_negative``.
        absent: ids of the review that the manifest does not hold.
    """

    manifest: Manifest
    dropped: tuple[str, ...]
    relabelled: tuple[str, ...]
    kept: tuple[str, ...]
    hard: tuple[str, ...]
    absent: tuple[str, ...]

    def sentence(self) -> str:
        """What was done, in one line."""
        text = f"{len(self.dropped)} dropped, {len(self.relabelled)} relabelled, {len(self.kept)} kept after review"
        text += f", {len(self.hard)} of them hard negatives" if self.hard else ""
        return text + (f", {len(self.absent)} of the review are not in these data" if self.absent else "")


def write_review(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write the review file; decisions that ``rows`` do not hold stay empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def read_review(path: Path) -> dict[str, Ruling]:
    """Decisions by image id; rows without an action are not decided and count for nothing.

    Raises:
        DataError: the file cannot be read, an unknown action or label, or two decisions on one image that differ.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"the review file is larger than {MAX_BYTES >> 20} MiB", where=str(path))
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(DataError, "the review file", path, error) from error
    reader = csv.DictReader(io.StringIO(text))
    missing = [c for c in ("id", "action") if c not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f"the review file has no column {missing[0]!r}", where=str(path), fix="write it by data quality"
        )
    found: dict[str, Ruling] = {}
    for row in reader:
        action = (row["action"] or "").strip().lower()
        if not action:
            continue
        where = f"{path}, line {reader.line_num}, id {row['id']!r}"
        if action not in ACTIONS:
            raise DataError(f"{action!r} is no action", where=where, fix=f"write {', '.join(ACTIONS)} or nothing")
        label = _new_label((row.get("new_label") or "").strip().lower(), action, where)
        given = Ruling(
            action,
            label,
            (row.get("finding") or "").strip(),
            (row.get("sha256") or "").strip(),
            (row.get("reviewer") or "").strip(),
            (row.get("note") or "").strip(),
        )
        before = found.get(row["id"])
        if before is not None and (before.action, before.label) != (given.action, given.label):
            if "keep" not in (before.action, given.action):
                raise DataError(
                    f"two decisions on one image: {before.action} and {given.action}", where=where, fix="leave one"
                )
            # To keep it in spite of one finding does not undo what another finding asks for.
            given = before if given.action == "keep" else given
        found[row["id"]] = given
    return found


def _new_label(word: str, action: str, where: str) -> int | None:
    if action != "relabel":
        return None
    if word not in _LABELS:
        raise DataError(
            f"the new label {word!r} is none", where=where, fix="write roadwork or no_roadwork in the column new_label"
        )
    return _LABELS[word]


def apply_review(manifest: Manifest, decisions: Mapping[str, Ruling]) -> Applied:
    """The manifest after the decisions; files are left alone.

    Raises:
        DataError: an image is no longer the one that was reviewed.
    """
    frame = manifest.frame
    ids = frame["id"].to_list()
    said: list[str | None] = list(frame["review"].to_list()) if "review" in frame.columns else [None] * len(ids)
    labels, content = frame["label"].to_list(), frame["sha256"].to_list()
    marked = list(frame[HARD].to_list()) if HARD in frame.columns else [None] * len(ids)
    gone: list[int] = []
    hard: list[str] = []
    done: dict[Action, list[str]] = {action: [] for action in ACTIONS}
    for i, image in enumerate(ids):
        decision = decisions.get(image)
        if decision is None:
            continue
        if decision.sha256 and content[i] and decision.sha256 != content[i]:
            raise DataError("the image is not the one that was reviewed", where=f"id {image!r}", fix="review it again")
        text = decision.action
        if decision.action == "drop":
            gone.append(i)
        elif decision.action == "relabel":
            text = f"relabel {_NAMES[labels[i]]} to {_NAMES[decision.label]}"  # type: ignore[assignment]
            labels[i] = decision.label
        # An unlabelled picture is called a negative by its new label, a labelled one by being kept.
        if decision.finding in MINED and decision.action != "drop" and labels[i] == 0:
            marked[i] = 1
            hard.append(image)
        done[decision.action].append(image)
        said[i] = text + (f" by {decision.reviewer}" if decision.reviewer else "")
    changed = frame.with_columns(
        pl.Series("label", labels, dtype=pl.Int8()), pl.Series("review", said, dtype=pl.String())
    )
    if hard:
        # Other tables may say yes or true; what is known of other rows stays as it is said there.
        words = [None if v is None else str(int(v)) if isinstance(v, bool) else str(v) for v in marked]
        changed = changed.with_columns(pl.Series(HARD, words, dtype=pl.String()))
    left = changed[[i for i in range(len(ids)) if i not in set(gone)]]
    notes = pl.DataFrame(
        [(ids[i], frame["path"][i], f"{DROPPED}: {decisions[ids[i]].note or said[i]}") for i in gone],
        schema=NOTES,
        orient="row",
    )
    rejected = pl.concat([manifest.rejected, notes])
    known = set(ids)
    return Applied(
        Manifest(left, manifest.root, rejected, manifest.warnings),
        tuple(done["drop"]),
        tuple(done["relabel"]),
        tuple(done["keep"]),
        tuple(hard),
        tuple(i for i in decisions if i not in known),
    )
