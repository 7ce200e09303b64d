"""How much each image of a fused data set counts: how often it is drawn, and how strongly it weighs in the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from workzone.data.manifest import Manifest
from workzone.errors import ConfigError, DataError

Weights = NDArray[np.float64]
SAMPLE, LOSS = "sample_weight", "loss_weight"
HARD_NEGATIVE = "hard_negative"
_YES = ("1", "true", "yes", "1.0")


@dataclass(frozen=True, slots=True)
class Images:
    """What a strategy may know of N labelled images.

    Attributes:
        labels: (N,) 0 or 1.
        sets: (N,) name of the data set of each.
        hard: (N,) whether it is a negative that is marked as hard.
        ratios: wanted share of each data set, for ``ratio``.
        hard_weight: weight of hard negatives.
    """

    labels: NDArray[np.int64]
    sets: NDArray[np.str_]
    hard: NDArray[np.bool_]
    ratios: Mapping[str, float] = field(default_factory=dict)
    hard_weight: float = 2.0


Strategy = Callable[[Images], tuple[Weights, Weights]]


def _cells(*keys: NDArray[np.generic]) -> NDArray[np.int64]:
    joined = np.array(
        ["\0".join(map(str, row)) for row in zip(*(k.tolist() for k in keys), strict=True)], dtype=np.str_
    )
    return np.asarray(np.unique(joined, return_inverse=True)[1])


def _equal(cells: NDArray[np.int64]) -> Weights:
    """Weights under which all cells weigh the same; their mean is 1."""
    counts = np.bincount(cells)
    return np.asarray(len(cells) / (len(counts) * counts[cells]))


def naive(images: Images) -> tuple[Weights, Weights]:
    """Every image counts the same: the larger set rules."""
    return np.ones(len(images.labels)), np.ones(len(images.labels))


def balanced(images: Images) -> tuple[Weights, Weights]:
    """Both classes are drawn equally often."""
    return _equal(images.labels), np.ones(len(images.labels))


def inverse_frequency(images: Images) -> tuple[Weights, Weights]:
    """Weight ``n / (K n_k)`` in the loss for an image of class k of K; nothing about the drawing changes."""
    return np.ones(len(images.labels)), _equal(images.labels)


def domain_stratified(images: Images) -> tuple[Weights, Weights]:
    """Every data set is drawn equally often, and in it both classes: then the set does not give the label away.

    A set with one class is drawn as often as the others, with that class.
    """
    sets = _cells(images.sets)
    within = np.zeros(len(sets))
    for s in np.unique(sets):
        own = sets == s
        within[own] = _equal(_cells(images.labels[own])) / own.sum()
    return within * len(sets) / len(np.unique(sets)), np.ones(len(sets))


def hard_negative(images: Images) -> tuple[Weights, Weights]:
    """Negatives that are marked as hard weigh more in the loss, 2.0 by default."""
    if not images.hard.any():
        raise DataError(
            "no negative is marked in the column hard_negative",
            fix="mine them first: workzone data mine --bundle B DATA",
        )
    return np.ones(len(images.labels)), np.where(images.hard, images.hard_weight, 1.0)


def ratio(images: Images) -> tuple[Weights, Weights]:
    """Data sets are drawn in fixed proportions, whatever their sizes."""
    names = set(np.unique(images.sets).tolist())
    if set(images.ratios) != names:
        given = ", ".join(sorted(images.ratios)) or "nothing"
        raise ConfigError(
            f"the ratios name {given}, the data sets are {', '.join(sorted(names))}",
            where="--ratio",
            fix="say --ratio NAME=SHARE for each data set",
        )
    total = sum(images.ratios.values())
    if min(images.ratios.values()) < 0 or total <= 0:
        raise ConfigError("ratios must not be negative, and one must be more than 0", where="--ratio")
    weights = np.zeros(len(images.sets))
    for name, share in images.ratios.items():
        own = images.sets == name
        weights[own] = share / total * len(weights) / own.sum()
    return weights, np.ones(len(weights))


def adaptive(images: Images) -> tuple[Weights, Weights]:
    """Data sets are drawn equally often at first; with ``fuse.mixture=adaptive`` the shares follow their losses."""
    return _equal(_cells(images.sets)), np.ones(len(images.sets))


STRATEGIES: Mapping[str, Strategy] = {
    "naive": naive,
    "balanced": balanced,
    "inverse_frequency": inverse_frequency,
    "domain_stratified": domain_stratified,
    "hard_negative": hard_negative,
    "ratio": ratio,
    "adaptive": adaptive,
}
"""Strategies by name."""


def weigh(
    manifest: Manifest,
    strategy: str,
    *,
    by: str = "origin",
    ratios: Mapping[str, float] | None = None,
    hard_weight: float = 2.0,
) -> Manifest:
    """``manifest`` with the columns ``sample_weight``, ``loss_weight`` and ``domain_set``, the data set.

    Only labelled images are weighed; the others keep empty weights.

    Args:
        manifest: images, labelled or not.
        strategy: name in ``STRATEGIES``.
        by: column that names the data set.
        ratios: shares of ``ratio``.
        hard_weight: weight of hard negatives.

    Raises:
        ConfigError: unknown strategy or column, or ratios that do not fit.
        DataError: no labelled images, or no hard negatives where they are asked for.
    """
    if strategy not in STRATEGIES:
        raise ConfigError(f"there is no strategy {strategy!r}", fix=f"take one of {', '.join(STRATEGIES)}")
    frame = manifest.frame
    if by not in frame.columns:
        raise ConfigError(f"the manifest has no column {by!r}", where="--by", fix="take source or origin")
    known = np.flatnonzero(frame["label"].is_not_null().to_numpy())
    if not len(known):
        raise DataError("no image has a label, so nothing can be weighed")
    sets = np.array(["unknown" if v is None else str(v) for v in frame[by].to_list()], dtype=np.str_)
    labels = frame["label"][known.tolist()].to_numpy().astype(np.int64)
    marked = frame[HARD_NEGATIVE].to_list() if HARD_NEGATIVE in frame.columns else [None] * len(frame)
    said = np.array([str(v).strip().lower() in _YES for v in marked])
    images = Images(labels, sets[known], said[known] & (labels == 0), ratios or {}, hard_weight)
    columns = {}
    for name, values in zip((SAMPLE, LOSS), STRATEGIES[strategy](images), strict=True):
        whole: list[float | None] = [None] * len(frame)
        for i, value in zip(known.tolist(), values.tolist(), strict=True):
            whole[i] = value
        columns[name] = pl.Series(name, whole, dtype=pl.Float64())
    added = frame.with_columns(*columns.values(), pl.Series("domain_set", sets.tolist(), dtype=pl.String()))
    return Manifest(added, manifest.root, manifest.rejected, manifest.warnings)
