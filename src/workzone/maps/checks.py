"""What people saw at a place, read from a table."""

from __future__ import annotations

import csv
from pathlib import Path

from workzone.errors import DataError, unreadable
from workzone.maps.events import Check
from workzone.maps.sightings import parse_time

_FIX = "give a CSV with the columns latitude, longitude, time (ISO) and roadwork (1 or 0)"


def read_checks(path: Path) -> list[Check]:
    """Read a CSV with columns latitude, longitude, time (ISO) and roadwork (1 or 0).

    Raises:
        DataError: unreadable, or a row that lacks one of them; the line is named.
    """
    found = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for line, row in enumerate(csv.DictReader(stream), 2):
                try:
                    check = Check(
                        float(row["latitude"]),
                        float(row["longitude"]),
                        parse_time(row["time"]),
                        {"1": True, "0": False}[row["roadwork"].strip()],
                    )
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise DataError(
                        "a check lacks latitude, longitude, time or roadwork (1 or 0)",
                        where=f"{path}, line {line}",
                        fix=_FIX,
                    ) from error
                if check.time != check.time:
                    where = f"{path}, line {line}"
                    raise DataError(f"{row['time'][:40]!r} is no ISO time", where=where, fix=_FIX)
                found.append(check)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(DataError, "the checks", path, error, fix=_FIX) from error
    if not found:
        raise DataError("the file holds no checks", where=str(path), fix=_FIX)
    return found
