"""Source ``natix``: the NATIX roadwork data set in the forms of Hugging Face, Parquet shards and image folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from workzone.data.sources.base import RecordSource, file_record, is_hidden, register
from workzone.data.sources.records import (
    Dropped,
    Event,
    Licence,
    Record,
    one_text,
    position,
    sequence_from_name,
    sequence_group,
)
from workzone.errors import DataError

BATCH = 8
CONTRADICTION = "the scene description contradicts the label"
_META = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def _shards(location: Path) -> list[Path]:
    if location.is_file():
        return [location] if location.suffix.lower() == ".parquet" else []
    found = (p for p in location.rglob("*.parquet") if p.name not in _META and not is_hidden(p, location))
    return sorted(found, key=lambda p: p.relative_to(location).as_posix())


def _meta_files(location: Path) -> list[Path]:
    if not location.is_dir():
        return []
    return sorted(p for name in _META for p in location.rglob(name) if not is_hidden(p, location))


def _has_image_struct(shard: Path) -> bool:
    try:
        kind = pl.read_parquet_schema(shard).get("image")
    except (pl.exceptions.PolarsError, OSError):
        return False
    return isinstance(kind, pl.Struct) and {f.name for f in kind.fields} >= {"bytes", "path"}


def dig(row: Mapping[str, Any], *path: str) -> Any:
    """A nested value, whether it is stored as a structure or under a name with dots."""
    if ".".join(path) in row:
        return row[".".join(path)]
    value: Any = row
    for part in path:
        if isinstance(value, str) and value.startswith("{"):  # a structure written into a CSV file
            try:
                value = json.loads(value)
            except json.JSONDecodeError:
                return None
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


@register
@dataclass(frozen=True, slots=True)
class NatixSource(RecordSource):
    """Rows of ``natix-network-org/roadwork``: image, label 1 for roadwork, drive, place and scene tags.

    Rows are left out where a description is present without the label or the label without a description, which is
    how the owners' own validator reads the set. Description and ``travel_alteration`` are never handed on: they
    were written by people who knew the label.
    """

    kind: ClassVar[str] = "natix"
    licence: ClassVar[Licence | None] = Licence(
        "no licence is stated for the data set as a whole",
        "https://huggingface.co/datasets/natix-network-org/roadwork",
        "each image may carry a licence of its own, which is kept; ask the owners before any use beyond a test",
    )
    extra: ClassVar[Mapping[str, pl.DataType]] = {
        "official_split": pl.String(),
        "original_name": pl.String(),
        "city": pl.String(),
        "time_of_day": pl.String(),
        "scene": pl.String(),
        "licence": pl.String(),
    }

    check_description: bool = True

    @classmethod
    def recognises(cls, location: Path) -> bool:
        """Parquet files with an image structure, or a folder with ``metadata.jsonl``."""
        if location.is_dir() and (location / "metadata.jsonl").is_file():
            return True
        shard = next(iter(_shards(location)), None)
        return shard is not None and _has_image_struct(shard)

    def events(self, location: Path, *, content: bool) -> Iterator[Event]:
        """Rows of all shards, then of all metadata files, by name."""
        return self.events_from(location, start=0, content=content)

    def events_from(self, location: Path, *, start: int, content: bool) -> Iterator[Event]:
        """See ``RecordSource.events_from``; whole shards are skipped by their number of rows."""
        shards, metas = _shards(location), _meta_files(location)
        if not shards and not metas:
            raise DataError(
                "there are neither Parquet shards nor a metadata file",
                where=str(location),
                fix=f"give the folder with *.parquet, or an image folder with {' or '.join(_META)}",
            )
        root = location if location.is_dir() else location.parent
        skip = start
        for shard in shards:
            if not _has_image_struct(shard):
                raise DataError(
                    "a shard has no column 'image' with bytes and path", where=str(shard), fix="is it another data set?"
                )
            rows = pl.scan_parquet(shard).select(pl.len()).collect().item()
            if skip >= rows:
                skip -= rows
                continue
            yield from self._shard(shard, shard.relative_to(root).with_suffix("").as_posix(), skip, rows, content)
            skip = 0
        for meta in metas:
            for event in self._folder(meta, root):
                if skip:
                    skip -= 1
                else:
                    yield event

    def _shard(self, shard: Path, name: str, first: int, rows: int, content: bool) -> Iterator[Event]:
        frame = pl.scan_parquet(shard)
        columns = frame.collect_schema().names()
        if "label" not in columns:
            raise DataError("a shard has no column 'label'", where=str(shard), fix="is it another data set?")
        image = pl.col("image").struct
        wanted = [pl.col(c) for c in columns if c != "image"]
        wanted += [image.field("path").alias("image.path"), image.field("bytes").bin.size().alias("image.size")]
        if content:
            wanted.append(image.field("bytes").alias("image.bytes"))
        split = Path(name).name.partition("-")[0]
        step = BATCH if content else 4096
        for at in range(first, rows, step):
            batch = frame.slice(at, step).select(wanted).collect()
            for number, row in enumerate(batch.iter_rows(named=True), at):
                key, size = f"{name}/{number:06d}", row["image.size"]
                original = row["image.path"] or str(row.get("id") or "")
                judged = self._judge(key, row, split, original)
                if isinstance(judged, Dropped):
                    yield judged
                elif not size:
                    yield Dropped(key, "the row has no image bytes", original)
                else:
                    yield Record(key, judged, content=row.get("image.bytes"), size=size)

    def _folder(self, meta: Path, root: Path) -> Iterator[Event]:
        below = meta.parent.relative_to(root).as_posix()
        split = "" if below == "." else below.split("/")[-1]
        prefix = "" if below == "." else f"{below}/"
        seen: set[str] = set()
        for number, row in enumerate(_meta_rows(meta), 1):
            name = str(row.get("file_name") or "")
            key = f"{prefix}{name}"
            if not name or Path(name).is_absolute() or ".." in Path(name).parts:
                yield Dropped(f"{prefix}{meta.name}:{number}", "the row names no image file below its folder", name)
            elif key in seen:
                yield Dropped(f"{prefix}{meta.name}:{number}", "the image is listed twice", name)
            else:
                seen.add(key)
                judged = self._judge(key, row, split, name)
                yield judged if isinstance(judged, Dropped) else file_record(key, meta.parent / name, judged)

    def _judge(self, key: str, row: Mapping[str, Any], split: str, original: str) -> dict[str, Any] | Dropped:
        value = row.get("label")
        try:
            label = int(str(value)) if not isinstance(value, float) else int(value) if value in (0.0, 1.0) else -1
        except ValueError:
            label = -1
        if label not in (0, 1):
            return Dropped(key, "the label is neither 0 nor 1", repr(value))
        # A set without the column says nothing that could contradict.
        if self.check_description and "scene_description" in row:
            described = bool(str(row["scene_description"] or "").strip())
            if described != bool(label):
                return Dropped(key, CONTRADICTION, f"label {label}, {'a' if described else 'no'} description")
        city = one_text(row.get("city_name"))
        place = position(row.get("gps"))
        group = sequence_group(city, dig(row, "video_info", "seq_id"), dig(row, "video_info", "vid_id"))
        return {
            "label": label,
            "source": "natix",
            "group": group or sequence_from_name(original),
            "weather": one_text(dig(row, "scene_level_tags", "weather")),
            "latitude": place[0] if place else None,
            "longitude": place[1] if place else None,
            "official_split": split or None,
            "original_name": original or None,
            "city": city,
            "time_of_day": one_text(dig(row, "scene_level_tags", "daytime")),
            "scene": one_text(dig(row, "scene_level_tags", "scene_environment")),
            "licence": one_text(str(row["license"])) if row.get("license") is not None else None,
        }


def _meta_rows(meta: Path) -> Iterator[Mapping[str, Any]]:
    if meta.suffix == ".jsonl":
        with meta.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise DataError(f"line {number} is no JSON: {error.msg}", where=str(meta)) from error
                if not isinstance(row, dict):
                    raise DataError(f"line {number} is no JSON object", where=str(meta))
                yield row
        return
    if meta.suffix == ".csv":
        import csv

        with meta.open(encoding="utf-8-sig", newline="") as stream:
            yield from ({str(k): v for k, v in row.items()} for row in csv.DictReader(stream))
        return
    frame = pl.scan_parquet(meta)
    for at in range(0, frame.select(pl.len()).collect().item(), 4096):
        yield from islice(frame.slice(at, 4096).collect().iter_rows(named=True), None)
