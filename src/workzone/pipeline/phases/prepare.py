"""Phase prepare: from images to a manifest with hashes, and split roles that no group straddles."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from workzone.config import RunConfig
from workzone.data.roles import Role
from workzone.errors import DataError
from workzone.files import atomic_path, sha256_json
from workzone.pipeline import reading
from workzone.pipeline.phase import Context, PhaseSpec
from workzone.pipeline.reading import workers

if TYPE_CHECKING:
    from workzone.data.manifest import Manifest

__all__ = ["SPEC", "outside", "workers"]


def _run(context: Context) -> None:
    from workzone.data.splits import make_splits

    config, artifacts = context.config, context.artifacts
    if config.data == "synthetic":
        from workzone.data.synthetic import write_dataset

        with context.progress.bar("drawing scenes") as advance:
            write_dataset(artifacts.synthetic, config.source.synthetic_images, seed=config.seed, progress=advance)
    manifest = reading.read_manifest(config, artifacts, context.progress)
    from workzone.data.quality.review import DROPPED, apply_review, read_review

    if config.source.review is not None:

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
        manifest,
        shares,
        seed=config.seed,
        near_duplicates=config.split.near_duplicates,
        cell_metres=config.split.metres or None,
        columns=config.split.columns,
        embeddings=_embeddings(context, manifest),
        similarity=config.split.similarity,
        given=config.split.file,
    )
    if manifest.rejected.height:
        dropped = int(manifest.rejected["reason"].str.starts_with(DROPPED).sum())
        said = [(manifest.rejected.height - dropped, "unreadable"), (dropped, "reviewed")]
        counts = " and ".join(f"{n} {what}" for n, what in said if n)
        context.progress.message(f"  {counts} images left out, see {artifacts.rejected}")
    with atomic_path(artifacts.rejected) as partial:
        manifest.rejected.write_csv(partial)
    manifest.save(artifacts.manifest)
    splits.save(artifacts.splits)
    for role in Role:
        by_source = splits.counts.get(role, {}).values()
        total = {name: sum(counts.get(name, 0) for counts in by_source) for name in ("roadwork", "no_roadwork")}
        context.progress.message(f"  {role}: {sum(total.values())} images, {total['roadwork']} roadwork")


def _embeddings(context: Context, manifest: Manifest) -> NDArray[np.float32] | None:
    """(N, D) of the whole pictures by the backbone of the run as it comes, None where likeness joins nothing."""
    config = context.config
    if not config.split.similarity or config.split.file is not None:
        return None
    from workzone.pipeline.embedding import embed_manifest, whole_picture

    with tempfile.TemporaryDirectory() as folder:
        return whole_picture(embed_manifest(manifest, config, folder=Path(folder), progress=context.progress))


def outside(config: RunConfig) -> str:
    """Hash of the data, and of the backbone where the split goes by likeness."""
    stamp = reading.outside(config)
    if not config.split.similarity:
        return stamp
    return sha256_json([stamp, config.model.model_dump(mode="json"), config.views.model_dump(mode="json")])


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
