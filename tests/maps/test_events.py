from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from workzone.errors import DataError
from workzone.maps import EventSettings, Sightings, find_events
from workzone.maps.events import DAY, Check
from workzone.maps.geometry import EARTH, along, to_xyz
from workzone.maps.sightings import join

LAT, LON = 50.0, 8.0
METRE = 360.0 / (2 * math.pi * EARTH)


def drive(name: str, day: float, decision: str = "roadwork", p: float = 0.95, at: float = 0.0, n: int = 3) -> Sightings:
    """One pass: n frames, ten metres apart, northward from ``at`` metres."""
    metres = at + 10.0 * np.arange(n)
    return Sightings(
        LAT + metres * METRE,
        np.full(n, LON),
        day * DAY + np.arange(n, dtype=np.float64),
        np.full(n, p),
        np.full(n, decision),
        np.full(n, name),
    )


def status(*parts: Sightings, now: float = 10 * DAY, checks: tuple[Check, ...] = (), **settings: float) -> list[str]:
    return [e.status for e in find_events(join(parts), EventSettings(**settings), now=now, checks=checks)]


def test_two_passes_make_an_event_and_many_frames_of_one_do_not() -> None:
    assert status(drive("a", 9, n=60)) == ["unconfirmed"]
    assert status(drive("a", 9), drive("b", 9.5)) == ["active"]
    assert status(drive("a", 9), drive("a", 9.5)) == ["active"]  # the same van, hours later
    assert status(drive("a", 9), passes=1, prior=0.2) == ["active"]


def test_weak_sightings_do_not_add_up_to_a_belief() -> None:
    assert status(drive("a", 9, p=0.22), drive("b", 9.5, p=0.22)) == ["unconfirmed"]


def test_abstentions_never_make_or_clear_an_event() -> None:
    assert status(drive("a", 9, "abstain", 0.6), drive("b", 9.5, "abstain", 0.6)) == []
    seen = [drive("a", 8), drive("b", 8.5)]
    left_open = [drive(str(i), 9 + i / 10, "abstain", 0.3) for i in range(5)]
    events = find_events(join([*seen, *left_open]), EventSettings(), now=10 * DAY)
    assert [e.status for e in events] == ["active"]
    assert events[0].abstentions == 15


def test_passes_without_roadwork_clear_a_place_and_a_new_sighting_opens_it_again() -> None:
    seen = [drive("a", 5), drive("b", 5.5)]
    gone = [drive(str(i), 7 + i, "no_roadwork", 0.02) for i in range(2)]
    assert status(*seen, gone[0]) == ["active"]
    assert status(*seen, *gone) == ["cleared"]
    assert status(*seen, *gone, drive("c", 9), drive("d", 9.5)) == ["active"]
    far = [drive(str(i), 7 + i, "no_roadwork", 0.02, at=500) for i in range(4)]
    assert status(*seen, *far) == ["active"]


def test_events_expire_unless_seen_again() -> None:
    seen = [drive("a", 1), drive("b", 2)]
    assert status(*seen, now=15 * DAY) == ["active"]
    assert status(*seen, now=17 * DAY) == ["expired"]
    assert status(*seen, drive("c", 12), now=17 * DAY) == ["active"]


def test_a_person_confirms_and_refutes() -> None:
    once = drive("a", 9)
    here = Check(LAT, LON, 9.5 * DAY, True)
    assert status(once, checks=(here,)) == ["active"]
    assert status(once, drive("b", 9.2), checks=(replace(here, roadwork=False),)) == ["cleared"]
    assert status(once, checks=(replace(here, latitude=LAT + 1),)) == ["unconfirmed"]
    events = find_events(once, EventSettings(), now=10 * DAY, checks=(here,))
    assert events[0].checked
    assert events[0].last_seen == 9.5 * DAY


def test_places_are_joined_by_distance_and_kept_apart() -> None:
    parts = [drive(v, d, at=at) for v, d in (("a", 9), ("b", 9.5)) for at in (0, 50, 300)]
    events = find_events(join(parts), EventSettings(), now=10 * DAY)
    assert sorted(e.passes for e in events) == [2, 2]
    assert sorted(e.sightings for e in events) == [6, 12]
    lengths = sorted(abs(e.points[-1][1] - e.points[0][1]) / METRE for e in events)
    assert lengths == pytest.approx([20, 70], abs=0.5)


def test_the_date_line_is_no_border() -> None:
    def at(lon: float, name: str) -> Sightings:
        return replace(drive(name, 9, n=1), longitude=np.array([lon]))

    assert status(at(179.9999, "a"), at(-179.9999, "b")) == ["active"]


def test_ids_are_stable_when_more_is_seen() -> None:
    first = find_events(join([drive("a", 9), drive("b", 9.2)]), EventSettings(), now=10 * DAY)
    later = find_events(join([drive("a", 9), drive("b", 9.2), drive("c", 9.4)]), EventSettings(), now=10 * DAY)
    assert first[0].id == later[0].id
    assert first == find_events(join([drive("b", 9.2), drive("a", 9)]), EventSettings(), now=10 * DAY)


def test_geometry() -> None:
    a, b = to_xyz(np.array([50.0, 50.0 + METRE * 100]), np.array([8.0, 8.0]))
    assert np.linalg.norm(a - b) == pytest.approx(100.0, abs=1e-3)
    lon, lat = np.array([8.0, 8.002, 8.001, 8.0]), np.full(4, 50.0)
    assert [p[0] for p in along(lon, lat, np.arange(4))] in ([8.0, 8.001, 8.002], [8.002, 8.001, 8.0])


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        EventSettings(link=0)
    with pytest.raises(DataError, match="outside"):
        replace(drive("a", 1), latitude=np.full(3, 91.0))
    assert find_events(join([drive("a", 1, "no_roadwork", 0.1)]), EventSettings()) == []
