"""Allocation of whole units to roles, as near to the wanted fractions of every stratum as whole units allow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workzone.errors import DataError

Counts = NDArray[np.float64]
_PASSES = 20


class _Balance:
    """Counts per role and feature, and the cost of their distance from what is wanted."""

    def __init__(self, features: Counts, weights: Counts, fractions: Counts, both: NDArray[np.intp]) -> None:
        total = features.sum(axis=0)
        self.want = fractions[:, None] * total
        # Chi-square: a missing ten weighs more in a role of thirty than in one of three hundred.
        self.scale = weights / np.maximum(self.want, 0.5)
        self.have = np.zeros_like(self.want)
        self.both = both
        self.penalty = 1e3 * max(1.0, float(total.sum()))

    def gain(self, add: Counts) -> Counts:
        """(R,) change of the cost if ``add`` went to each role; what a role lacks altogether comes first."""
        after, before = self.have + add - self.want, self.have - self.want
        change = (self.scale * (after**2 - before**2)).sum(axis=1)
        fills = ((self.have[:, self.both] <= 0) & (self.have + add)[:, self.both].astype(bool)).sum(axis=1)
        return np.asarray(change - self.penalty * fills)

    def loss(self, take: Counts, role: int) -> float:
        """Change of the cost if ``take`` left ``role``."""
        after, before = self.have[role] - take - self.want[role], self.have[role] - self.want[role]
        change = float((self.scale[role] * (after**2 - before**2)).sum())
        empties = int(((self.have[role] > 0) & (self.have[role] - take <= 0))[self.both].sum())
        return change + self.penalty * empties


def _pinned(positives: Counts, negatives: Counts, order: NDArray[np.intp], roles: NDArray[np.intp]) -> dict[int, int]:
    """One unit with positives and one with negatives for every role, small units first: unit -> role."""
    small_first = [int(u) for u in order[::-1]]
    mixed = [u for u in small_first if positives[u] > 0 and negatives[u] > 0]
    only_pos = [u for u in small_first if positives[u] > 0 and negatives[u] == 0]
    only_neg = [u for u in small_first if negatives[u] > 0 and positives[u] == 0]
    pins: dict[int, int] = {}
    for role in roles.tolist():
        for pool in [only_pos, only_neg] if only_pos and only_neg else [mixed]:
            pins[pool.pop(0)] = role
    return pins


def allocate(
    positives: Counts,
    negatives: Counts,
    strata: Counts,
    weight: Counts,
    fractions: Counts,
    *,
    seed: int,
    every_role: bool = True,
) -> NDArray[np.int64]:
    """Role of each unit: largest unit first to the role that it brings nearest to its share, then single moves.

    Args:
        positives: (U,) positive images of each unit.
        negatives: (U,) negative images of each unit.
        strata: (U, S) images of each unit by source and label.
        weight: (U,) images of each unit, unlabelled ones included; only the order of allocation depends on it.
        fractions: (R,) wanted fraction of each role, all above 0, sum 1.
        seed: decides among units of one size and roles of one need.
        every_role: each role must get images of both classes.

    Returns:
        (U,) index of a role.

    Raises:
        DataError: there are fewer units with positives, or with negatives, than roles, and ``every_role`` is asked for.
    """
    for name, counts in (("roadwork", positives), ("no_roadwork", negatives)):
        n = int((counts > 0).sum())
        if every_role and n < len(fractions):
            raise DataError(
                f"{len(fractions)} split roles each need images of both classes, but only {n} "
                f"{'group holds' if n == 1 else 'groups hold'} images labelled {name}",
                fix="add images of other places or sequences, use fewer roles, or check that groups are not too coarse",
            )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(weight))
    order = order[np.argsort(-weight[order], kind="stable")]
    tie = rng.permutation(len(fractions)) * 1e-9
    features = np.column_stack([strata, positives, negatives])
    weights = np.concatenate([np.full(strata.shape[1], 1.0), [3.0, 1.0]])
    both = np.array([features.shape[1] - 2, features.shape[1] - 1])

    def fill(pins: dict[int, int]) -> tuple[NDArray[np.int64], _Balance]:
        balance = _Balance(features, weights, fractions, both)
        role_of = np.full(len(weight), -1, dtype=np.int64)
        for unit, role in pins.items():
            role_of[unit] = role
            balance.have[role] += features[unit]
        for unit in order.tolist():
            if role_of[unit] < 0:
                role = int(np.argmin(balance.gain(features[unit]) + tie))
                role_of[unit] = role
                balance.have[role] += features[unit]
        for _ in range(_PASSES):
            moved = False
            for unit in order.tolist():
                old = int(role_of[unit])
                if unit in pins:
                    continue
                change = balance.gain(features[unit]) + balance.loss(features[unit], old)
                change[old] = 0.0
                new = int(np.argmin(change))
                if change[new] < -1e-6:
                    role_of[unit] = new
                    balance.have[old] -= features[unit]
                    balance.have[new] += features[unit]
                    moved = True
            if not moved:
                break
        return role_of, balance

    role_of, balance = fill({})
    if every_role and (balance.have[:, both] <= 0).any():
        role_of, balance = fill(_pinned(positives, negatives, order, np.argsort(fractions, kind="stable")))
    return role_of


def first_part(
    labels: NDArray[np.int64], groups: NDArray[np.str_], fraction: float, *, seed: int
) -> NDArray[np.bool_]:
    """Mask (N,) of a part with about ``fraction`` of the images, and of the groups, of each class.

    Groups stay whole. A part made of a few long sequences would have many images and little evidence, so groups count
    beside images. A class with two groups or more is in both parts; one with a single group is in the first.

    Args:
        labels: (N,) 0 or 1.
        groups: (N,) name of the group of each image.
        fraction: strictly between 0 and 1.
        seed: decides among groups that do the same.
    """
    names, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    positives = np.bincount(inverse, weights=labels, minlength=len(names))
    classes = np.stack([positives, sizes - positives])
    large = np.flatnonzero(sizes > 1)
    first = np.zeros(len(names), dtype=bool)
    if len(large):
        own, held = classes[:, large], (classes[:, large] > 0).astype(np.float64)
        shares = np.array([fraction, 1.0 - fraction])
        weight = sizes[large].astype(np.float64)
        roles = allocate(own[0], own[1], held.T, weight, shares, seed=seed, every_role=False)
        first[large] = roles == 0
    rng = np.random.default_rng(seed)
    for images in classes:
        has = images > 0
        # Groups of one image even out what the large ones left, in one draw: there may be a million of them.
        loose = rng.permutation(np.flatnonzero(has & (sizes == 1)))
        wanted = fraction * np.array([images.sum(), has.sum()])
        if not wanted[0]:
            continue
        missing = wanted - [images[first].sum(), has[first].sum()]
        trust = 1.0 / wanted
        least = int(not has[first].any())
        most = len(loose) - int(not (has & ~first & (sizes > 1)).any() and (has[first].any() or len(loose) > 1))
        first[loose[: round(float(np.clip(trust @ missing / trust.sum(), least, max(least, most))))]] = True
        if not has[first].any():
            # The calibrator cannot be fitted without a class; a certificate can be refused.
            first[np.flatnonzero(has)[np.argmin(sizes[has])]] = True
    return np.asarray(first[inverse], dtype=bool)
