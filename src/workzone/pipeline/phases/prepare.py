"""Phase prepare: from images to a manifest with hashes, and split roles that no group straddles."""

from __future__ import annotations

import os
from pathlib import Path

from workzone.config import RunConfig
from workzone.data.roles import Role
from workzone.errors import DataError
from workzone.files import atomic_path, sha256_json
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.phase import Context, PhaseSpec


def _run(context: Context) -> None:
    from workzone.data.sources.build import build_manifest
    from workzone.data.splits import make_splits

    config, artifacts = context.config, context.artifacts
    if config.data == "synthetic":
        from workzone.data.synthetic import write_dataset

        with context.progress.bar("drawing scenes") as advance:
            write_dataset(artifacts.synthetic, config.source.synthetic_images, seed=config.seed, progress=advance)
    source = _source(config, artifacts)
    with context.progress.bar("reading images") as advance:
        manifest = build_manifest(
            _location(config, artifacts),
            source=source,
            strict=not config.source.skip_unreadable,
            progress=advance,
            workers=workers(config),
            max_pixels=config.compute.max_pixels,
        )
    if config.source.review is not None:
        from workzone.data.quality.review import apply_review, read_review

        applied = apply_review(manifest, read_review(config.source.review))
        manifest = applied.manifest
        context.progress.message(f"  review obeyed: {applied.sentence()}")
    if manifest.frame["label"].null_count() == len(manifest):
        raise DataError(
            "none of the images has a label, so nothing can be trained",
            where=config.data,
            fix="give one sub-folder per class, or a table with a label column",
        )
    if manifest.frame["label"].n_unique() - int(manifest.frame["label"].has_nulls()) == 1:
        only = "roadwork" if manifest.frame["label"].drop_nulls()[0] == 1 else "no_roadwork"
        raise DataError(
            f"the labelled images are of one class only, {only}",
            where=config.data,
            fix="add images of the other class, or name its folder or label with source.positive or source.negative",
        )
    shares = {r: getattr(config.split, r) for r in ("train", "val_select", "val_calib", "val_test")}
    splits = make_splits(
        manifest, shares, seed=config.seed, near_duplicates=config.split.near_duplicates, given=config.split.file
    )
    if manifest.rejected.height:
        context.progress.message(f"  {manifest.rejected.height} unreadable images left out, see {artifacts.rejected}")
    with atomic_path(artifacts.rejected) as partial:
        manifest.rejected.write_csv(partial)
    manifest.save(artifacts.manifest)
    splits.save(artifacts.splits)
    for role in Role:
        by_source = splits.counts.get(role, {}).values()
        total = {name: sum(counts.get(name, 0) for counts in by_source) for name in ("roadwork", "no_roadwork")}
        context.progress.message(f"  {role}: {sum(total.values())} images, {total['roadwork']} roadwork")


def _location(config: RunConfig, artifacts: Artifacts) -> Path:
    return artifacts.synthetic / "metadata.csv" if config.data == "synthetic" else Path(config.data)


def _source(config: RunConfig, artifacts: Artifacts):  # type: ignore[no-untyped-def]
    from workzone.data.sources import build
    from workzone.data.sources.base import NEGATIVE_NAMES, POSITIVE_NAMES, SOURCES, ClassNames

    kind = config.source.kind
    if config.data == "synthetic" or kind == "synthetic":
        kind = "table"
    if kind == "auto":
        kind = build.detect(_location(config, artifacts))  # type: ignore[assignment]
    cls = SOURCES[kind]
    classes = ClassNames((*POSITIVE_NAMES, *config.source.positive), (*NEGATIVE_NAMES, *config.source.negative))
    names = {f.name for f in cls.__dataclass_fields__.values()} if hasattr(cls, "__dataclass_fields__") else set()
    return cls(**({"classes": classes} if "classes" in names else {}))


def outside(config: RunConfig) -> str:
    """Hash of what the data say and hold: every row as it is read, and size and time of every image."""
    if config.data == "synthetic":
        return "synthetic"
    place = Path(config.data)
    if not place.exists():
        raise DataError("there is no such file or folder", where=config.data, fix="check data=PATH")
    listing = _source(config, Artifacts(config.out)).read(place)
    rows = []
    for name in listing.frame["path"].to_list():
        path = listing.root / str(name)
        stat = path.stat() if path.is_file() else None
        rows.append([str(name), stat.st_size if stat else -1, stat.st_mtime_ns if stat else -1])
    return sha256_json([listing.frame.write_csv(), sorted(rows)])


def workers(config: RunConfig) -> int:
    """Threads that decode images."""
    return config.compute.workers or len(os.sched_getaffinity(0))


SPEC = PhaseSpec(
    name="prepare",
    version=1,
    config=("data", "seed", "source", "split", "compute.max_pixels"),
    inputs=lambda a, c: [file for file in (c.split.file, c.source.review) if file],
    outputs=lambda a, c: [a.manifest, a.splits, a.rejected, *([a.synthetic] if c.data == "synthetic" else [])],
    roles=(),
    run=_run,
    outside=outside,
)
