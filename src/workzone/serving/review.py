"""The review queue: pictures the policy abstained on and a plain sample of all, what people say of them, the manifest.

``FOLDER/pictures`` holds the pictures by their SHA-256, ``FOLDER/review.db`` who said what and when. Labels are
only ever appended: a change of mind is a new row, and ``undo`` is one too.
"""

from __future__ import annotations

import csv
import hashlib
import io
import queue
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workzone.decisions import Decision
from workzone.errors import DataError
from workzone.files import write_atomic
from workzone.registry.split import assign
from workzone.serving.metrics import log_line
from workzone.vision.formats import sniff

LABELS = ("roadwork", "none", "skip", "undo")
REVIEWERS = 2
"""People who look at a picture; where they disagree, further ones may."""
HEADER = (
    "id", "path", "label", "source", "group", "sha256", "reviewers",
    "weight", "sampled", "role", "decision", "bundle_sha256",
)  # fmt: skip
"""Columns of the manifest; ``id`` is that of the log of predictions, ``REQUEST_ID/POSITION``."""
_SUFFIXES: Mapping[str, str] = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}
_BACKLOG = 32
_SCHEMA = """
CREATE TABLE IF NOT EXISTS pictures (
  sha256 TEXT PRIMARY KEY, file TEXT NOT NULL, time REAL NOT NULL, request_id TEXT NOT NULL,
  bundle_sha256 TEXT NOT NULL, probability REAL NOT NULL, reason TEXT NOT NULL,
  position INTEGER NOT NULL DEFAULT 0, decision TEXT NOT NULL DEFAULT 'abstain',
  role TEXT NOT NULL DEFAULT 'champion', sequence TEXT NOT NULL DEFAULT '',
  share REAL NOT NULL DEFAULT 0, sampled INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS labels (
  id INTEGER PRIMARY KEY AUTOINCREMENT, sha256 TEXT NOT NULL REFERENCES pictures (sha256),
  reviewer TEXT NOT NULL, time REAL NOT NULL,
  label TEXT NOT NULL CHECK (label IN ('roadwork', 'none', 'skip', 'undo')));
CREATE TRIGGER IF NOT EXISTS labels_stay BEFORE UPDATE ON labels BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER IF NOT EXISTS labels_remain BEFORE DELETE ON labels BEGIN SELECT RAISE(ABORT, 'append only'); END;
"""
_LATER = {
    "position": "INTEGER NOT NULL DEFAULT 0", "decision": "TEXT NOT NULL DEFAULT 'abstain'",
    "role": "TEXT NOT NULL DEFAULT 'champion'", "sequence": "TEXT NOT NULL DEFAULT ''",
    "share": "REAL NOT NULL DEFAULT 0", "sampled": "INTEGER NOT NULL DEFAULT 0",
}  # fmt: skip
"""Columns that a folder of an earlier version lacks."""


@dataclass(frozen=True, slots=True)
class Kept:
    """How a picture came to be kept.

    Attributes:
        request_id: of its request; ``position`` is its place in it.
        bundle_sha256: of the bundle that answered, in the role ``role``.
        sequence: what the client says belongs together; empty where it says nothing.
        share: of all pictures that were kept at that time, whatever the answer.
        sampled: whether this one is among those.
    """

    request_id: str
    bundle_sha256: str
    position: int = 0
    role: str = "champion"
    sequence: str = ""
    share: float = 0.0

    @property
    def id(self) -> str:
        """Id of the picture in the log of predictions."""
        return f"{self.request_id}/{self.position}"

    @property
    def sampled(self) -> bool:
        """By a hash of the id, so that neither the answer nor who gave it has a say."""
        return assign(self.id, self.share, "review") == "challenger"


@dataclass(frozen=True, slots=True)
class Settled:
    """A picture on whose label people agree: ``label`` 1 or 0, and ``decision`` what was answered."""

    id: str
    label: int
    decision: str
    probability: float
    role: str
    bundle_sha256: str
    sampled: bool


