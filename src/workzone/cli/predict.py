"""``workzone predict``: decide on images with a bundle; needs the light core only."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from workzone.cli.options import (
    ANSWERS,
    BUDGET,
    DEVICE,
    FORMAT,
    MAX_PIXELS,
    SLICES,
    Device,
    note,
    or_starter,
    slice_columns,
)
from workzone.cli.videos import SUFFIXES as VIDEO_SUFFIXES
from workzone.cli.videos import VideoCounts, VideoOptions, is_video, video_rows
from workzone.errors import ConfigError, DataError
from workzone.files import IMAGE_SUFFIXES, shown

if TYPE_CHECKING:
    from workzone.bundle.runtime import Decider
    from workzone.decisions import Decision
    from workzone.vision.remote import Remote

    Place = Path | Remote

# In a folder, .ts is more often a program than a film.
FOLDER_SUFFIXES = IMAGE_SUFFIXES | (VIDEO_SUFFIXES - {".ts"})
FORMATS = ("table", "jsonl", "csv", "parquet")
SCHEMES = ("http://", "https://")


def predict(
    paths: list[str] | None = typer.Argument(
        None,
        help="Images, videos, folders, globs, http addresses of images, or - for a list of these on standard input.",
        metavar="PATH",
        show_default=False,
    ),
    bundle: Path | None = typer.Option(
        None, "--bundle", "-b", help="Folder of the bundle.", envvar="WORKZONE_BUNDLE", metavar="FOLDER"
    ),
    form: str | None = FORMAT,
    out: Path | None = ANSWERS,
    threads: int = typer.Option(0, "--threads", min=0, help="Threads of the engine and for decoding, 0 for all cores."),
    max_pixels: int = MAX_PIXELS,
    budget: float | None = BUDGET,
    device: Device = DEVICE,
    views: bool = typer.Option(False, "--views", help="Include the score and weight of each view (jsonl)."),
    slices: list[str] | None = SLICES,
    every: float = typer.Option(1.0, "--every", min=0.01, help="Videos: seconds between frames."),
    pool: str = typer.Option(
        "none",
        "--pool",
        help="Videos: none, mean, exponential, topk, hmm or attention over neighbouring frames, or a file of 'drives'.",
    ),
    min_seconds: float = typer.Option(
        0.0, "--min-seconds", min=0.0, help="Videos: a shorter stretch of roadwork becomes abstain."
    ),
) -> None:
    """Decide on street images: roadwork, no_roadwork or abstain; bad files are named and skipped (exit code 1).

    Of a video, frames are decided and merged to intervals of time; this needs the extra 'video'.
    """
    from workzone.cli.results import write

    chosen = chosen_format(form, out)
    files, total = _collect(paths or [])
    bundle = or_starter(bundle)
    from workzone.bundle.cascade import budget_sentences
    from workzone.bundle.chain import open_bundle
    from workzone.bundle.drive import drive_score, load_score, require_poolable
    from workzone.bundle.slices import require_columns
    from workzone.monitoring.void import mark_path, read_mark

    columns = slice_columns(slices or [])
    fitted = pool.lower().endswith(".json")
    score = None if fitted else drive_score(pool)
    detector = open_bundle(bundle, device=device.value, threads=threads)
    options = VideoOptions(every, load_score(Path(pool), detector) if fitted else score, min_seconds, columns)
    require_columns(detector.calibrator, columns)
    mark = read_mark(mark_path(bundle), detector.manifest.sha256)
    if mark is not None:
        then = "so every image is left open" if mark.policy == "abstain" else "answers are given all the same"
        note(f"The certificate of this bundle is void since {mark.time}, {then}: {'; '.join(mark.reasons)}")
    if budget is not None:
        detector = detector.at_budget(budget)
        for sentence in budget_sentences(detector.policy):
            note(sentence)
    elif not detector.certificate.certified:
        note("This bundle makes no certified promise: " + detector.certificate.sentences()[0])
    if options.score is not None:
        require_poolable(detector)
    counts = {"decided": 0, "abstain": 0, "unreadable": 0}
    videos = VideoCounts()
    ticker = _Ticker(total)
    honour = None if mark is None else mark.honour
    rows = _all_rows(detector, files, threads, max_pixels, views, counts, options, videos, ticker, honour)
    # Rows that appear on a terminal one by one are progress enough.
    if out is not None or chosen == "table" or not sys.stdout.isatty():
        rows = _with_progress(rows, ticker)
    write(rows, chosen, out)
    if sum(counts.values()) or not videos.videos:
        note(
            f"{_images(sum(counts.values()))}: {counts['decided']} decided, {counts['abstain']} abstained, "
            f"{counts['unreadable']} unreadable"
        )
    if videos.videos:
        for sentence in videos.sentences():
            note(sentence)
    if counts["unreadable"] or videos.damaged:
        raise typer.Exit(1)


def _images(n: int) -> str:
    return "1 image" if n == 1 else f"{n:,} images"


def chosen_format(form: str | None, out: Path | None) -> str:
    """The format asked for, or that of the suffix of ``out``; raises ConfigError where they do not fit."""
    if form is None:
        form = {".jsonl": "jsonl", ".parquet": "parquet"}.get(out.suffix.lower(), "csv") if out else "table"
    if form not in FORMATS:
        raise ConfigError(f"unknown format {form!r}", fix="take table, jsonl, csv or parquet")
    if form == "parquet" and out is None:
        raise ConfigError("parquet is not written to a terminal", fix="add --out FILE.parquet")
    if form == "table" and out is not None:
        raise ConfigError("a table is for the terminal", fix="use --format csv or jsonl with --out")
    return form


def _collect(words: Sequence[str]) -> tuple[Iterator[Place], int]:
    """Files in the order given, and how many (0 when a list on standard input has yet to be read).

    Raises:
        DataError: no word, a folder without images, or a pattern that matches nothing; before any image is opened.
        MissingExtraError: a video is among them, and nothing that reads it is installed.
    """
    if not words:
        raise DataError("no images were given", fix="give images, a folder, a glob, or - for a list on standard input")
    parts: list[Iterable[Place]] = [_listed() if word == "-" else _expand(word) for word in words]
    if any(_is_video(path) for part in parts if isinstance(part, Sequence) for path in part):
        from workzone.vision.video import require_av

        require_av()
    total = 0 if "-" in words else sum(len(part) for part in parts if isinstance(part, Sequence))
    return chain.from_iterable(parts), total


def _listed() -> Iterator[Place]:
    # Names of files are bytes, and not every one is valid UTF-8.
    for line in sys.stdin.buffer:
        if name := line.rstrip(b"\r\n"):
            word = os.fsdecode(name)
            yield _address(word) or Path(word)


def _expand(word: str) -> Sequence[Place]:
    """Folders and patterns are expanded, anything else is taken at its word."""
    if address := _address(word):
        return [address]
    path = Path(word)
    if path.is_dir():
        hidden = (p for p in path.rglob("*") if p.suffix.lower() in FOLDER_SUFFIXES)
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


def _address(word: str) -> Remote | None:
    if not word.lower().startswith(SCHEMES):
        return None
    from workzone.vision.remote import Remote

    return Remote(word)


def _is_video(place: Place) -> bool:
    return isinstance(place, Path) and is_video(place)


class _Ticker:
    """Rows done and expected; what a video adds is known once it is opened."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.within = 0
        self.advance: Callable[[int, int], None] = lambda done, total: None

    def row(self) -> None:
        """One image or video is finished."""
        self.done += 1
        self.within = 0
        self.show()

    def frame(self, done: int, expected: int) -> None:
        """``done`` of ``expected`` frames of the current video."""
        self.within = done
        self.show(expected)

    def show(self, expected: int = 0) -> None:
        # While a video is in work its frames are counted, whatever share of all inputs they are.
        if expected:
            self.advance(self.within, expected)
        else:
            self.advance(self.done, self.total)


