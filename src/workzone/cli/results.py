"""Rows of ``workzone predict`` and ``workzone decide`` as a table, JSON lines, CSV or Parquet."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

CSV_COLUMNS = ("path", "decision", "probability", "log_odds", "prediction_set", "reason", "error")
VIDEO_COLUMNS = ("seconds", "pooled_probability", "pooled_decision")
"""Empty for images; intervals are written to JSON lines and tables alone."""
CASCADE_COLUMNS = ("stage", "cost")
"""Empty for bundles without a cascade."""
IMAGE_COLUMNS = (*CSV_COLUMNS, *VIDEO_COLUMNS, *CASCADE_COLUMNS)
SCORE_COLUMNS = ("id", "decision", "probability", "log_odds", "prediction_set", "reason")
"""Of scores without a picture."""
_COLOURS = {"roadwork": "bold dark_orange", "no_roadwork": "green", "abstain": "yellow", "unreadable": "red"}

Rows = Iterator[dict[str, Any]]


def write(rows: Rows, form: str, out: Path | None, *, columns: tuple[str, ...] = IMAGE_COLUMNS) -> None:
    """Write ``rows`` with ``columns``, which begin with the name of the row; a file appears whole or not at all."""
    from workzone.files import atomic_path

    if form == "table":
        _table(rows, columns[0])
    elif out is None:
        _lines(rows, form, sys.stdout, columns)
    elif form == "parquet":
        _parquet(rows, out, columns)
    else:
        with atomic_path(out) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
            _lines(rows, form, stream, columns)


def _lines(rows: Rows, form: str, stream: IO[str], columns: tuple[str, ...]) -> None:
    if form == "jsonl":
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            stream.flush()
        return
    import csv

    writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in _one_picture(rows):
        writer.writerow({**row, "prediction_set": " ".join(row.get("prediction_set", []))})


def _one_picture(rows: Rows) -> Rows:
    """Rows about one picture, or about a file that could not be read."""
    return (row for row in rows if row.get("kind") != "interval")


def _parquet(rows: Rows, out: Path, columns: tuple[str, ...]) -> None:
    from workzone.bundle.rows import write_parquet
    from workzone.files import atomic_path

    with atomic_path(out) as partial:
        write_parquet(_one_picture(rows), partial, columns=columns)


def _table(rows: Rows, first: str) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from workzone.cli.tables import print_table

    heading = "image" if first == "path" else first
    table = Table(heading, "decision", "P(roadwork)", "why", box=None, header_style="bold")
    for row in rows:
        if row.get("kind") == "frame":
            continue
        if row.get("kind") == "interval":
            row = {**row, **_interval_cells(row)}
        name = row["decision"] or "unreadable"
        probability = "" if row.get("error") else f"{row['probability']:.3f}"
        # Text, not markup: file names may hold square brackets.
        cells = (row[first], Text(name, _COLOURS[name]), probability, row.get("error") or row["reason"])
        table.add_row(*(Text(c) if isinstance(c, str) else c for c in cells))
    console = Console(highlight=False)
    # Names may take half of the terminal before they are broken.
    longest = max(cell_len(str(cell)) for cell in table.columns[0].cells)
    table.columns[0].min_width = min(longest, console.width // 2)
    print_table(console, table)


def _interval_cells(row: dict[str, Any]) -> dict[str, Any]:
    from workzone.cli.videos import clock

    frames = f"{row['frames']} frame{'s' if row['frames'] != 1 else ''}, highest {row['peak']:.3f}"
    span = f"{clock(row['start'])}-{clock(row['end'])}"
    return {"path": f"{row['path']}  {span}", "probability": row["mean"], "reason": frames}
