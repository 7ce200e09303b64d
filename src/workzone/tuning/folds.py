"""Folds inside ``train`` and ``val_select``: whole groups, stratified by source and label; other roles stay shut."""

from __future__ import annotations

import numpy as np

from workzone.data.allocate import allocate
from workzone.data.manifest import Manifest
from workzone.data.roles import Role
from workzone.data.splits import Splits
from workzone.errors import ConfigError

HELD_OUT = Role.VAL_CALIB
"""Role that a fold is given inside a cell: the phases that train cannot open it."""
_OPEN = (Role.TRAIN, Role.VAL_SELECT)


def make_folds(manifest: Manifest, splits: Splits, *, folds: int, select: float, seed: int) -> list[Splits]:
    """One split per fold: the fold held out, of the rest a share ``select`` for early stopping, the remainder to train.

    Images of role train without a label stay there in every fold that holds out nothing of their unit.

    Args:
        manifest: images of the run.
        splits: roles of the run; only its ``train`` and ``val_select`` images are dealt.
        folds: number of folds K, 2 or more.
        select: share of the images outside the fold that stop training early.
        seed: of the dealing.

    Raises:
        ConfigError: impossible numbers.
        DataError: too few groups of a class for that many folds.
    """
    if folds < 2 or not 0.0 < select < 1.0:
        raise ConfigError("an ablation needs 2 folds or more and a share for selection between 0 and 1")
    frame = manifest.frame.filter(
        manifest.frame["id"].is_in([i for i, r in splits.assignment.items() if r in _OPEN])
        & manifest.frame["label"].is_not_null()
    )
    ids, labels = frame["id"].to_list(), frame["label"].to_numpy().astype(np.int64)
    sources = [s or "" for s in frame["source"].to_list()]
    units, unit_of = np.unique(np.array([splits.units.get(i, i) for i in ids], dtype=np.str_), return_inverse=True)
    names = sorted(set(sources))
    strata = np.zeros((len(units), len(names), 2))
    np.add.at(strata, (unit_of, np.array([names.index(s) for s in sources]), labels), 1)
    everything = np.arange(len(units))
    fold_of = _deal(strata, everything, np.full(folds, 1 / folds), seed)
    blank = _unlabelled(manifest, splits)
    made = []
    for fold in range(folds):
        rest = everything[fold_of != fold]
        stop = np.zeros(len(units), dtype=bool)
        stop[rest] = _deal(strata, rest, np.array([1 - select, select]), seed + 7919 * (fold + 1)) == 1
        role_of = np.where(fold_of == fold, 2, np.where(stop, 1, 0))
        roles = (Role.TRAIN, Role.VAL_SELECT, HELD_OUT)
        assignment = {i: roles[int(role_of[u])] for i, u in zip(ids, unit_of.tolist(), strict=True)}
        # A picture without a label may teach, unless it shares its place or drive with images that judge.
        judging = {str(u) for u in units[role_of != 0]}
        assignment |= {i: Role.TRAIN for i, unit in blank.items() if unit not in judging}
        content = {i: splits.content[i] for i in assignment if i in splits.content}
        named = {i: str(units[u]) for i, u in zip(ids, unit_of.tolist(), strict=True)}
        made.append(Splits(assignment, content, named | {i: blank[i] for i in blank if i in assignment}, seed=seed))
    return made


def _unlabelled(manifest: Manifest, splits: Splits) -> dict[str, str]:
    """Unit of each image of role train that has no label."""
    frame = manifest.frame.filter(
        manifest.frame["id"].is_in(splits.ids(Role.TRAIN)) & manifest.frame["label"].is_null()
    )
    return {i: splits.units.get(i, i) for i in frame["id"].to_list()}


def _deal(strata: np.ndarray, units: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    part = strata[units]
    negatives, positives = part.sum(axis=1).T
    return allocate(positives, negatives, part.reshape(len(units), -1), positives + negatives, shares, seed=seed)
