"""The review queue: pictures the policy abstained on, what people say of them, and the manifest of that.

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
from pathlib import Path
from typing import Any

from workzone.decisions import Decision
from workzone.errors import DataError
from workzone.files import write_atomic
from workzone.serving.metrics import log_line
from workzone.vision.formats import sniff

LABELS = ("roadwork", "none", "skip", "undo")
REVIEWERS = 2
"""People who look at a picture; where they disagree, further ones may."""
HEADER = ("id", "path", "label", "source", "group", "sha256", "reviewers")
_SUFFIXES: Mapping[str, str] = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}
_BACKLOG = 32
_SCHEMA = """
CREATE TABLE IF NOT EXISTS pictures (
  sha256 TEXT PRIMARY KEY, file TEXT NOT NULL, time REAL NOT NULL, request_id TEXT NOT NULL,
  bundle_sha256 TEXT NOT NULL, probability REAL NOT NULL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS labels (
  id INTEGER PRIMARY KEY AUTOINCREMENT, sha256 TEXT NOT NULL REFERENCES pictures (sha256),
  reviewer TEXT NOT NULL, time REAL NOT NULL,
  label TEXT NOT NULL CHECK (label IN ('roadwork', 'none', 'skip', 'undo')));
CREATE TRIGGER IF NOT EXISTS labels_stay BEFORE UPDATE ON labels BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER IF NOT EXISTS labels_remain BEFORE DELETE ON labels BEGIN SELECT RAISE(ABORT, 'append only'); END;
"""


class ReviewStore:
    """Pictures and labels in one folder; safe to use from several threads and processes.

    Args:
        folder: made where it does not exist.
        max_bytes: size of the pictures at which no more are kept; nothing that waits for a label is thrown away.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder, self._max = folder, max_bytes
        self._pictures = folder / "pictures"
        self._pictures.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(
                folder / "review.db", timeout=30.0, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise DataError(f"the review queue cannot be opened: {error}", where=str(folder)) from error
        self._lock = threading.Lock()
        self._soon: queue.Queue[tuple[bytes, Decision, str, str]] = queue.Queue(_BACKLOG)
        self._size = sum(p.stat().st_size for p in self._pictures.iterdir() if p.is_file())
        self.full = False
        threading.Thread(target=self._keep_forever, name="workzone-review", daemon=True).start()

    def keep_soon(self, content: bytes, decision: Decision, request_id: str, bundle_sha256: str) -> None:
        """Have a thread keep a picture; when the disk is too slow, it is left out and the log says so."""
        try:
            self._soon.put_nowait((content, decision, request_id, bundle_sha256))
        except queue.Full:
            log_line("review", request_id=request_id, dropped="the disk is too slow")

    def _keep_forever(self) -> None:
        while True:
            content, decision, request_id, bundle = self._soon.get()
            try:
                self.keep(content, decision, request_id, bundle)
            except (OSError, sqlite3.Error) as error:
                log_line("review", request_id=request_id, dropped=str(error))
            finally:
                self._soon.task_done()

    def flush(self) -> None:
        """Wait until every picture that was handed over is kept."""
        self._soon.join()

    def keep(self, content: bytes, decision: Decision, request_id: str, bundle_sha256: str) -> bool:
        """Keep a picture once, however often it comes; False where the folder is full."""
        sha256 = hashlib.sha256(content).hexdigest()
        kind = sniff(content)[0] or "bin"
        file = self._pictures / f"{sha256}.{_SUFFIXES.get(kind, kind.lower())}"
        if not file.exists():
            self.full = self._size + len(content) > self._max
            if self.full:
                log_line("review", request_id=request_id, dropped="the folder of pictures is full")
                return False
            write_atomic(file, content)
            self._size += len(content)
        values = (sha256, file.name, time.time(), request_id, bundle_sha256, decision.probability, decision.reason)
        with self._lock:
            self._db.execute("INSERT OR IGNORE INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?)", values)
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
        return [{**row, "disputed": -kinds > 1} for kinds, _, _, row in waiting[:most]]

    def progress(self, reviewer: str) -> dict[str, Any]:
        """Counts for the page, and the pictures on which reviewers disagree, with what each said."""
        opinions, rows = self.opinions(), self._rows()
        disputed = {
            s: said
            for s, said in opinions.items()
            if len({v for v in said.values() if v != "skip"}) > 1 and reviewer in said
        }
        return {
            "pictures": len(rows),
            "left": len(self.queue_for(reviewer, most=len(rows))),
            "settled": sum(verdict(said) is not None for said in opinions.values()),
            "disagreements": [{"sha256": s, "labels": said} for s, said in disputed.items()],
            "full": self.full,
        }

    def export(self, *, below: Path | None = None) -> str:
        """Manifest (CSV) of the pictures on which more people agree than not.

        Args:
            below: folder of the manifest; paths start there where they can, else from the folder of the review queue.
        """
        here = below is None or self.folder.absolute() == below.absolute()
        text = io.StringIO()
        out = csv.writer(text, lineterminator="\n")
        out.writerow(HEADER)
        opinions = self.opinions()
        for row in self._rows():
            said = opinions.get(row["sha256"], {})
            settled = verdict(said)
            if settled is not None:
                count = sum(v != "skip" for v in said.values())
                name = row["sha256"]
                path = f"pictures/{row['file']}" if here else str((self._pictures / row["file"]).absolute())
                out.writerow((f"review-{name[:16]}", path, settled, "review", "", name, count))
        return text.getvalue()

    def _rows(self) -> list[dict[str, Any]]:
        names = ("sha256", "file", "time", "probability", "reason")
        with self._lock:
            rows = self._db.execute(f"SELECT {', '.join(names)} FROM pictures ORDER BY time").fetchall()
        return [dict(zip(names, row, strict=True)) for row in rows]


def verdict(said: Mapping[str, str]) -> int | None:
    """1 or 0 where more reviewers say roadwork or none than the other; None where it is open."""
    counts = Counter(said.values())
    if counts["roadwork"] == counts["none"]:
        return None
    return int(counts["roadwork"] > counts["none"])
