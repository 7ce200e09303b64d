"""What the data sets of the training images do to the adaptation of a backbone: drawing, weights, augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workzone.config.run import TrainConfig
from workzone.config.training import augment_of
from workzone.data.roles import RoleData
from workzone.errors import DataError

COLUMNS = ("sample_weight", "loss_weight", "domain_set", "source")
"""Columns of the training images that are read here, where they are there."""


@dataclass(frozen=True, slots=True)
class DataSets:
    """What is known of N training images.

    Attributes:
        draw: (N,) rate at which each is drawn, None for each once an epoch.
        weights: (N,) weight of each in the loss, None for 1.
        sets: (N,) code of the data set of each, None where nothing depends on it.
        augment: name of the augmentation of each data set by code; empty where all take the same.
        across: whether CutMix pastes between different data sets only.
    """

    draw: Tensor | None = None
    weights: Tensor | None = None
    sets: Tensor | None = None
    augment: tuple[str, ...] = ()
    across: bool = False


def data_sets(data: RoleData, config: TrainConfig) -> DataSets:
    """What ``config`` asks for, from the columns of ``data``.

    Raises:
        DataError: a column is missing or holds no usable numbers, or CutMix across data sets has only one.
    """
    draw = weigh = None
    if config.mixture == "manifest":
        draw = torch.from_numpy(usable_weights(data, "sample_weight", "train.mixture"))
        weigh = torch.from_numpy(usable_weights(data, "loss_weight", "train.mixture").astype(np.float32))
    across = config.cutmix_sets == "other"
    if not (config.augment_by or across):
        return DataSets(draw, weigh)
    names, codes = np.unique(_set_names(data, "train.augment_by or train.cutmix_sets"), return_inverse=True)
    if across and len(names) < 2:
        raise DataError(
            f"there is one data set, {names[0]}, and none to paste from",
            where="train.cutmix_sets",
            fix="use cutmix_sets=any",
        )
    own = augment_of(config.augment_by)
    augment = tuple(own.get(str(n), config.augment) for n in names) if own else ()
    return DataSets(draw, weigh, torch.from_numpy(codes.astype(np.int64)), augment, across)


def check_names(data: RoleData, config: TrainConfig) -> None:
    """Raise DataError for a data set of ``train.augment_by`` that the training images do not have."""
    if not config.augment_by:
        return
    known = sorted(set(_set_names(data, "train.augment_by").tolist()))
    if unknown := [n for n in augment_of(config.augment_by) if n not in known]:
        raise DataError(
            f"no training image is of the data set {unknown[0]!r}",
            where="train.augment_by",
            fix=f"the data sets are {', '.join(known)}",
        )


def usable_weights(data: RoleData, name: str, where: str) -> NDArray[np.float64]:
    """(N,) numbers of the column ``name``: finite, not negative, not all 0.

    Raises:
        DataError: they are not.
    """
    found = data.columns.get(name)
    usable = found is not None and found.dtype.kind in "fiu" and bool(np.isfinite(found).all())
    if found is None or not usable or (found < 0).any() or not found.any():
        raise DataError(
            f"the training images lack usable numbers in the column {name}",
            where=where,
            fix="make the manifest with: workzone data fuse A B --strategy NAME --out manifest.parquet",
        )
    return np.asarray(found, dtype=np.float64)


def _set_names(data: RoleData, where: str) -> NDArray[np.str_]:
    named = data.columns.get("domain_set", data.columns.get("source"))
    if named is None:
        raise DataError("the images have no column domain_set or source", where=where)
    return np.asarray(named, dtype=np.str_)


def rows_by_augmentation(sets: Tensor, names: Sequence[str]) -> list[tuple[str, Tensor]]:
    """Each augmentation with the rows (of a batch with data sets ``sets``) that take it, always in the same order."""
    code = {name: i for i, name in enumerate(sorted(set(names)))}
    of_set = torch.tensor([code[name] for name in names])
    own = of_set[sets]
    return [(name, (own == i).nonzero().squeeze(1)) for name, i in code.items() if bool((own == i).any())]
