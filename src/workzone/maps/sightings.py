"""Decisions with a place and a time: read from tables, or placed by a track."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workzone.errors import DataError, ImageError, unreadable
from workzone.maps.tracks import Track
from workzone.predictions import FloatArray, StrArray

if TYPE_CHECKING:
    import polars as pl

_TIMES = ("time", "captured_at", "seconds_since_epoch")


@dataclass(frozen=True, slots=True)
class Sightings:
    """N decisions with a position; abstentions are among them and count for nothing but themselves.

    Attributes:
        latitude, longitude: (N,) degrees, WGS 84.
        time: (N,) seconds since 1970 UTC.
        probability: (N,) calibrated probability of roadwork.
        decision: (N,) 'roadwork', 'no_roadwork' or 'abstain'.
        drive: (N,) drive or camera; sightings of one drive that follow each other are one pass.
        unplaced: rows without position or time, left out.
    """

    latitude: FloatArray
    longitude: FloatArray
    time: FloatArray
    probability: FloatArray
    decision: StrArray
    drive: StrArray
    unplaced: int = 0

    def __post_init__(self) -> None:
        n = len(self.latitude)
        columns = (self.longitude, self.time, self.probability, self.decision, self.drive)
        if any(len(c) != n for c in columns):
            raise ValueError("all columns of sightings must have one length")
        if n and not ((np.abs(self.latitude) <= 90).all() and (np.abs(self.longitude) <= 180).all()):
            raise DataError("a position lies outside -90..90 and -180..180 degrees", where="sightings")

    def __len__(self) -> int:
        return len(self.latitude)


def read_sightings(
    path: Path,
    *,
    track: Track | None = None,
    zone: tzinfo = UTC,
    progress: Callable[[int, int], None] | None = None,
) -> Sightings:
    """Read a table as ``workzone predict`` writes it (CSV, Parquet or JSON lines), or the folder of ``workzone score``.

    The time comes from the column time (or captured_at), else from the EXIF of the image that the row names; the
    position from the columns latitude and longitude, else from ``track`` at that time, else from EXIF.

    Args:
        path: table or folder.
        track: where the vehicle was.
        zone: of times that state no offset, which is how most cameras write them.
        progress: called with images opened and images to open.

    Raises:
        DataError: unreadable, without decisions, or with no row that can be placed.
    """
    frame = _read(path)
    missing = [c for c in ("decision", "probability") if c not in frame.columns]
    if missing:
        raise DataError(f"the table has no column {missing[0]!r}", where=str(path), fix="give the output of 'predict'")
    import polars as pl

    frame = frame.filter(pl.col("decision").is_in(["roadwork", "no_roadwork", "abstain"]))
    n = frame.height
    time, latitude, longitude = _times(frame, zone), _number(frame, "latitude"), _number(frame, "longitude")
    latitude, longitude = _position(latitude, longitude, time, track)
    unknown = ~(np.isfinite(latitude) & np.isfinite(longitude) & np.isfinite(time))
    if unknown.any() and "path" in frame.columns:
        exif = _exif(frame["path"].to_list(), path.parent, unknown, zone, progress)
        time = np.where(np.isfinite(time), time, exif[:, 2])
        latitude, longitude = _position(latitude, longitude, time, track)
        bare = ~(np.isfinite(latitude) & np.isfinite(longitude))
        latitude, longitude = np.where(bare, exif[:, 0], latitude), np.where(bare, exif[:, 1], longitude)
    placed = np.isfinite(latitude) & np.isfinite(longitude) & np.isfinite(time)
    if not placed.any():
        raise DataError(
            f"none of {n} decisions has a position and a time{_what_is_known(latitude, time, track)}",
            where=str(path),
            fix="give columns latitude, longitude and time, a track with --track FILE.gpx, or images with EXIF",
        )
    drive = next((c for c in ("drive", "group", "camera_id", "source") if c in frame.columns), None)
    names = np.full(n, "", dtype="<U1") if drive is None else np.array([str(v or "") for v in frame[drive].to_list()])
    return Sightings(
        latitude[placed],
        longitude[placed],
        time[placed],
        frame["probability"].cast(pl.Float64).to_numpy()[placed],
        frame["decision"].to_numpy().astype(np.str_)[placed],
        names.astype(np.str_)[placed],
        int(n - placed.sum()),
    )


def join(parts: Sequence[Sightings]) -> Sightings:
    """All rows of several tables."""
    return Sightings(
        latitude=np.concatenate([p.latitude for p in parts]),
        longitude=np.concatenate([p.longitude for p in parts]),
        time=np.concatenate([p.time for p in parts]),
        probability=np.concatenate([p.probability for p in parts]),
        decision=np.concatenate([p.decision for p in parts]),
        drive=np.concatenate([p.drive for p in parts]),
        unplaced=sum(p.unplaced for p in parts),
    )


def _position(
    latitude: FloatArray, longitude: FloatArray, time: FloatArray, track: Track | None
) -> tuple[FloatArray, FloatArray]:
    """Positions, those that are missing from ``track``."""
    if track is None:
        return latitude, longitude
    there = np.isfinite(time) & ~(np.isfinite(latitude) & np.isfinite(longitude))
    latitude, longitude = latitude.copy(), longitude.copy()
    latitude[there], longitude[there] = track.at(time[there])
    return latitude, longitude


def _what_is_known(latitude: FloatArray, time: FloatArray, track: Track | None) -> str:
    timed = time[np.isfinite(time)]
    if track is None or not len(timed) or np.isfinite(latitude).any():
        return ""
    ends = [datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%S") for t in (timed.min(), timed.max())]
    on = [datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%S") for t in (track.time[0], track.time[-1])]
    return (
        f": the images are of {ends[0]} to {ends[1]} UTC and the track of {on[0]} to {on[1]} UTC "
        "(--utc-offset for cameras that write local time)"
    )


def _read(path: Path) -> pl.DataFrame:
    import polars as pl

    if path.is_dir():
        shards = sorted((path / "shards").glob("*/*.parquet"))
        if not shards:
            raise DataError(
                "the folder holds no scored shards", where=str(path), fix="give a table, or --out of 'workzone score'"
            )
        return pl.concat([_read(shard) for shard in shards], how="vertical_relaxed")
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        ".csv": lambda p: pl.read_csv(p, infer_schema_length=10_000),
        ".parquet": pl.read_parquet,
        ".jsonl": lambda p: pl.read_ndjson(p, infer_schema_length=10_000),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path.suffix or 'this'} is no table", where=str(path), fix="give .csv, .parquet or .jsonl")
    try:
        return reader(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(DataError, "the table", path, error) from error


def _number(frame: pl.DataFrame, column: str) -> FloatArray:
    import polars as pl

    if column not in frame.columns:
        return np.full(frame.height, np.nan)
    return np.array(frame[column].cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy(), dtype=np.float64)


def _times(frame: pl.DataFrame, zone: tzinfo) -> FloatArray:
    for name in _TIMES:
        if name in frame.columns:
            values = frame[name]
            if values.dtype.is_numeric():
                return _number(frame, name)
            return np.array([parse_time(v, zone) for v in values.to_list()], dtype=np.float64)
    return np.full(frame.height, np.nan)


def parse_time(value: Any, zone: tzinfo = UTC) -> float:
    """Seconds since 1970 UTC of an ISO time or a datetime, of ``zone`` where it states no offset; NaN where unknown."""
    if value is None or value == "":
        return float("nan")
    try:
        stamp = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return float("nan")
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=zone)).timestamp()


def _exif(
    names: list[Any],
    root: Path,
    wanted: NDArray[np.bool_],
    zone: tzinfo,
    progress: Callable[[int, int], None] | None,
) -> FloatArray:
    """Latitude, longitude and time (N, 3) by EXIF; NaN where it does not say, or the image is not ``wanted``."""
    from PIL import Image

    from workzone.data.sources.exif import read_exif

    found = np.full((len(names), 3), np.nan)
    rows = np.flatnonzero(wanted)
    for done, row in enumerate(rows.tolist(), 1):
        file = Path(str(names[row]))
        file = file if file.is_absolute() or file.exists() else root / file
        try:
            with Image.open(file) as image:
                exif = read_exif(image)
        except (OSError, ValueError, Image.DecompressionBombError, ImageError):
            continue  # counted among the unplaced
        if exif.latitude is not None and exif.longitude is not None:
            found[row, :2] = exif.latitude, exif.longitude
        found[row, 2] = parse_time(exif.captured_at, zone)
        if progress is not None:
            progress(done, len(rows))
    return found
