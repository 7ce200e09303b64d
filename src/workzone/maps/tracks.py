"""Where a vehicle was at a time: GPX files and CSV tracks."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from workzone.errors import DataError, unreadable
from workzone.predictions import FloatArray

MAX_BYTES = 512 * 1024 * 1024
MAX_GAP = 30.0
"""Seconds between two fixes beyond which nothing is interpolated."""


@dataclass(frozen=True, slots=True)
class Track:
    """Fixes in the order of time: seconds since 1970 UTC, degrees."""

    time: FloatArray
    latitude: FloatArray
    longitude: FloatArray

    def at(self, times: FloatArray, *, max_gap: float = MAX_GAP) -> tuple[FloatArray, FloatArray]:
        """Latitudes and longitudes at ``times`` (N,), NaN outside the track and inside gaps longer than ``max_gap``."""
        t = np.asarray(times, dtype=np.float64)
        after = np.clip(np.searchsorted(self.time, t), 1, len(self.time) - 1)
        exact = self.time[np.clip(np.searchsorted(self.time, t), 0, len(self.time) - 1)] == t
        near = (self.time[after] - self.time[after - 1] <= max_gap) | exact
        inside = (t >= self.time[0]) & (t <= self.time[-1]) & near
        turned = np.unwrap(self.longitude, period=360.0)
        latitude = np.interp(t, self.time, self.latitude)
        longitude = (np.interp(t, self.time, turned) + 180.0) % 360.0 - 180.0
        return np.where(inside, latitude, np.nan), np.where(inside, longitude, np.nan)


def read_track(path: Path) -> Track:
    """Read a GPX file, or a CSV with columns time, latitude, longitude.

    Raises:
        DataError: unreadable, too large, a document type definition, or fewer than two timed fixes.
    """
    if not path.is_file():
        raise DataError("there is no such track", where=str(path), fix="check the path")
    if path.stat().st_size > MAX_BYTES:
        raise DataError("the track is larger than 512 MB", where=str(path), fix="split it by day")
    rows = _gpx(path) if path.suffix.lower() == ".gpx" else _csv(path)
    if len(rows) < 2:
        raise DataError(f"the track holds {len(rows)} fixes with a time", where=str(path), fix="give two or more")
    found = np.array(sorted(rows), dtype=np.float64)
    found = found[np.r_[True, np.diff(found[:, 0]) > 0]]
    if len(found) < 2:
        raise DataError("all fixes of the track have one time", where=str(path), fix="give two times or more")
    if (np.abs(found[:, 1]) > 90).any() or (np.abs(found[:, 2]) > 180).any():
        raise DataError("a fix lies outside -90..90 and -180..180 degrees", where=str(path), fix="correct it")
    return Track(found[:, 0], found[:, 1], found[:, 2])


def _gpx(path: Path) -> list[tuple[float, float, float]]:
    with path.open("rb") as stream:
        # Entities are declared in a document type, which no GPX file needs.
        if b"<!DOCTYPE" in stream.read(4096).upper():
            raise DataError("the GPX file has a document type definition", where=str(path), fix="remove it")
    rows = []
    try:
        for _, element in ElementTree.iterparse(path, events=("end",)):
            if element.tag.rpartition("}")[2] not in ("trkpt", "rtept", "wpt"):
                continue
            stamp = next((e.text for e in element if e.tag.rpartition("}")[2] == "time"), None)
            if stamp:
                rows.append((_seconds(stamp), float(element.attrib["lat"]), float(element.attrib["lon"])))
            element.clear()
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise unreadable(DataError, "the GPX file", path, error) from error
    return rows


def _csv(path: Path) -> list[tuple[float, float, float]]:
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for line, row in enumerate(csv.DictReader(stream), 2):
                try:
                    rows.append((_seconds(row["time"]), float(row["latitude"]), float(row["longitude"])))
                except (KeyError, TypeError, ValueError) as error:
                    raise DataError(
                        "a row of the track lacks time, latitude or longitude",
                        where=f"{path}, line {line}",
                        fix="give a CSV with the columns time (ISO or seconds), latitude and longitude",
                    ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(DataError, "the track", path, error) from error
    return rows


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        stamp = datetime.fromisoformat(text.strip())
        return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
