"""One manifest of several, with the origin and licence of each image, and groups that know no borders between sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from workzone.data.manifest import Manifest
from workzone.data.roles import Role
from workzone.data.splits import Splits
from workzone.data.units import find_units
from workzone.errors import DataError

LICENCE_COLUMNS = ("license", "licence")


@dataclass(frozen=True, slots=True)
class Combined:
    """Several data sets as one.

    Attributes:
        manifest: columns ``origin`` (name of the data set), ``origin_id``, ``origin_group`` and ``license`` are added.
        shared: groups that hold images of more than one data set.
        copies: images whose bytes another data set holds too.
        conflicts: pictures (by content) that carry both labels.
        unlicensed: images of each data set without a licence.
    """

    manifest: Manifest
    shared: int
    copies: int
    conflicts: int
    unlicensed: Mapping[str, int]

    def sentences(self) -> list[str]:
        """What a person should know."""
        found = []
        if self.shared:
            found.append(f"{self.shared} groups hold images of more than one data set; each keeps to one split role")
        if self.copies:
            found.append(f"{self.copies} images are byte by byte in more than one data set")
        if self.conflicts:
            found.append(f"{self.conflicts} of these pictures carry both labels: see workzone data quality")
        found += [f"{count} images of {name} have no licence" for name, count in self.unlicensed.items() if count]
        return found


def combine(parts: Mapping[str, Manifest]) -> Combined:
    """Combine manifests by name.

    Ids become ``name/id`` if any two sets share one. Groups become ``name/group``, since a group "1" of two sets is two
    groups, and are then joined again over copies and near duplicates across all sets.

    Raises:
        DataError: no data set.
    """
    if not parts:
        raise DataError("no data set was given")
    seen = Counter(i for m in parts.values() for i in m.frame["id"].to_list())
    clash = max(seen.values(), default=1) > 1
    frames = []
    for name, manifest in parts.items():
        frame, ids = manifest.frame, manifest.frame["id"].to_list()
        licence = next((frame[c].cast(pl.String) for c in LICENCE_COLUMNS if c in frame.columns), None)
        # A set that was fused before keeps the names it was given then.
        origin = frame["origin"].cast(pl.String) if "origin" in frame.columns else pl.Series([name] * len(frame))
        own = frame["origin_id"].cast(pl.String) if "origin_id" in frame.columns else frame["id"]
        frames.append(
            frame.with_columns(
                pl.Series("id", [f"{name}/{i}" if clash else i for i in ids], dtype=pl.String()),
                pl.Series("path", [str(p) for p in manifest.paths], dtype=pl.String()),
                pl.Series("group", [f"{name}/{g}" for g in manifest.groups], dtype=pl.String()),
                frame["source"].fill_null(name),
                origin.alias("origin"),
                own.alias("origin_id"),
                pl.Series("origin_group", manifest.groups, dtype=pl.String()),
                (licence if licence is not None else pl.Series([None] * len(frame), dtype=pl.String())).alias(
                    "license"
                ),
            )
        )
    whole = pl.concat(_same_types(frames), how="diagonal")
    manifest = Manifest.from_frame(whole, root=Path("/"))
    units = find_units(manifest)
    manifest = Manifest(manifest.frame.with_columns(pl.Series("group", units, dtype=pl.String())), manifest.root)
    frame = manifest.frame
    by_group = frame.group_by("group").agg(pl.col("origin").n_unique())
    content = frame.filter(pl.col("sha256").is_not_null()).group_by("sha256")
    facts = content.agg(
        pl.len().alias("n"),
        pl.col("origin").n_unique().alias("sets"),
        pl.col("label").drop_nulls().n_unique().alias("y"),
    )
    both = facts.filter(pl.col("sets") > 1)
    blank = frame.filter(pl.col("license").is_null())
    return Combined(
        manifest,
        int((by_group["origin"] > 1).sum()),
        int(both["n"].sum()),
        int((facts["y"] > 1).sum()),
        {name: int((blank["origin"] == name).sum()) for name in frame["origin"].unique(maintain_order=True).to_list()},
    )


def keep_roles(manifest: Manifest, splits: Splits) -> tuple[Manifest, int]:
    """``manifest`` with the roles of an earlier split in the column ``split``, and the number of images without one.

    Images are known by the id they had before they were combined, and by content. New images are for training, but
    for those that share a group with an image of another role: to train on them would leak. A run obeys the column, so
    that models before and after can be compared on one and the same val_test.

    Raises:
        DataError: no image of the split is here, or one has another content.
    """
    frame = manifest.frame
    own = frame["origin_id"] if "origin_id" in frame.columns else frame["id"]
    # Two data sets may use one id for two images: the content tells which of them was split.
    same = [
        i in splits.assignment and (sha is None or splits.content.get(i, sha) == sha)
        for i, sha in zip(own.to_list(), frame["sha256"].to_list(), strict=True)
    ]
    known = {i for i, here in zip(own.to_list(), same, strict=True) if here}
    if not known:
        raise DataError("none of the images of the split is here", fix="give the data set that was split as well")
    if changed := sorted({i for i in own.to_list() if i in splits.assignment} - known):
        raise DataError("the image is not the one that was split", where=f"id {changed[0]!r}", fix="split again")
    roles = [splits.assignment[i] if here else None for i, here in zip(own.to_list(), same, strict=True)]
    shut = {g for g, role in zip(manifest.groups, roles, strict=True) if role not in (None, Role.TRAIN)}
    found = [
        str(role) if role is not None else None if group in shut else str(Role.TRAIN)
        for group, role in zip(manifest.groups, roles, strict=True)
    ]
    kept = frame.with_columns(pl.Series("split", found, dtype=pl.String()))
    return Manifest(kept, manifest.root, manifest.rejected, manifest.warnings), sum(r is None for r in found)


def _same_types(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """A further column that is of different types in two sets becomes text in all."""
    types: dict[str, set[str]] = {}
    for frame in frames:
        for column, kind in frame.schema.items():
            if kind != pl.Null:
                types.setdefault(column, set()).add(str(kind))
    mixed = {c for c, kinds in types.items() if len(kinds) > 1}
    known = {c: k for f in frames for c, k in f.schema.items() if k != pl.Null}
    return [
        f.with_columns(pl.col(c).cast(pl.String() if c in mixed else known.get(c, pl.String())) for c in f.columns)
        for f in frames
    ]
