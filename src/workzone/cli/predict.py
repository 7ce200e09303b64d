"""``workzone predict``: decide on images with a bundle; needs the light core only."""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import typer

from workzone.errors import ConfigError, DataError, ImageError, MissingExtraError

Format = Literal["table", "jsonl", "csv", "parquet"]
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".mpo"})
CSV_COLUMNS = ("path", "decision", "probability", "log_odds", "prediction_set", "reason", "error")
_FORMATS = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_CHUNK = 4096


def predict(
    paths: list[str] = typer.Argument(None, help="Images, folders, globs, or - for a list of paths on standard input."),
    bundle: Path = typer.Option(None, "--bundle", "-b", help="Folder of the bundle [default: $WORKZONE_BUNDLE]."),
    form: str = typer.Option(None, "--format", "-f", help="table, jsonl, csv or parquet [default: by --out, else table]."),
    out: Path = typer.Option(None, "--out", "-o", help="Write to this file, at once when all is done."),
    threads: int = typer.Option(0, "--threads", help="Threads of the engine and for decoding, 0 for all cores."),
    max_pixels: int = typer.Option(120_000_000, "--max-pixels", help="Refuse larger images."),
    views: bool = typer.Option(False, "--views", help="Include the score and weight of each view (jsonl)."),
) -> None:
    """Decide on street images: roadwork, no_roadwork or abstain; bad files are named and skipped (exit code 1)."""
    chosen = _format(form, out)
    files = _collect(paths or [])
    first = list(islice(files, 1))
    if not first:
        raise DataError("no images were given", fix="give images, a folder, a glob, or - for a list on standard input")
    from workzone.bundle.runtime import Detector

    detector = Detector.load(_bundle(bundle), threads=threads)
    if not detector.certificate.certified:
        _note("This bundle makes no certified promise: " + detector.certificate.sentences()[0])
    counts = {"decided": 0, "abstain": 0, "unreadable": 0}
    rows = _rows(detector, _chain(first, files), threads, max_pixels, views, counts)
    _write(rows, chosen, out)
    _note(
        f"{sum(counts.values())} images: {counts['decided']} decided, {counts['abstain']} abstained, "
        f"{counts['unreadable']} unreadable"
    )
    if counts["unreadable"]:
        raise typer.Exit(1)


def _format(form: str | None, out: Path | None) -> Format:
    if form is None:
        form = _FORMATS.get(out.suffix, "csv") if out else "table"
    if form not in ("table", "jsonl", "csv", "parquet"):
        raise ConfigError(f"unknown format {form!r}", fix="take table, jsonl, csv or parquet")
    if form == "parquet" and out is None:
        raise ConfigError("parquet is not written to a terminal", fix="add --out FILE.parquet")
    return form  # type: ignore[return-value]


def _bundle(given: Path | None) -> Path:
    import os

    found = given or (Path(os.environ["WORKZONE_BUNDLE"]) if os.environ.get("WORKZONE_BUNDLE") else None)
    if found is None:
        raise ConfigError("no bundle was given", fix="add --bundle FOLDER or set WORKZONE_BUNDLE")
    return found


def _chain(first: list[Path], rest: Iterator[Path]) -> Iterator[Path]:
    yield from first
    yield from rest


def _collect(words: Iterable[str]) -> Iterator[Path]:
    """Files in the order given; folders and globs are expanded, anything else is taken at its word."""
    for word in words:
        if word == "-":
            for line in sys.stdin:
                if line.strip():
                    yield Path(line.strip())
        elif (path := Path(word)).is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
            if not found:
                raise DataError("the folder holds no images", where=word, fix="give a folder with JPEG, PNG or WebP files")
            yield from found
        elif not path.exists() and glob.has_magic(word):
            matches = sorted(p for p in map(Path, glob.iglob(word, recursive=True)) if p.is_file())
            if not matches:
                raise DataError("no file matches the pattern", where=word)
            yield from matches
        else:
            yield path


def _rows(
    detector: Any, files: Iterator[Path], threads: int, max_pixels: int, views: bool, counts: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """One row an image, in order, unreadable ones in their place."""
    while chunk := list(islice(files, _CHUNK)):
        errors: dict[int, ImageError] = {}
        at = 0

        def failed(index: int, error: ImageError, errors: dict[int, ImageError] = errors) -> None:
            errors[index] = error

        for index, decision in detector.predict(chunk, on_error=failed, workers=threads, max_pixels=max_pixels):
            yield from _bad(chunk, errors, at, index, counts)
            at = index + 1
            counts["abstain" if decision.label == "abstain" else "decided"] += 1
            record = decision.to_dict()
            if not views:
                del record["views"]
            yield {"path": str(chunk[index]), **record, "error": None}
        yield from _bad(chunk, errors, at, len(chunk), counts)


def _bad(
    chunk: list[Path], errors: dict[int, ImageError], start: int, stop: int, counts: dict[str, int]
) -> Iterator[dict[str, Any]]:
    for index in range(start, stop):
        error = errors.pop(index)
        counts["unreadable"] += 1
        _note(f"{chunk[index]}: {error.reason}: {error.what}")
        yield {"path": str(chunk[index]), "decision": None, "error": error.reason}


def _write(rows: Iterator[dict[str, Any]], form: Format, out: Path | None) -> None:
    from workzone.files import atomic_path

    if form == "table":
        if out is not None:
            raise ConfigError("a table is for the terminal", fix="use --format csv or jsonl with --out")
        _table(rows)
    elif form == "parquet":
        assert out is not None
        _parquet(rows, out)
    elif out is None:
        _lines(rows, form, sys.stdout)
    else:
        with atomic_path(out) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
            _lines(rows, form, stream)


def _lines(rows: Iterator[dict[str, Any]], form: Format, stream: IO[str]) -> None:
    if form == "jsonl":
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            stream.flush()
        return
    import csv

    writer = csv.DictWriter(stream, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "prediction_set": " ".join(row.get("prediction_set", []))})


def _parquet(rows: Iterator[dict[str, Any]], out: Path) -> None:
    try:
        import polars as pl
    except ImportError as error:
        raise MissingExtraError("polars", "eval", feature="Parquet output") from error
    from workzone.files import atomic_path

    flat = [{k: row.get(k) for k in CSV_COLUMNS} | {"prediction_set": row.get("prediction_set", [])} for row in rows]
    with atomic_path(out) as partial:
        pl.DataFrame(flat, infer_schema_length=None).write_parquet(partial)


def _table(rows: Iterator[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    colours = {"roadwork": "bold dark_orange", "no_roadwork": "green", "abstain": "yellow"}
    table = Table("image", "decision", "P(roadwork)", "why", box=None, header_style="bold")
    for row in rows:
        if row["error"]:
            table.add_row(row["path"], "[red]unreadable[/red]", "", row["error"])
        else:
            colour = colours[row["decision"]]
            table.add_row(row["path"], f"[{colour}]{row['decision']}[/{colour}]", f"{row['probability']:.3f}", row["reason"])
    console = Console(highlight=False)
    if not sys.stdout.isatty():
        console.width = 200
    console.print(table)


def _note(text: str) -> None:
    typer.echo(text, err=True)
