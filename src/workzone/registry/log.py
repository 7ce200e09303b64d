"""The promotion log: one JSON line an event, each with the hash of the line before, never changed afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workzone.errors import CheckFailedError
from workzone.files import sha256_bytes, write_atomic, write_json

LOG, HEAD = "log.jsonl", "head.json"
FIRST = "0" * 64
MAX_BYTES = 64 * 1024 * 1024
_TRIES, _PAUSE = 3, 0.01
_KEYS = {"seq", "time", "event", "prev", "sha256"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One event.

    Attributes:
        seq: from 0.
        time: UTC, RFC 3339.
        event: ``add``, ``promote``, ``rollback`` or ``withdraw``.
        values: what belongs to the event.
        prev: hash of the entry before, 64 zeros for the first.
        sha256: hash of this entry without this key.
    """

    seq: int
    time: str
    event: str
    values: Mapping[str, Any]
    prev: str
    sha256: str

    def line(self) -> str:
        """The line of the log."""
        return _text({**self._body(), "sha256": self.sha256}) + "\n"

    def _body(self) -> dict[str, Any]:
        return {**self.values, "seq": self.seq, "time": self.time, "event": self.event, "prev": self.prev}

    def computed(self) -> str:
        """The hash that ``sha256`` must be."""
        return sha256_bytes(_text(self._body()).encode())


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def head_of(entries: list[Entry]) -> str:
    """Hash that stands for the whole log."""
    return entries[-1].sha256 if entries else FIRST


def read_log(root: Path) -> tuple[list[Entry], list[str]]:
    """See ``_read_once``; asked again where something is wrong, since another process may be between its two files."""
    entries, problems = _read_once(root)
    for _ in range(_TRIES):
        if not problems:
            break
        time.sleep(_PAUSE)
        entries, problems = _read_once(root)
    return entries, problems


def _read_once(root: Path) -> tuple[list[Entry], list[str]]:
    """All entries up to the first that is damaged, and what is wrong with the log, empty where nothing is.

    A log that was cut is found by ``head.json``, which remembers how long it was; whoever can change both files can cut
    both, so a person who must be sure keeps the hash of the head elsewhere.
    """
    try:
        if (root / LOG).stat().st_size > MAX_BYTES:
            return [], [f"{LOG} is larger than {MAX_BYTES} bytes"]
        lines = (root / LOG).read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        lines = [""]
    except (OSError, UnicodeDecodeError) as error:
        return [], [f"{LOG} cannot be read: {error}"]
    entries: list[Entry] = []
    problems = []
    if lines.pop() != "":
        problems.append(f"{LOG} does not end with a whole line")
    for number, line in enumerate(lines, 1):
        made = _entry(line)
        if made is None:
            problems.append(f"line {number} is no entry of a log")
        elif made.computed() != made.sha256 or made.line() != line + "\n":
            problems.append(f"line {number} was changed after it was written")
        elif made.seq != number - 1 or made.prev != head_of(entries):
            problems.append(f"line {number} does not follow the line before it")
        else:
            entries.append(made)
            continue
        break
    return entries, problems + _cut(root, entries, bool(problems))


def _entry(line: str) -> Entry | None:
    try:
        raw = json.loads(line)
        rest = {k: v for k, v in raw.items() if k not in _KEYS}
        return Entry(int(raw["seq"]), str(raw["time"]), str(raw["event"]), rest, str(raw["prev"]), str(raw["sha256"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _cut(root: Path, entries: list[Entry], known_bad: bool) -> list[str]:
    try:
        head = json.loads((root / HEAD).read_text(encoding="utf-8"))
        count, digest = int(head["entries"]), str(head["sha256"])
    except FileNotFoundError:
        # Written after the log, so a process killed between the two leaves one entry without a head.
        return [f"{HEAD} is missing"] if len(entries) > 1 else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{HEAD} cannot be read: {error}"]
    if known_bad:
        return []
    if count > len(entries):
        return [f"the log was cut: {len(entries)} entries, {HEAD} remembers {count}"]
    if count < 1 or entries[count - 1].sha256 != digest or len(entries) > count + 1:
        return [f"the log is not the one that {HEAD} remembers"]
    return []


def require_intact(root: Path) -> list[Entry]:
    """All entries.

    Raises:
        CheckFailedError: the log was changed.
    """
    entries, problems = read_log(root)
    if problems:
        fix = "restore the registry from a copy; do not repair the log by hand"
        raise CheckFailedError(f"the log of the registry is damaged: {problems[0]}", where=str(root / LOG), fix=fix)
    return entries


def append(root: Path, entries: list[Entry], event: str, values: Mapping[str, Any]) -> Entry:
    """Add an entry; the caller holds the lock and has just read ``entries``.

    The file is replaced as a whole, so that a killed process leaves the old log or the new one, never half a line.
    """
    if _KEYS & set(values):
        raise ValueError(f"these names belong to the log itself: {sorted(_KEYS & set(values))}")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    plain = json.loads(json.dumps(values, allow_nan=False))
    draft = Entry(len(entries), now, event, plain, head_of(entries), "")
    made = Entry(draft.seq, draft.time, draft.event, draft.values, draft.prev, draft.computed())
    if entries:
        # A process killed between the two files left the head one behind; a second one must not leave it two behind.
        _remember(root, entries)
    write_atomic(root / LOG, "".join(e.line() for e in [*entries, made]))
    _remember(root, [*entries, made])
    return made


def _remember(root: Path, entries: list[Entry]) -> None:
    write_json(root / HEAD, {"entries": len(entries), "sha256": head_of(entries)})
