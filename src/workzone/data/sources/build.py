"""From a location to a manifest: list, open every image once, hash it, and keep the unreadable ones apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from workzone.data.columns import COLUMNS, Problem, conform
from workzone.data.manifest import NOTES, Manifest
from workzone.data.perceptual import phash
from workzone.data.sources import (
    coco,
    drives,
    folder,
    mapillary,
    natix,
    negatives,
    phone,
    roadwork,
    table,
    unlabelled,
    voc,
    yolo,
)
from workzone.data.sources.base import SOURCES, Listing, Source
from workzone.data.sources.exif import ExifInfo, read_exif
from workzone.errors import DataError, ImageError
from workzone.files import sha256_bytes
from workzone.vision.batch import all_in_order
from workzone.vision.decode import MAX_PIXELS, decode, read_file
from workzone.vision.formats import open_header, sniff

__all__ = ["SOURCES", "build_manifest", "detect", "Facts", "fill", "read_facts"]

# importing a member registers it
_MEMBERS = (folder, table, unlabelled, natix, roadwork, mapillary, negatives, coco, yolo, voc, phone, drives)
GENERIC = ("folder", "table", "unlabelled")
_MIN_SIDE = 256  # a reduced JPEG is enough for a hash of 32 x 32 pixels
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Facts:
    """What one image file says of itself; width and height are those after EXIF orientation."""

    width: int
    height: int
    sha256: str
    phash: str
    exif: ExifInfo


def read_facts(image: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Facts:
    """Open one image; raises ImageError with a short reason when it cannot be decoded safely."""
    # Read once, so that pixels, hash and EXIF are of one and the same content.
    data = image if isinstance(image, bytes) else read_file(image)
    pixels = decode(data, min_side=_MIN_SIDE, max_pixels=max_pixels, name=None if data is image else str(image))
    # Decoding has checked size and kind, so the image can be opened a second time for what decoding drops.
    with open_header(sniff(data)[0] or "", data) as header:
        exif = read_exif(header)
        width, height = header.size[::-1] if exif.turned else header.size
    return Facts(width, height, sha256_bytes(data), phash(pixels), exif)


def detect(location: Path) -> str:
    """Kind of the source at ``location``; raises DataError when none or more than one fits."""
    if not location.exists():
        raise DataError("there is no such file or folder", where=str(location), fix="check the path")
    fits = [kind for kind, cls in SOURCES.items() if cls.recognises(location)]
    # A folder with an index file is described by it, whatever its sub-folders are called.
    if table.index_file(location) is not None:
        fits = [kind for kind in fits if kind != "folder"]
    # A published layout is told by its own files, whatever else the folder looks like.
    fits = [kind for kind in fits if kind not in GENERIC] or fits
    if len(fits) == 1:
        return fits[0]
    raise DataError(
        "it is not clear what kind of data this is" + (f": {' or '.join(fits)}" if fits else ""),
        where=str(location),
        fix=f"say the kind of source, one of {', '.join(SOURCES)}; a 'folder' has sub-folders roadwork and no_roadwork",
    )


def _check_files(listing: Listing, frame: pl.DataFrame) -> list[Path]:
    paths = [listing.root / p for p in frame["path"].to_list()]
    absent = [i for i, p in enumerate(paths) if not p.is_file()]
    if absent:
        values: list[object] = [str(frame["path"][i]) for i in absent[:5]]
        text = Problem("path", "names files that do not exist", absent, values).text(listing.names)
        raise DataError(
            f"{len(absent)} images are missing: {text}", where=listing.where, fix="restore them or drop the rows"
        )
    return paths


def build_manifest(
    location: Path | str,
    kind: str = "auto",
    *,
    source: Source | None = None,
    strict: bool = False,
    progress: Progress | None = None,
    workers: int = 2,
    max_pixels: int = MAX_PIXELS,
) -> Manifest:
    """Build the manifest of the images at ``location``.

    Args:
        location: folder or table.
        kind: a kind of ``SOURCES``, or "auto" to find out.
        source: a source with its options; ``kind`` is then ignored.
        strict: raise on the first unreadable image rather than list it in ``Manifest.rejected``.
        progress: called with images done and images in all.
        workers: threads that decode.
        max_pixels: images with more are listed as unreadable.

    Raises:
        DataError: unknown kind, wrong layout, missing files, nothing readable, or with ``strict`` an unreadable image.
        ManifestError: rows of a table that break the contract.
    """
    place = Path(location)
    if source is None:
        kind = detect(place) if kind == "auto" else kind
        if kind not in SOURCES:
            raise DataError(f"there is no source {kind!r}", fix=f"the sources are {', '.join(sorted(SOURCES))}")
        source = SOURCES[kind]()
    listing = source.read(place)
    frame = conform(listing.frame, names=listing.names, where=listing.where)
    paths = _check_files(listing, frame)
    given = frame["sha256"].to_list()

    def look(row: int) -> Facts | ImageError:
        try:
            facts = read_facts(paths[row], max_pixels=max_pixels)
        except ImageError as error:
            return error
        if given[row] not in (None, facts.sha256):
            return ImageError("changed", "the file does not have the sha256 of the table", where=str(paths[row]))
        return facts

    results = all_in_order(range(len(paths)), look, workers=workers, progress=progress)
    return _assemble(frame, listing, results, strict=strict)


def _assemble(frame: pl.DataFrame, listing: Listing, results: list[Facts | ImageError], *, strict: bool) -> Manifest:
    good = [(i, r) for i, r in enumerate(results) if isinstance(r, Facts)]
    bad = [(i, r) for i, r in enumerate(results) if isinstance(r, ImageError)]
    if bad and (strict or not good):
        row, error = bad[0]
        raise DataError(
            f"{len(bad)} of {len(results)} images cannot be read, the first because of: {error.what}",
            where=f"{frame['path'][row]} ({error.reason})",
            fix="repair or remove them",
        )
    kept = fill(frame[[i for i, _ in good]], [r for _, r in good])
    rejected = [(frame["id"][i], frame["path"][i], f"{e.reason}: {e.what}") for i, e in bad]
    doubts = [(frame["id"][i], frame["path"][i], f"EXIF {p}") for i, f in good for p in f.exif.problems]
    doubts += [(d.id, "", f"left out: {d.reason}") for d in listing.dropped]
    return Manifest(
        kept,
        listing.root,
        pl.DataFrame(rejected, schema=NOTES, orient="row"),
        pl.DataFrame(doubts, schema=NOTES, orient="row"),
    )


def fill(kept: pl.DataFrame, facts: list[Facts]) -> pl.DataFrame:
    """Complete the rows of readable images by what their files say; what the rows say themselves goes first."""
    hours = [_hour(t) for t in kept["captured_at"].to_list()]
    filled: dict[str, list[Any]] = {
        "width": [f.width for f in facts],
        "height": [f.height for f in facts],
        "sha256": [f.sha256 for f in facts],
        "phash": [f.phash for f in facts],
        "group": _first(kept["group"].to_list(), kept["id"].to_list()),
        "hour": _first(kept["hour"].to_list(), hours, [f.exif.hour for f in facts]),
        "captured_at": _first(kept["captured_at"].to_list(), [f.exif.captured_at for f in facts]),
        "camera_id": _first(kept["camera_id"].to_list(), [f.exif.camera_id for f in facts]),
        "latitude": _first(kept["latitude"].to_list(), [f.exif.latitude for f in facts]),
        "longitude": _first(kept["longitude"].to_list(), [f.exif.longitude for f in facts]),
    }
    return conform(kept.with_columns(pl.Series(c, v, dtype=COLUMNS[c]) for c, v in filled.items()))


def _hour(text: str | None) -> int | None:
    """Hour of an ISO time; a bare date has none."""
    return datetime.fromisoformat(text).hour if text is not None and len(text) > 10 else None


def _first(*columns: list[Any]) -> list[Any]:
    """First known value of each row."""
    return [next((v for v in row if v is not None), None) for row in zip(*columns, strict=True)]
