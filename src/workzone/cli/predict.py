"""``workzone predict``: decide on images with a bundle; needs the light core only."""

from __future__ import annotations

import glob
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from workzone.errors import ConfigError, DataError

if TYPE_CHECKING:
    from workzone.bundle import Detector
    from workzone.errors import ImageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".mpo"})
FORMATS = ("table", "jsonl", "csv", "parquet")


def predict(
    paths: list[str] | None = typer.Argument(
        None,
        help="Images, folders, globs, or - for a list of paths on standard input.",
        metavar="PATH",
        show_default=False,
    ),
    bundle: Path | None = typer.Option(
        None, "--bundle", "-b", help="Folder of the bundle.", envvar="WORKZONE_BUNDLE", metavar="FOLDER"
    ),
    form: str | None = typer.Option(
        None,
        "--format",
        "-f",
        help="table, jsonl, csv or parquet; by the suffix of --out, else table.",
        metavar="FORMAT",
    ),
    out: Path | None = typer.Option(
        None, "--out", "-o", help="Write to this file, at once when all is done.", metavar="FILE"
    ),
    threads: int = typer.Option(0, "--threads", min=0, help="Threads of the engine and for decoding, 0 for all cores."),
    max_pixels: int = typer.Option(120_000_000, "--max-pixels", min=1, help="Refuse larger images."),
    views: bool = typer.Option(False, "--views", help="Include the score and weight of each view (jsonl)."),
) -> None:
    """Decide on street images: roadwork, no_roadwork or abstain; bad files are named and skipped (exit code 1)."""
    from workzone.cli.results import write

    chosen = _format(form, out)
    files, total = _collect(paths or [])
    if bundle is None:
        raise ConfigError("no bundle was given", fix="add --bundle FOLDER or set WORKZONE_BUNDLE")
    from workzone.bundle.runtime import Detector

    detector = Detector.load(bundle, threads=threads)
    if not detector.certificate.certified:
        _note("This bundle makes no certified promise: " + detector.certificate.sentences()[0])
    counts = {"decided": 0, "abstain": 0, "unreadable": 0}
    rows = _rows(detector, files, threads, max_pixels, views, counts)
    # Rows that appear on a terminal one by one are progress enough.
    if out is not None or chosen == "table" or not sys.stdout.isatty():
        rows = _with_progress(rows, total)
    write(rows, chosen, out)
    _note(
        f"{sum(counts.values())} images: {counts['decided']} decided, {counts['abstain']} abstained, "
        f"{counts['unreadable']} unreadable"
    )
    if counts["unreadable"]:
        raise typer.Exit(1)


def _format(form: str | None, out: Path | None) -> str:
    if form is None:
        form = {".jsonl": "jsonl", ".parquet": "parquet"}.get(out.suffix.lower(), "csv") if out else "table"
    if form not in FORMATS:
        raise ConfigError(f"unknown format {form!r}", fix="take table, jsonl, csv or parquet")
    if form == "parquet" and out is None:
        raise ConfigError("parquet is not written to a terminal", fix="add --out FILE.parquet")
    if form == "table" and out is not None:
        raise ConfigError("a table is for the terminal", fix="use --format csv or jsonl with --out")
    return form


def _collect(words: Sequence[str]) -> tuple[Iterator[Path], int]:
    """Files in the order given, and how many (0 when a list on standard input has yet to be read).

    Raises:
        DataError: no word, a folder without images, or a pattern that matches nothing; before any image is opened.
    """
    if not words:
        raise DataError("no images were given", fix="give images, a folder, a glob, or - for a list on standard input")
    parts: list[Iterable[Path]] = [_listed() if word == "-" else _expand(word) for word in words]
    total = 0 if "-" in words else sum(len(part) for part in parts if isinstance(part, list))
    return chain.from_iterable(parts), total


def _listed() -> Iterator[Path]:
    # Names of files are bytes, and not every one is valid UTF-8.
    for line in sys.stdin.buffer:
        if name := line.rstrip(b"\r\n"):
            yield Path(os.fsdecode(name))


def _expand(word: str) -> list[Path]:
    """Folders and patterns are expanded, anything else is taken at its word."""
    path = Path(word)
    if path.is_dir():
        hidden = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        found = sorted(p for p in hidden if not any(part.startswith(".") for part in p.relative_to(path).parts))
        if not found:
            raise DataError("the folder holds no images", where=word, fix="give a folder with JPEG, PNG or WebP files")
        return found
    if not os.path.lexists(path) and glob.has_magic(word):
        matches = sorted(p for p in map(Path, glob.glob(word, recursive=True)) if not p.is_dir())  # noqa: PTH207 absolute patterns too
        if not matches:
            raise DataError("no file matches the pattern", where=word, fix="check the pattern and the working folder")
        return matches
    return [path]


def _rows(
    detector: Detector, files: Iterator[Path], threads: int, max_pixels: int, views: bool, counts: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """One row an image, in order, unreadable ones in their place; files are taken only a few ahead of the rows."""
    waiting: deque[Path] = deque()
    errors: dict[int, ImageError] = {}

    def taken() -> Iterator[Path]:
        for path in files:
            waiting.append(path)
            yield path

    def bad(index: int) -> dict[str, Any]:
        error, path = errors.pop(index), shown(waiting.popleft())
        counts["unreadable"] += 1
        _note(f"{path}: {error.reason}: {error.what}")
        return {"path": path, "decision": None, "error": error.reason}

    at = 0
    for index, decision in detector.predict(
        taken(), on_error=errors.__setitem__, workers=threads, max_pixels=max_pixels
    ):
        while at < index:
            yield bad(at)
            at += 1
        counts["abstain" if decision.label == "abstain" else "decided"] += 1
        record = decision.to_dict()
        if not views:
            del record["views"]
        yield {"path": shown(waiting.popleft()), **record, "error": None}
        at += 1
    while waiting:
        yield bad(at)
        at += 1
    if not at:
        raise DataError("the list on standard input is empty", fix="give one path a line")


def shown(path: Path) -> str:
    """``path`` as text that can be written anywhere; bytes that are no UTF-8 appear as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _with_progress(rows: Iterator[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    from workzone.cli.progress import TerminalProgress

    with TerminalProgress().bar("deciding") as advance:
        for done, row in enumerate(rows, start=1):
            yield row
            advance(done, total)


def _note(text: str) -> None:
    typer.echo(text, err=True)
