"""Evidence per place over time, and the events it makes: begun by sightings, kept by repetition, cleared by absence."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workzone.maps.geometry import along, to_xyz
from workzone.maps.sightings import Sightings
from workzone.predictions import FloatArray, IntArray

Status = Literal["active", "unconfirmed", "cleared", "expired"]
DAY = 86_400.0
_NAMESPACE = uuid.UUID("6f0f2c1e-3a64-4d0b-9a53-2d1a7c4b90e1")
_CAP = 3.0
"""Most log-odds that one pass can add or take: frames of one pass look at one thing, so they are not independent."""


@dataclass(frozen=True, slots=True)
class EventSettings:
    """How sightings become events.

    Attributes:
        link: metres between sightings that belong to one place.
        reach: metres within which a decision speaks about a place.
        gap: seconds after which a drive that comes back makes a new pass.
        passes: passes with roadwork that an event needs, unless a person confirmed it.
        clears: passes without roadwork after the last one with it that clear a place.
        ttl: days after the last sighting until an event expires.
        half_life: days until a pass counts half.
        prior: share of places with roadwork that evidence starts from.
        prevalence: share of roadwork among the images the probabilities were calibrated on.
    """

    link: float = 60.0
    reach: float = 40.0
    gap: float = 600.0
    passes: int = 2
    clears: int = 2
    ttl: float = 14.0
    half_life: float = 14.0
    prior: float = 0.02
    prevalence: float = 0.2

    def __post_init__(self) -> None:
        positive = (self.link, self.reach, self.gap, self.ttl, self.half_life)
        if min(positive) <= 0 or self.passes < 1 or self.clears < 1:
            raise ValueError("distances, times and numbers of passes must be positive")
        if not (0 < self.prior < 1 and 0 < self.prevalence < 1):
            raise ValueError("prior and prevalence must lie strictly between 0 and 1")


@dataclass(frozen=True, slots=True)
class Check:
    """What a person saw at a place: position, time (seconds since 1970), and whether there is roadwork."""

    latitude: float
    longitude: float
    time: float
    roadwork: bool


@dataclass(frozen=True, slots=True)
class Event:
    """One place with roadwork.

    Attributes:
        points: (K, 2) longitude and latitude along the place, K >= 1.
        start, last_seen, ends: seconds since 1970 UTC; ``ends`` is the last sighting and the time to live.
        confidence: belief from all passes, faded by age; a score for ranking, no certified probability.
        passes: passes that saw roadwork.
        sightings: decisions 'roadwork' among them.
        negatives: passes that saw none, abstentions: decisions that were left open.
        checked: whether a person confirmed it.
    """

    id: str
    points: tuple[tuple[float, float], ...]
    start: float
    last_seen: float
    ends: float
    confidence: float
    passes: int
    sightings: int
    negatives: int
    abstentions: int
    checked: bool
    status: Status


def find_events(
    s: Sightings, settings: EventSettings, *, now: float | None = None, checks: Sequence[Check] = ()
) -> list[Event]:
    """Events of all places that were ever seen with roadwork, the surest first.

    Cost is N log N: sightings are binned to cells of a few metres, cells within ``link`` are joined, and every decision
    is given to the nearest place within ``reach``.

    Args:
        s: decisions.
        settings: how they become events.
        now: seconds since 1970; the last decision where None.
        checks: what people saw; a check outweighs all earlier passes.
    """
    seen = s.decision == "roadwork"
    if not seen.any():
        return []
    today = float(s.time.max()) if now is None else now
    cells, place_of_cell = _places(s.latitude[seen], s.longitude[seen], settings.link)
    place = _nearest(cells, place_of_cell, s.latitude, s.longitude, settings.reach)
    passes = _passes(s, place, settings)
    n = int(place_of_cell.max()) + 1
    age = np.maximum(today - passes.time, 0.0) / DAY
    faded = passes.evidence * 0.5 ** (age / settings.half_life)
    start = math.log(settings.prior / (1 - settings.prior))
    belief = start + np.bincount(passes.place, faded, n)
    confirmed, refuted = _checked(cells, place_of_cell, checks, settings.reach, n)
    rows = _Rows(s, place, passes, n)
    last = np.maximum(rows.last, confirmed)
    later = ~passes.positive & (passes.time > rows.last[passes.place])
    absent = np.bincount(passes.place[later], minlength=n) >= settings.clears
    cleared = (absent | (refuted > last)) & (confirmed < np.maximum(refuted, rows.last_negative))
    expired = last + settings.ttl * DAY < today
    checked = (confirmed > refuted) & np.isfinite(confirmed)
    # Age lowers the confidence, but only absence or the time to live ends an event.
    strength = np.bincount(passes.place, np.where(passes.positive, passes.evidence, 0.0), n) + start
    active = checked | ((rows.passes >= settings.passes) & (strength > 0))
    events = []
    for p in range(n):
        status: Status = (
            "cleared" if cleared[p] else "expired" if expired[p] else "active" if active[p] else "unconfirmed"
        )
        points = along(s.longitude, s.latitude, rows.members(p))
        name = f"{points[0][0]:.4f},{points[0][1]:.4f},{int(rows.first[p] // DAY)}"
        events.append(
            Event(
                str(uuid.uuid5(_NAMESPACE, name)),
                points,
                float(rows.first[p]),
                float(last[p]),
                float(last[p] + settings.ttl * DAY),
                float(1 / (1 + math.exp(-min(max(belief[p], -30), 30)))),
                int(rows.passes[p]),
                int(rows.sightings[p]),
                int(rows.negatives[p]),
                int(rows.abstentions[p]),
                bool(checked[p]),
                status,
            )
        )
    order = {"active": 0, "unconfirmed": 1, "expired": 2, "cleared": 3}
    return sorted(events, key=lambda e: (order[e.status], -e.confidence, e.id))


@dataclass(frozen=True, slots=True)
class _Passes:
    place: IntArray
    time: FloatArray
    positive: NDArray[np.bool_]
    evidence: FloatArray


class _Rows:
    """Counts of every place, and which sightings made it."""

    def __init__(self, s: Sightings, place: IntArray, passes: _Passes, n: int) -> None:
        near = place >= 0
        seen = near & (s.decision == "roadwork")
        self.sightings = np.bincount(place[seen], minlength=n)
        self.abstentions = np.bincount(place[near & (s.decision == "abstain")], minlength=n)
        self.passes = np.bincount(passes.place[passes.positive], minlength=n)
        self.negatives = np.bincount(passes.place[~passes.positive], minlength=n)
        self.first, self.last = np.full(n, np.inf), np.full(n, -np.inf)
        np.minimum.at(self.first, place[seen], s.time[seen])
        np.maximum.at(self.last, place[seen], s.time[seen])
        self.last_negative = np.full(n, -np.inf)
        np.maximum.at(self.last_negative, passes.place[~passes.positive], passes.time[~passes.positive])
        index = np.flatnonzero(seen)
        self._order = index[np.argsort(place[index], kind="stable")]
        self._ends = np.r_[0, np.cumsum(self.sightings)]

    def members(self, p: int) -> IntArray:
        """Rows of the sightings of roadwork at place ``p``."""
        return self._order[self._ends[p] : self._ends[p + 1]]


def _places(latitude: FloatArray, longitude: FloatArray, link: float) -> tuple[FloatArray, IntArray]:
    """Centres (C, 3) of occupied cells in metres on the sphere, and the place (C,) each belongs to."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    xyz = to_xyz(latitude, longitude)
    bins = np.floor(xyz / min(10.0, link / 4)).astype(np.int64)
    _, cell = np.unique(bins, axis=0, return_inverse=True)
    cell = cell.ravel()
    count = np.bincount(cell)
    centres = np.stack([np.bincount(cell, xyz[:, i]) / count for i in range(3)], axis=1)
    pairs = cKDTree(centres).query_pairs(link, output_type="ndarray")
    graph = coo_matrix((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(centres),) * 2)
    return centres, connected_components(graph, directed=False)[1].astype(np.int64)


