"""Splits: which image has which role, made from whole units, stored with content hashes, and opened role by role."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from workzone.data.allocate import allocate
from workzone.data.manifest import Manifest
from workzone.data.roles import ROLE_TYPES, Role, RoleData
from workzone.data.units import find_units
from workzone.errors import DataError, unreadable
from workzone.files import read_json, sha256_json, write_json

VERSION = 1
DEFAULT_FRACTIONS: Mapping[Role, float] = {
    Role.TRAIN: 0.7, Role.VAL_SELECT: 0.1, Role.VAL_CALIB: 0.1, Role.VAL_TEST: 0.1
}  # fmt: skip
_LABEL_NAMES = {1: "roadwork", 0: "no_roadwork", None: "unlabelled"}
_ROLE_NAMES = ", ".join(Role)
_NO_UNIT = ("id", "path", "label", "sha256", "phash")


@dataclass(frozen=True, slots=True)
class Splits:
    """Role of each image.

    Attributes:
        assignment: image id -> role; an image without a role is in no split.
        content: image id -> SHA-256 of its file, where known.
        units: image id -> name of the group of images that share its role.
        fractions: wanted fraction of each role; empty for a split that was given.
        counts: role -> source -> label name -> number of images.
    """

    assignment: Mapping[str, Role]
    content: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    fractions: Mapping[Role, float] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    seed: int | None = None

    def _body(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "seed": self.seed,
            "fractions": {str(r): f for r, f in self.fractions.items()},
            "assignment": {i: str(r) for i, r in self.assignment.items()},
            "content": dict(self.content),
            "units": dict(self.units),
            "counts": {r: {s: dict(c) for s, c in by.items()} for r, by in self.counts.items()},
        }

    @property
    def fingerprint(self) -> str:
        """Hash of the whole split."""
        return sha256_json(self._body())

    def ids(self, role: Role) -> list[str]:
        """Ids of one role, in the order of the split."""
        return [i for i, r in self.assignment.items() if r == role]

    def save(self, path: Path | str) -> Path:
        """Write ``splits.json``, atomically, with the hash of the whole."""
        target = Path(path)
        write_json(target, {**self._body(), "hash": self.fingerprint})
        return target

    @classmethod
    def load(cls, path: Path | str) -> Splits:
        """Read a split file; ``version`` and ``assignment`` are needed, the rest may be absent in one made elsewhere.

        Raises:
            DataError: unreadable, of another version, an unknown role, or changed after its hash was written.
        """
        file = Path(path)
        try:
            raw = read_json(file)
        except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise unreadable(DataError, "the split file", file, error) from error
        fix = "give a split file of 'workzone data split' or of a run"
        if not isinstance(raw, dict) or not isinstance(raw.get("assignment"), dict):
            raise DataError("the split file has no 'assignment' of image ids to roles", where=str(file), fix=fix)
        if raw.get("version") != VERSION:
            what = f"the split file has version {str(raw.get('version'))[:20]}, not {VERSION}"
            raise DataError(what, where=str(file), fix=fix)
        fractions, counts, seed = raw.get("fractions", {}), raw.get("counts", {}), raw.get("seed")
        if not (
            isinstance(fractions, dict)
            and all(isinstance(f, int | float) for f in fractions.values())
            and isinstance(counts, dict)
            and (seed is None or isinstance(seed, int))
        ):
            raise DataError("fractions, counts or seed of the split file are malformed", where=str(file), fix=fix)
        splits = cls(
            assignment={str(i): _role(r, f"{file}, id {i!r}") for i, r in raw["assignment"].items()},
            content=_texts(raw, "content", file),
            units=_texts(raw, "units", file),
            fractions={_role(r, str(file)): float(f) for r, f in fractions.items()},
            counts=counts,
            seed=seed,
        )
        if raw.get("hash") not in (None, splits.fingerprint):
            raise DataError(
                "the split file was changed after it was written: its hash does not fit",
                where=str(file),
                fix="make the split again, or remove the line 'hash' if the change was meant",
            )
        return splits


def _role(name: object, where: str) -> Role:
    try:
        return Role(str(name))
    except ValueError:
        raise DataError(f"{name!r} is no split role", where=where, fix=f"the roles are {_ROLE_NAMES}") from None


def _texts(raw: Mapping[str, Any], key: str, file: Path) -> dict[str, str]:
    value = raw.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise DataError(f"'{key}' of the split file must map image ids to text", where=str(file))
    return value


def _counts(manifest: Manifest, assignment: Mapping[str, Role]) -> dict[str, dict[str, dict[str, int]]]:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for image_id, source, label in manifest.frame.select("id", "source", "label").rows():
        if image_id in assignment:
            by = counts.setdefault(str(assignment[image_id]), {}).setdefault(source or "unknown", {})
            by[_LABEL_NAMES[label]] = by.get(_LABEL_NAMES[label], 0) + 1
    return counts


def _finish(manifest: Manifest, assignment: dict[str, Role], units: Mapping[str, str], **rest: Any) -> Splits:
    content = {i: sha for i, sha in manifest.frame.select("id", "sha256").rows() if sha is not None and i in assignment}
    kept = {i: u for i, u in units.items() if i in assignment}
    return Splits(assignment, content, kept, counts=_counts(manifest, assignment), **rest)


def check_against(manifest: Manifest, splits: Splits) -> None:
    """Raise DataError unless every image of ``splits`` is in ``manifest`` with the content it had."""
    sha = dict(manifest.frame.select("id", "sha256").rows())
    absent = [i for i in splits.assignment if i not in sha]
    if absent:
        raise DataError(
            f"{len(absent)} images of the split are not in the manifest",
            where=f"id {absent[0]!r}",
            fix="use the manifest that the split was made from, or make the split again",
        )
    changed = [i for i, digest in splits.content.items() if sha.get(i) not in (None, digest)]
    if changed:
        raise DataError(
            f"{len(changed)} images have changed since the split was made",
            where=f"id {changed[0]!r}",
            fix="restore the files, or make the split again",
        )


def splits_from_column(manifest: Manifest, column: str = "split") -> Splits:
    """Obey a manifest column that holds roles; rows without a value get no role. Raises DataError on other values."""
    names = manifest.frame.select("id", column).rows()
    assignment = {i: _role(r, f"column '{column}', id {i!r}") for i, r in names if r is not None}
    return _finish(manifest, assignment, {})


def make_splits(
    manifest: Manifest,
    fractions: Mapping[Role, float] | Mapping[str, float] = DEFAULT_FRACTIONS,
    *,
    seed: int = 0,
    near_duplicates: bool = True,
    cell_metres: float | None = None,
    columns: Sequence[str] = (),
    embeddings: NDArray[np.floating] | None = None,
    similarity: float = 0.95,
    given: Splits | Path | str | None = None,
) -> Splits:
    """Give every image a role, or obey a split that is already there.

    A split given by ``given`` or by a manifest column ``split`` is obeyed as it is. Otherwise whole units (see
    ``find_units``) are allocated by seed, stratified by source and label. An unlabelled image can only be ``train``;
    one that shares a unit with images of another role gets no role, since training on it would leak. What makes a unit
    (``near_duplicates`` to ``similarity``) is that of ``find_units``.

    Raises:
        DataError: fractions that are not fractions, one class only, too few groups for both classes in each role, or a
            given split that does not fit the manifest.
    """
    if given is not None:
        splits = given if isinstance(given, Splits) else Splits.load(given)
        check_against(manifest, splits)
        return splits
    if "split" in manifest.frame.columns and manifest.frame["split"].null_count() < len(manifest):
        return splits_from_column(manifest)
    wanted = {_role(r, "fractions"): float(f) for r, f in fractions.items()}
    total = sum(wanted.values())
    if not wanted or any(not 0 <= f <= 1 for f in wanted.values()) or abs(total - 1) > 1e-6:
        raise DataError(f"split fractions must be 0 to 1 and sum to 1, not {total:g}", where="fractions")
    roles = [r for r in Role if wanted.get(r, 0) > 0]

    frame = manifest.frame
    if unknown := [c for c in columns if c not in frame.columns]:
        known = ", ".join(c for c in frame.columns if c not in _NO_UNIT)
        raise DataError(f"the images have no column {unknown[0]!r} to join by", where="split", fix=f"take of {known}")
    units = find_units(
        manifest,
        near_duplicates=near_duplicates,
        cell_metres=cell_metres,
        columns=columns,
        embeddings=embeddings,
        similarity=similarity,
    )
    # Sorted ids make the split independent of the order of rows.
    by_id = np.argsort(np.array(frame["id"].to_list(), dtype=np.str_), kind="stable")
    unit_names, unit_of = np.unique(np.array(units, dtype=np.str_), return_inverse=True)
    labels = frame["label"].to_list()
    sources = sorted({s or "" for s in frame["source"].to_list()})
    strata = np.zeros((len(unit_names), len(sources), 2))
    for row, (label, source) in enumerate(zip(labels, frame["source"].to_list(), strict=True)):
        if label is not None:
            strata[unit_of[row], sources.index(source or ""), label] += 1
    negatives, positives = strata.sum(axis=1).T
    labelled = positives + negatives > 0
    role_of = np.full(len(unit_names), roles.index(Role.TRAIN) if Role.TRAIN in roles else -1, dtype=np.int64)
    role_of[labelled] = allocate(
        positives[labelled],
        negatives[labelled],
        strata[labelled].reshape(int(labelled.sum()), -1),
        (positives + negatives)[labelled],
        np.array([wanted[r] for r in roles]),
        seed=seed,
    )
    assignment: dict[str, Role] = {}
    ids = frame["id"].to_list()
    for row in by_id.tolist():
        index = int(role_of[unit_of[row]])
        if index >= 0 and (labels[row] is not None or roles[index] == Role.TRAIN):
            assignment[ids[row]] = roles[index]
    return _finish(manifest, assignment, dict(zip(ids, units, strict=True)), fractions=wanted, seed=seed)


def _array(column: pl.Series) -> NDArray[Any]:
    """Column as numpy: whole numbers with None, other numbers with NaN and text with "" for unknown values."""
    if column.dtype.is_integer():
        return np.array(column.to_list(), dtype=object) if column.null_count() else column.to_numpy()
    if column.dtype.is_numeric():
        return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.array([("" if v is None else str(v)) for v in column.to_list()], dtype=np.str_)


def role_frame(manifest: Manifest, splits: Splits, role: Role, *, labelled: bool = True) -> pl.DataFrame:
    """Rows of one role that have a label (or, with ``labelled=False``, that have none), paths made absolute."""
    frame = manifest.frame.with_columns(pl.Series("path", [str(p) for p in manifest.paths], dtype=pl.String()))
    known = pl.col("label").is_not_null()
    return frame.filter(pl.col("id").is_in(splits.ids(role)) & (known if labelled else ~known))


def open_role(manifest: Manifest, splits: Splits, role: Role | str) -> RoleData:
    """Labelled images of one role as its own type, in manifest order; groups are the units of the split.

    Metadata columns are numpy arrays: whole numbers with None (the array then holds objects), other numbers with
    NaN, text with "" where the value is unknown.

    Raises:
        DataError: no such role, the role is empty, or the split does not fit the manifest.
    """
    wanted = _role(role, "open_role")
    check_against(manifest, splits)
    frame = role_frame(manifest, splits, wanted)
    if not frame.height:
        raise DataError(f"role {wanted} has no labelled images", fix="give it a fraction above 0 and split again")
    ids = frame["id"].to_list()
    own = Manifest(frame, manifest.root).groups
    columns = {c: _array(frame[c]) for c in frame.columns if c not in ("id", "label", "path", "group")}
    return ROLE_TYPES[wanted](
        ids=np.array(ids, dtype=np.str_),
        labels=frame["label"].to_numpy().astype(np.int64),
        groups=np.array([splits.units.get(i, g) for i, g in zip(ids, own, strict=True)], dtype=np.str_),
        paths=np.array(frame["path"].to_list(), dtype=np.str_),
        columns=columns,
    )
