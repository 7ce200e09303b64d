"""Import of a source into a folder: manifest, extracted images, list of what was left out; resumable after any end.

The events of a source come in one order, so the import writes them in numbered parts: a table of rows, then a note that
makes the part valid. A part whose note fits the source is not done again. Images are named after their content, so
writing one twice changes nothing.
"""

from __future__ import annotations

import csv
import errno
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, is_dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from workzone.data.columns import COLUMNS, conform
from workzone.data.sources.base import Source, nothing_taken
from workzone.data.sources.build import Facts, fill, read_facts
from workzone.data.sources.records import Dropped, Event, Record, digest
from workzone.data.sources.survey import Survey
from workzone.errors import ConfigError, DataError, ImageError
from workzone.files import PARTIAL, atomic_path, read_json, sha256_json, write_atomic, write_json
from workzone.vision.decode import MAX_PIXELS
from workzone.vision.formats import sniff

PART = 512
VERSION = 1
_ENDINGS = {
    "JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "GIF": ".gif", "AVIF": ".avif"
}  # fmt: skip
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Imported:
    """Result of an import.

    Attributes:
        manifest: the table that was written.
        survey: counts of taken and left-out images.
        rejected: id, path and reason of the first hundred unreadable images.
        unreadable: number of unreadable images.
        copies: images whose bytes another image has as well.
        contradictory: copies whose labels differ.
        resumed: images that an earlier, unfinished import had already read.
    """

    manifest: Path
    survey: Survey
    rejected: list[tuple[str, str, str]]
    unreadable: int
    copies: int
    contradictory: int
    resumed: int