def _nearest(
    cells: FloatArray, place_of_cell: IntArray, latitude: FloatArray, longitude: FloatArray, reach: float
) -> IntArray:
    """Place (N,) within ``reach`` metres, -1 where there is none."""
    from scipy.spatial import cKDTree

    distance, at = cKDTree(cells).query(to_xyz(latitude, longitude), distance_upper_bound=reach)
    known = np.isfinite(distance)
    return np.where(known, place_of_cell[np.where(known, at, 0)], -1)


def _passes(s: Sightings, place: IntArray, settings: EventSettings) -> _Passes:
    """One row per drive past a place: when, whether roadwork was decided, and its evidence in log-odds."""
    used = np.flatnonzero((place >= 0) & (s.decision != "abstain"))
    drive = np.unique(s.drive[used], return_inverse=True)[1]
    sort = np.lexsort((s.time[used], drive, place[used]))
    order = used[sort]
    where, who, when = place[order], drive[sort], s.time[order]
    fresh = np.r_[True, (np.diff(where) != 0) | (np.diff(who) != 0) | (np.diff(when) > settings.gap)]
    start = np.flatnonzero(fresh)
    size = np.diff(np.r_[start, len(order)])
    p = np.clip(s.probability[order], 1e-6, 1 - 1e-6)
    base = math.log(settings.prevalence / (1 - settings.prevalence))
    ratio = np.log(p / (1 - p)) - base
    evidence = np.clip(np.add.reduceat(ratio, start) / size, -_CAP, _CAP)
    positive = np.add.reduceat((s.decision[order] == "roadwork").astype(np.int64), start) > 0
    return _Passes(where[start], np.maximum.reduceat(when, start), positive, evidence)


def _checked(
    cells: FloatArray, place_of_cell: IntArray, checks: Sequence[Check], reach: float, n: int
) -> tuple[FloatArray, FloatArray]:
    """Latest confirmation and refutation (n,) of each place by a person, -inf where there is none."""
    confirmed, refuted = np.full(n, -np.inf), np.full(n, -np.inf)
    if checks:
        latitude = np.array([c.latitude for c in checks])
        longitude = np.array([c.longitude for c in checks])
        for check, p in zip(checks, _nearest(cells, place_of_cell, latitude, longitude, reach).tolist(), strict=True):
            if p >= 0:
                target = confirmed if check.roadwork else refuted
                target[p] = max(target[p], check.time)
    return confirmed, refuted