def _all_rows(
    detector: Decider,
    files: Iterator[Place],
    threads: int,
    max_pixels: int,
    views: bool,
    counts: dict[str, int],
    options: VideoOptions,
    videos: VideoCounts,
    ticker: _Ticker,
    honour: Callable[[Decision], Decision] | None,
) -> Iterator[dict[str, Any]]:
    """Rows of images and videos in the order given; neighbouring images are decided side by side."""
    found = False
    for video, some in groupby(files, key=_is_video):
        found = True
        if not video:
            for row in _rows(detector, some, threads, max_pixels, views, counts, options.columns, honour):
                yield {"kind": "image", **row}
                ticker.row()
            continue
        for path in some:
            assert isinstance(path, Path)
            yield from video_rows(
                detector,
                path,
                shown(path),
                options,
                workers=threads,
                max_pixels=max_pixels,
                views=views,
                counts=videos,
                note=note,
                progress=ticker.frame,
                honour=honour,
            )
            ticker.row()
    if not found:
        raise DataError("the list on standard input is empty", fix="give one path a line")


def _rows(
    detector: Decider,
    files: Iterator[Place],
    threads: int,
    max_pixels: int,
    views: bool,
    counts: dict[str, int],
    columns: Mapping[str, Any] | None,
    honour: Callable[[Decision], Decision] | None,
) -> Iterator[dict[str, Any]]:
    """One row an image, in order, unreadable ones in their place; files are taken only a few ahead of the rows."""
    from workzone.bundle.rows import answered, bad_row, image_row

    for path, answer in answered(detector, files, workers=threads, max_pixels=max_pixels, columns=columns):
        if isinstance(answer, Exception):
            counts["unreadable"] += 1
            note(f"{shown(path)}: {answer.reason}: {answer.what}")
            yield bad_row(path, answer)
            continue
        decision = answer if honour is None else honour(answer)
        counts["abstain" if decision.label == "abstain" else "decided"] += 1
        yield image_row(path, decision, views=views)


def _with_progress(rows: Iterator[dict[str, Any]], ticker: _Ticker) -> Iterator[dict[str, Any]]:
    from workzone.cli.progress import TerminalProgress

    with TerminalProgress().bar("deciding") as advance:
        ticker.advance = advance
        yield from rows