@dataclass(frozen=True, slots=True)
class _Parts:
    folder: Path

    def table(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.parquet"

    def note(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.json"

    def numbers(self) -> list[int]:
        return sorted(int(p.stem.removeprefix("part-")) for p in self.folder.glob("part-*.json"))

    def read(self, number: int) -> dict[str, Any] | None:
        """Note of a finished part; None where there is none."""
        if not self.note(number).is_file() or not self.table(number).is_file():
            return None
        try:
            body = read_json(self.note(number))
        except (OSError, ValueError):
            return None  # written again
        return body if isinstance(body, dict) else None


def import_source(
    source: Source,
    location: Path,
    out: Path,
    *,
    max_pixels: int = MAX_PIXELS,
    workers: int = 2,
    part: int = PART,
    progress: Progress | None = None,
) -> Imported:
    """Read ``location`` into the folder ``out``: ``manifest.parquet``, ``images/``, ``left_out.csv``, ``import.json``.

    Images that are files stay where they are; those inside other files are written to ``images/`` once, named by
    SHA-256. Called again after a kill it goes on where it stopped and gives the same manifest.

    Args:
        source: the source with its options.
        location: what it reads.
        out: folder, new or of an earlier call with the same source and options.
        max_pixels: images with more are listed as unreadable.
        workers: threads that decode; images in memory are bounded by it.
        part: images between two points from which it can go on.
        progress: called with images done and images in all (0: not known).

    Raises:
        DataError: wrong layout, nothing readable, ids that repeat, a full disk, or a source that changed meanwhile.
        ConfigError: ``out`` holds another import or is no folder.
    """
    location = location.absolute()
    try:
        parts = _prepare(source, location, out, max_pixels, part)
        done, first = _finished(source, location, out, parts, part)
        _read(source, location, out, parts, _Options(first, done, max_pixels, workers, part, progress))
        return _finish(source, location, out, parts, resumed=done)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                "the disk is full", where=str(out), fix="make room and give the same command; it goes on from there"
            ) from error
        raise DataError(
            f"a file cannot be read or written: {error.strerror or error}", where=str(error.filename or out)
        ) from error


@dataclass(frozen=True, slots=True)
class _Options:
    first: int
    done: int
    max_pixels: int
    workers: int
    part: int
    progress: Progress | None


def _options(source: Source) -> dict[str, Any]:
    # JSON and back, so that tuples and lists compare equal with what was stored.
    body: dict[str, Any] = asdict(source) if is_dataclass(source) else {}
    return dict(json.loads(json.dumps(body, default=str)))


def _prepare(source: Source, location: Path, out: Path, max_pixels: int, part: int) -> _Parts:
    if out.exists() and not out.is_dir():
        raise ConfigError("the output is no folder", where=str(out), fix="give the path of a folder")
    parts = _Parts(out / ".import")
    plan = {
        "version": VERSION,
        "kind": source.kind,
        "location": str(location.absolute()),
        "options": _options(source),
        "max_pixels": max_pixels,
        "part": part,
    }
    file = parts.folder / "plan.json"
    if file.is_file():
        try:
            same = read_json(file) == plan
        except ValueError:
            same = False
        if not same:
            raise ConfigError(
                "the folder holds an import of another source, or with other options",
                where=str(out),
                fix="give another folder, or remove this one",
            )
        for partial in out.rglob(".*.partial*"):
            if re.fullmatch(PARTIAL, partial.name):
                partial.unlink()
    elif out.is_dir() and any(p.name != ".import" for p in out.iterdir()):
        raise ConfigError("the folder is not empty", where=str(out), fix="give a new folder")
    write_json(file, plan)
    return parts


def _batches(events: Iterator[Event], size: int) -> Iterator[list[Event]]:
    while batch := list(islice(events, size)):
        yield batch


def _finished(source: Source, location: Path, out: Path, parts: _Parts, part: int) -> tuple[int, int]:
    """Events that need not be read again, and the number of the first part that has to be."""
    if not parts.numbers():
        return 0, 0
    done = number = 0
    for number, batch in enumerate(_batches(source.stream(location, content=False).events, part)):
        note = parts.read(number)
        if note is None or not all((out / name).is_file() for name in note["files"]):
            return done, number
        if note["digest"] != digest(batch):
            raise DataError(
                "the source has changed since the import began",
                where=str(location),
                fix=f"remove {out} and import again",
            )
        done += len(batch)
    return done, number + 1 if done else 0


def _read(source: Source, location: Path, out: Path, parts: _Parts, options: _Options) -> None:
    stream = source.stream(location, start=options.done, content=True)
    extra = dict(stream.extra)
    number, count = options.first, options.done
    for stale in parts.numbers():
        if stale >= number:  # of a source that has become shorter, or after a part that is missing
            parts.note(stale).unlink()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(max(1, options.workers)))
        waiting: deque[tuple[Event, Callable[[], _Looked] | None]] = deque()
        events: list[Event] = []
        looked: list[_Looked | None] = []

        def settle() -> None:
            nonlocal number, count
            event, look = waiting.popleft()
            looked.append(None if look is None else look())
            # The bytes are on disk now; what is kept of a part must stay small.
            events.append(Record(event.id, event.columns, event.path) if isinstance(event, Record) else event)
            count += 1
            if len(events) == options.part:
                _write_part(parts, number, events, looked, extra)
                number += 1
                events.clear()
                looked.clear()
            if options.progress is not None:
                options.progress(count, stream.total or 0)

        for event in stream.events:
            look: Callable[[], _Looked] | None = None
            if isinstance(event, Record):
                look = partial(_look, event, out, options.max_pixels)
                # Handing a small image to another thread takes as long as hashing it.
                look = look if options.workers == 1 else pool.submit(look).result
            waiting.append((event, look))
            if len(waiting) > 2 * options.workers:
                settle()
        while waiting:
            settle()
        if events:
            _write_part(parts, number, events, looked, extra)


@dataclass(frozen=True, slots=True)
class _Looked:
    """What became of one record: facts and the path for the table, or an error."""

    path: str
    facts: Facts | None
    error: str = ""
    size: int = 0


def _look(record: Record, out: Path, max_pixels: int) -> _Looked:
    path = str(record.path.absolute()) if record.path is not None else ""
    try:
        facts = read_facts(record.content if record.path is None else record.path, max_pixels=max_pixels)  # type: ignore[arg-type]
    except ImageError as error:
        return _Looked(path, None, f"{error.reason}: {error.what}")
    given = record.columns.get("sha256")
    if given not in (None, facts.sha256):
        return _Looked(path, None, "changed: the file does not have the sha256 of the table")
    if record.path is not None:
        return _Looked(path, facts, size=record.size if record.size is not None else record.path.stat().st_size)
    content = record.content or b""
    name = f"images/{facts.sha256[:2]}/{facts.sha256}{_ENDINGS.get(sniff(content)[0] or '', '')}"
    target = out / name
    if not target.is_file() or target.stat().st_size != len(content):
        write_atomic(target, content)
    return _Looked(name, facts, size=len(content))


