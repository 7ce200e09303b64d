"""Which images a backbone may learn from without labels: those of role train, and others that no held-out image is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from workzone.data.manifest import Manifest
from workzone.data.perceptual import bits_from_hex
from workzone.data.roles import Role
from workzone.data.sources.build import Facts, read_facts
from workzone.data.sources.unlabelled import UnlabelledSource
from workzone.data.splits import Splits, role_frame
from workzone.data.units import NEAR_DUPLICATE_BITS
from workzone.errors import DataError, ImageError
from workzone.vision.batch import all_in_order

Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Pool:
    """Images to learn from.

    Attributes:
        frame: columns id, path (absolute), sha256, label (null where unknown), group.
        counts: images of role train with and without label, further ones, and those left out by reason.
    """

    frame: pl.DataFrame
    counts: dict[str, int]


def gather(
    manifest: Manifest,
    splits: Splits,
    *,
    unlabelled: Path | None = None,
    limit: int = 0,
    seed: int = 0,
    workers: int = 1,
    progress: Advance | None = None,
) -> Pool:
    """Images of role train, and those of ``unlabelled`` that are no relation of an image of another role.

    A further image is left out with its whole group when its group, its content or its perceptual hash (4 of 64 bits)
    is that of a labelled image outside role train.

    Args:
        manifest: images of the run.
        splits: their roles.
        unlabelled: folder or table of further images.
        limit: most further images that are looked at, drawn by ``seed``; 0 for all.
        seed: of that draw.
        workers: threads that decode.
        progress: called with (images done, images in all).

    Raises:
        DataError: ``unlabelled`` is not there, has labels, or nothing is left.
    """
    columns = ["id", "path", "sha256", "label", "group"]
    own = pl.concat([role_frame(manifest, splits, Role.TRAIN, labelled=known) for known in (True, False)])
    own = own.select(columns)
    counts = {
        "train_labelled": int(own["label"].is_not_null().sum()),
        "train_unlabelled": int(own["label"].null_count()),
    }
    if unlabelled is None:
        return Pool(own, counts | {"further": 0})
    rows, unreadable = _read(unlabelled, limit, seed, workers, progress)
    train = set(splits.ids(Role.TRAIN))
    held = manifest.frame.filter(~pl.col("id").is_in(train))
    related = _related(rows, held, own["sha256"].to_list())
    further = rows.filter(~pl.Series(related["all"])).select(columns)
    counts |= {"further": further.height, "unreadable": unreadable}
    counts |= {f"left_out_{reason}": int(found.sum()) for reason, found in related.items() if reason != "all"}
    # Ids of another table may be those of the manifest.
    further = further.with_columns(("further/" + pl.col("id")).alias("id"))
    return Pool(pl.concat([own, further]), counts)


def _read(place: Path, limit: int, seed: int, workers: int, progress: Advance | None) -> tuple[pl.DataFrame, int]:
    if not place.exists():
        raise DataError("there is no such folder or table", where=str(place), fix="check pretrain.unlabelled")
    listing = UnlabelledSource().read(place)
    frame = listing.frame
    if "group" not in frame.columns:
        frame = frame.with_columns(pl.lit(None, dtype=pl.String()).alias("group"))
    if limit and frame.height > limit:
        chosen = np.random.default_rng([seed, 7]).permutation(frame.height)[:limit]
        frame = frame[np.sort(chosen).tolist()]
    paths = [listing.root / str(p) for p in frame["path"].to_list()]

    def look(path: Path) -> Facts | None:
        try:
            return read_facts(path)
        except (ImageError, OSError):
            return None

    facts = all_in_order(paths, look, workers=workers, progress=progress)
    good = [i for i, f in enumerate(facts) if f is not None]
    if not good:
        raise DataError("none of the images can be read", where=str(place), fix="check pretrain.unlabelled")
    read = [f for f in facts if f is not None]
    ids = [str(frame["id"][i]) for i in good]
    data: dict[str, Any] = {
        "id": ids,
        "path": [str(paths[i]) for i in good],
        "sha256": [f.sha256 for f in read],
        "phash": [f.phash for f in read],
        "label": pl.Series([None] * len(good), dtype=pl.Int8()),
        "group": [frame["group"][i] or own for i, own in zip(good, ids, strict=True)],
    }
    return pl.DataFrame(data), len(facts) - len(good)


def _related(
    rows: pl.DataFrame, held: pl.DataFrame, known: list[str]
) -> dict[str, np.ndarray[Any, np.dtype[np.bool_]]]:
    groups = rows["group"].is_in(held["group"].drop_nulls().to_list()).to_numpy()
    content = rows["sha256"].is_in(held["sha256"].drop_nulls().to_list()).to_numpy()
    alike = np.zeros(rows.height, dtype=np.bool_)
    hashes = held["phash"].drop_nulls().to_list()
    if hashes:
        others = np.where(bits_from_hex(hashes), 1.0, -1.0).astype(np.float32)
        signs = np.where(bits_from_hex(rows["phash"].to_list()), 1.0, -1.0).astype(np.float32)
        for start in range(0, len(signs), 2048):
            product = signs[start : start + 2048] @ others.T
            alike[start : start + 2048] = (product >= 64 - 2 * NEAR_DUPLICATE_BITS).any(axis=1)
    direct = groups | content | alike
    tainted = rows["group"].is_in(rows.filter(pl.Series(direct))["group"].to_list()).to_numpy()
    first = pl.Series(rows["sha256"]).is_first_distinct().to_numpy()
    double = ~first | rows["sha256"].is_in(known).to_numpy()
    return {"related": tainted, "repeated": double & ~tainted, "all": tainted | double}
