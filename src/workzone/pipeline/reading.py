"""From the configuration to a manifest: which source reads the data, and what of them decides whether to read again."""

from __future__ import annotations

import csv
import shutil
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workzone.config import RunConfig
from workzone.errors import ConfigError, DataError
from workzone.files import sha256_json
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.phase import Progress
from workzone.processors import processors

if TYPE_CHECKING:
    from workzone.data.manifest import Manifest
    from workzone.data.sources.base import Listing, Source


def workers(config: RunConfig) -> int:
    """Threads that decode images."""
    return config.compute.workers or processors()


def location(config: RunConfig, artifacts: Artifacts) -> Path:
    """File or folder that is read."""
    return artifacts.synthetic / "metadata.csv" if config.data == "synthetic" else Path(config.data)


def make_member(config: RunConfig, artifacts: Artifacts) -> Source:
    """The source of ``config`` with its options.

    Raises:
        ConfigError: an option that this kind of source does not have, or a licence that was not accepted.
        DataError: it is not clear what kind of data these are.
    """
    from workzone.data.download.fetch import licence_error
    from workzone.data.sources import build
    from workzone.data.sources.base import NEGATIVE_NAMES, POSITIVE_NAMES, ClassNames
    from workzone.data.sources.options import make_source

    chosen = config.source
    kind: str = "table" if "synthetic" in (config.data, chosen.kind) else chosen.kind
    if kind == "auto":
        kind = build.detect(location(config, artifacts))
    member = make_source(
        kind,
        class_map=chosen.class_map,
        rest=chosen.rest,
        assume_negative=chosen.assume_negative,
        options=chosen.options,
    )
    given: dict[str, Any] = {f.name: getattr(member, f.name) for f in fields(member)} if is_dataclass(member) else {}
    if isinstance(given.get("classes"), ClassNames):
        names = ClassNames((*POSITIVE_NAMES, *chosen.positive), (*NEGATIVE_NAMES, *chosen.negative))
        member = replace(member, classes=names)  # type: ignore[type-var]
    elif chosen.positive or chosen.negative:
        raise ConfigError(
            f"the source {kind} has no class names of folders or labels",
            where="source.positive or source.negative",
            fix="use source.class_map for boxes; leave them out for a published data set",
        )
    if member.licence is not None and not chosen.accept_licence:
        error = licence_error(kind, member.licence.text(), member.licence.url)
        raise ConfigError(error.what, where=error.where, fix="read it there; source.accept_licence=true accepts it")
    return member


def lies_inside(member: Source, place: Path) -> bool:
    """Whether the images of ``place`` lie inside other files, such as Parquet shards or videos."""
    from workzone.data.sources.base import RecordSource
    from workzone.data.sources.records import Record

    if not isinstance(member, RecordSource):
        return False
    first = next((e for e in member.stream(place, content=False).events if isinstance(e, Record)), None)
    return first is not None and first.path is None


def read_manifest(config: RunConfig, artifacts: Artifacts, progress: Progress) -> Manifest:
    """Read the data; images inside other files are taken out into the folder of phase prepare first.

    A taking out that was killed goes on where it stopped.

    Raises:
        DataError: nothing readable, or an unreadable image where ``source.skip_unreadable`` is off.
    """
    from workzone.data.sources.build import build_manifest

    member, place = make_member(config, artifacts), location(config, artifacts)
    if lies_inside(member, place):
        return _take_out(member, place, config, artifacts, progress)
    with progress.bar("reading images") as advance:
        return build_manifest(
            place,
            source=member,
            strict=not config.source.skip_unreadable,
            progress=advance,
            workers=workers(config),
            max_pixels=config.compute.max_pixels,
        )


def _take_out(member: Source, place: Path, config: RunConfig, artifacts: Artifacts, progress: Progress) -> Manifest:
    import polars as pl

    from workzone.data.manifest import NOTES, Manifest
    from workzone.data.sources.importing import import_source

    settings = [outside(config), config.source.model_dump(mode="json"), config.compute.max_pixels]
    own = artifacts.imported / sha256_json(settings)[:16]
    if artifacts.imported.is_dir():
        for stale in artifacts.imported.iterdir():
            if stale != own:
                shutil.rmtree(stale)
    with progress.bar("taking images out of their files") as advance:
        done = import_source(
            member, place, own, max_pixels=config.compute.max_pixels, workers=workers(config), progress=advance
        )
    if done.unreadable and not config.source.skip_unreadable:
        raise DataError(
            f"{done.unreadable} images cannot be read, the first because of: {done.rejected[0][2]}",
            where=done.rejected[0][0],
            fix="repair or remove them, or set source.skip_unreadable=true",
        )
    with (own / "left_out.csv").open(encoding="utf-8", newline="") as stream:
        lost = [(r["id"], str(place), r["reason"]) for r in csv.DictReader(stream) if r["kind"] == "unreadable"]
    manifest = Manifest.load(done.manifest)
    return Manifest(manifest.frame, manifest.root, pl.DataFrame(lost, schema=NOTES, orient="row"))


def outside(config: RunConfig) -> str:
    """Hash of what the data say and hold: every row as it is read, and size and time of every file.

    Raises:
        DataError: the data do not exist, or cannot be read as what they are said to be.
    """
    if config.data == "synthetic":
        return "synthetic"
    place = Path(config.data)
    if not place.exists():
        raise DataError("there is no such file or folder", where=config.data, fix="check data=PATH")
    member = make_member(config, Artifacts(config.out))
    if lies_inside(member, place):
        # The rows of a video or a shard take long to list; its size and time change with them.
        files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
        return sha256_json([[str(p.relative_to(place)), p.stat().st_size, p.stat().st_mtime_ns] for p in files])
    return listing_hash(member.read(place))


def listing_hash(listing: Listing) -> str:
    """Hash of what a source has read: its rows, and size and time of every file."""
    rows = []
    for name in listing.frame["path"].to_list():
        path = listing.root / str(name)
        stat = path.stat() if path.is_file() else None
        rows.append([str(name), stat.st_size if stat else -1, stat.st_mtime_ns if stat else -1])
    return sha256_json([listing.frame.write_csv(), sorted(rows)])