def _write_part(
    parts: _Parts,
    number: int,
    events: list[Event],
    looked: list[_Looked | None],
    extra: Mapping[str, pl.DataType],
) -> None:
    rows: list[dict[str, Any]] = []
    facts: list[Facts] = []
    rejected, dropped, doubts, sizes = [], [], [], []
    files: set[str] = set()
    for event, seen in zip(events, looked, strict=True):
        if isinstance(event, Dropped):
            dropped.append([event.id, event.rule, event.detail])
        elif seen is None or seen.facts is None:
            rejected.append([event.id, seen.path if seen else "", seen.error if seen else ""])
        else:
            rows.append({"id": event.id, "path": seen.path, **event.columns})
            facts.append(seen.facts)
            sizes.append(seen.size)
            if event.path is None:
                files.add(seen.path)
            doubts += [[event.id, f"EXIF {p}"] for p in seen.facts.exif.problems]
    schema = {**COLUMNS, **extra}
    frame = fill(conform(pl.DataFrame(rows, schema=schema, orient="row"), where=f"part {number}"), facts)
    with atomic_path(parts.table(number)) as partial:
        frame.write_parquet(partial)
    note = {
        "digest": digest(events),
        "events": len(events),
        "files": sorted(files),
        "rejected": rejected,
        "dropped": dropped,
        "doubts": doubts,
        "sizes": sizes,
    }
    write_json(parts.note(number), note)


def _finish(source: Source, location: Path, out: Path, parts: _Parts, *, resumed: int) -> Imported:
    counts = Survey()
    rejected: list[tuple[str, str, str]] = []
    unreadable = 0
    first: list[Dropped] = []
    tables = []
    with atomic_path(out / "left_out.csv") as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "kind", "reason"])
        for number in parts.numbers():
            note = parts.read(number)
            if note is None:
                raise DataError("a part of the import is damaged", where=str(parts.note(number)), fix="import again")
            for key, rule, detail in note["dropped"]:
                event = Dropped(key, rule, detail)
                first = first or [event]
                counts.add(event)
                writer.writerow([key, "rule", event.reason])
            for key, path, reason in note["rejected"]:
                unreadable += 1
                if len(rejected) < 100:
                    rejected.append((key, path, reason))
                writer.writerow([key, "unreadable", reason])
            writer.writerows([key, "doubt", reason] for key, reason in note["doubts"])
            tables.append(parts.table(number))
            rows = pl.read_parquet(tables[-1], columns=["id", "label", "source", "group"])
            for row, size in zip(rows.iter_rows(named=True), note["sizes"], strict=True):
                counts.add(Record(row.pop("id"), row, size=size))
    if not counts.images:
        if rejected:
            raise DataError(
                f"{unreadable} of {unreadable} images cannot be read, the first because of: {rejected[0][2]}",
                where=rejected[0][1] or rejected[0][0],
                fix="repair or remove them",
            )
        raise nothing_taken(first * sum(counts.dropped.values()), str(location))
    whole = pl.scan_parquet(tables)
    repeated = whole.select("id").collect()["id"]
    repeated = repeated.filter(repeated.is_duplicated())
    if repeated.len():
        raise DataError(f"{repeated.len()} images share ids, such as {repeated[0]!r}", where=str(location))
    copies = whole.group_by("sha256").agg(pl.len(), pl.col("label").drop_nulls().n_unique().alias("labels")).collect()
    copies = copies.filter(pl.col("len") > 1)
    manifest = out / "manifest.parquet"
    with atomic_path(manifest) as partial:
        whole.sink_parquet(partial, maintain_order=True)
    result = Imported(
        manifest,
        counts,
        rejected,
        unreadable,
        int(copies["len"].sum() - copies.height),
        copies.filter(pl.col("labels") > 1).height,
        resumed,
    )
    body = {
        "kind": source.kind,
        "location": str(location.absolute()),
        "options": _options(source),
        "licence": asdict(source.licence) if source.licence else None,
        **counts.body(),
        "unreadable": unreadable,
        "copies": result.copies,
        "contradictory_copies": result.contradictory,
    }
    write_json(out / "import.json", {**body, "hash": sha256_json(body)})
    return result