class ReviewStore:
    """Pictures and labels in one folder; safe to use from several threads and processes.

    Args:
        folder: made where it does not exist.
        max_bytes: size of the pictures at which no more are kept; nothing that waits for a label is thrown away.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder, self._max = folder, max_bytes
        self._pictures = folder / "pictures"
        try:
            self._pictures.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                folder / "review.db", timeout=30.0, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.executescript(_SCHEMA)
            self._upgrade()
        except (OSError, sqlite3.Error) as error:
            why = error.strerror if isinstance(error, OSError) else error
            fix = "give the folder of an earlier --keep-abstained, or a new one"
            raise DataError(f"the review queue cannot be opened: {why}", where=str(folder), fix=fix) from error
        self._lock = threading.Lock()
        self._soon: queue.Queue[tuple[bytes, Decision, Kept] | None] = queue.Queue(_BACKLOG)
        self._thread: threading.Thread | None = None
        self._size = sum(p.stat().st_size for p in self._pictures.iterdir() if p.is_file())
        self.full = False

    def _upgrade(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")  # of several processes, one adds the columns
        there = {row[1] for row in self._db.execute("PRAGMA table_info(pictures)")}
        for name, kind in _LATER.items():
            if name not in there:
                self._db.execute(f"ALTER TABLE pictures ADD COLUMN {name} {kind}")
        self._db.execute("COMMIT")

    def keep_soon(self, content: bytes, decision: Decision, kept: Kept) -> None:
        """Have a thread keep a picture that was abstained on or falls into the sample.

        When the disk is too slow, it is left out and the log says so.
        """
        if decision.label != "abstain" and not kept.sampled:
            return
        if self._thread is None:
            self._begin()
        try:
            self._soon.put_nowait((content, decision, kept))
        except queue.Full:
            log_line("review", request_id=kept.request_id, dropped="the disk is too slow")

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._keep_forever, name="workzone-review", daemon=True)
                thread.start()
                self._thread = thread

    def _keep_forever(self) -> None:
        while (handed := self._soon.get()) is not None:
            content, decision, kept = handed
            try:
                self.keep(content, decision, kept)
            except (OSError, sqlite3.Error) as error:
                log_line("review", request_id=kept.request_id, dropped=str(error))
            finally:
                self._soon.task_done()

    def close(self) -> None:
        """Keep what was handed over and close the database."""
        if self._thread is not None:
            self._soon.put(None)
            self._thread.join(30.0)
        self._db.close()

    def flush(self) -> None:
        """Wait until every picture that was handed over is kept."""
        self._soon.join()

    def keep(self, content: bytes, decision: Decision, kept: Kept) -> bool:
        """Keep a picture once, however often it comes; False where the folder is full."""
        sha256 = hashlib.sha256(content).hexdigest()
        kind = sniff(content)[0] or "bin"
        file = self._pictures / f"{sha256}.{_SUFFIXES.get(kind, kind.lower())}"
        if not file.exists():
            self.full = self._size + len(content) > self._max
            if self.full:
                log_line("review", request_id=kept.request_id, dropped="the folder of pictures is full")
                return False
            write_atomic(file, content)
            self._size += len(content)
        values = {
            "sha256": sha256, "file": file.name, "time": time.time(), "request_id": kept.request_id,
            "bundle_sha256": kept.bundle_sha256, "probability": decision.probability, "reason": decision.reason,
            "position": kept.position, "decision": decision.label, "role": kept.role, "sequence": kept.sequence,
            "share": kept.share, "sampled": int(kept.sampled),
        }  # fmt: skip
        marks = ", ".join("?" * len(values))
        with self._lock:
            self._db.execute(
                f"INSERT OR IGNORE INTO pictures ({', '.join(values)}) VALUES ({marks})", tuple(values.values())
            )
        return True

    def label(self, sha256: str, reviewer: str, label: str) -> None:
        """Append what ``reviewer`` says of a picture.

        Raises:
            DataError: nobody knows the picture, or the label is none of ``LABELS``.
        """
        if label not in LABELS:
            raise DataError(f"{label[:40]!r} is no label", fix=f"say one of {', '.join(LABELS)}")
        if self.picture(sha256) is None:
            raise DataError("there is no such picture in the review queue", fix="reload the page")
        if label == "undo" and reviewer not in self.opinions().get(sha256, {}):
            fix = "undo takes back what you said yourself"
            raise DataError(f"{reviewer} has said nothing of this picture", fix=fix)
        with self._lock:
            self._db.execute(
                "INSERT INTO labels (sha256, reviewer, label, time) VALUES (?, ?, ?, ?)",
                (sha256, reviewer, label, time.time()),
            )

    def picture(self, sha256: str) -> Path | None:
        """File of a picture; None where nobody knows it."""
        with self._lock:
            row = self._db.execute("SELECT file FROM pictures WHERE sha256 = ?", (sha256,)).fetchone()
        return self._pictures / row[0] if row else None

    def opinions(self) -> dict[str, dict[str, str]]:
        """Label that each reviewer gave each picture last, without those that were undone."""
        with self._lock:
            rows = self._db.execute("SELECT sha256, reviewer, label FROM labels ORDER BY id").fetchall()
        found: dict[str, dict[str, str]] = {}
        for sha256, reviewer, label in rows:
            if label == "undo":
                found.get(sha256, {}).pop(reviewer, None)
            else:
                found.setdefault(sha256, {})[reviewer] = label
        return found

    def queue_for(self, reviewer: str, *, most: int = 20) -> list[dict[str, Any]]:
        """Pictures that ``reviewer`` has yet to look at: disputed ones first, then those that others have begun."""
        opinions = self.opinions()
        waiting = []
        for row in self._rows():
            said = opinions.get(row["sha256"], {})
            names = [v for v in said.values() if v != "skip"]
            if reviewer in said or (len(names) >= REVIEWERS and verdict(said) is not None):
                continue
            waiting.append((-len(set(names)), -len(names), row["time"], row))
        waiting.sort(key=lambda item: item[:3])
        # What others said is left out: the second opinion must not follow the first.
        shown = ("sha256", "time")
        return [{**{k: row[k] for k in shown}, "disputed": -kinds > 1} for kinds, _, _, row in waiting[:most]]

    def progress(self, reviewer: str) -> dict[str, Any]:
        """Counts for the page, and the pictures on which reviewers disagree, with what each said."""
        opinions, rows = self.opinions(), self._rows()
        kinds = {s: {v for v in said.values() if v != "skip"} for s, said in opinions.items()}
        disputed = {
            s: said
            for s, said in opinions.items()
            if reviewer in said and len(kinds[s]) > 1 and verdict(said) is None
        }
        return {
            "pictures": len(rows),
            "left": len(self.queue_for(reviewer, most=len(rows))),
            "settled": sum(verdict(said) is not None for said in opinions.values()),
            "disagreements": [{"sha256": s, "labels": said} for s, said in disputed.items()],
            "full": self.full,
        }

    def export(self, *, below: Path | None = None, reviewers: int = 1) -> str:
        """Manifest (CSV) of the pictures on which more people agree than not, in the order in which they came to.

        ``weight`` is what ``workzone monitor --labels`` needs, because abstained pictures are kept more often than
        others; ``sampled`` are those that were kept whatever the answer, for comparisons of bundles.

        Args:
            reviewers: people at least who must have said roadwork or none.
            below: folder of the manifest; paths start there where they can, else from the folder of the review queue.
        """
        here = below is None or self.folder.absolute() == below.absolute()
        text = io.StringIO()
        out = csv.writer(text, lineterminator="\n")
        out.writerow(HEADER)
        found = self._settled(reviewers)
        for row, label, count in found:
            path = f"pictures/{row['file']}" if here else str((self._pictures / row["file"]).absolute())
            name = f"{row['request_id']}/{row['position']}"
            weight = f"{_weight(row):g}"
            tail = (weight, row["sampled"], row["role"], row["decision"], row["bundle_sha256"])
            out.writerow((name, path, label, "review", row["sequence"], row["sha256"], count, *tail))
        return text.getvalue()

    def settled(self, *, reviewers: int = 1) -> list[Settled]:
        """Pictures on which more people agree than not, in the order in which they came to."""
        return [
            Settled(
                f"{row['request_id']}/{row['position']}", label, row["decision"], row["probability"], row["role"],
                row["bundle_sha256"], bool(row["sampled"]),
            )
            for row, label, _ in self._settled(reviewers)
        ]  # fmt: skip

    def said(self) -> int:
        """Number of the last label or undo; it grows with each."""
        with self._lock:
            return int(self._db.execute("SELECT coalesce(max(id), 0) FROM labels").fetchone()[0])

    def _settled(self, reviewers: int) -> list[tuple[dict[str, Any], int, int]]:
        opinions = self.opinions()
        with self._lock:
            last = dict(self._db.execute("SELECT sha256, max(id) FROM labels GROUP BY sha256").fetchall())
        found, ids = [], set()
        for row in sorted(self._rows(), key=lambda r: last.get(r["sha256"], 0)):
            said = opinions.get(row["sha256"], {})
            label, count = verdict(said), sum(v != "skip" for v in said.values())
            place = (row["request_id"], row["position"])
            # A client that uses an id for two pictures leaves open which of them a label of that id is about.
            if label is not None and count >= reviewers and place not in ids:
                ids.add(place)
                found.append((row, label, count))
        return found

    def _rows(self) -> list[dict[str, Any]]:
        names = (
            "sha256", "file", "time", "probability", "reason", "request_id", "bundle_sha256", "position", "decision",
            "role", "sequence", "share", "sampled",
        )  # fmt: skip
        with self._lock:
            rows = self._db.execute(f"SELECT {', '.join(names)} FROM pictures ORDER BY time").fetchall()
        return [dict(zip(names, row, strict=True)) for row in rows]


def _weight(row: Mapping[str, Any]) -> float:
    """Smallest chance of being kept at that time, divided by that of a picture with this answer."""
    return float(row["share"]) if row["decision"] == "abstain" and row["share"] > 0 else 1.0


def verdict(said: Mapping[str, str]) -> int | None:
    """1 or 0 where more reviewers say roadwork or none than the other; None where it is open."""
    counts = Counter(said.values())
    if counts["roadwork"] == counts["none"]:
        return None
    return int(counts["roadwork"] > counts["none"])
