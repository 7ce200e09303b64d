"""What people saw at a place, read from a table."""

from __future__ import annotations

import csv
from pathlib import Path

from workzone.errors import DataError
from workzone.maps.events import Check
from workzone.maps.sightings import parse_time


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
                        f"line {line} lacks latitude, longitude, time or roadwork (1 or 0): {error}", where=str(path)
                    ) from error
                if check.time != check.time:
                    raise DataError(f"line {line}: {row['time']!r} is no ISO time", where=str(path))
                found.append(check)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the checks cannot be read: {error}", where=str(path)) from error
    return found
