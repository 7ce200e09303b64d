from __future__ import annotations

from typing import Any

import pytest
from promised import Make, promise

from workzone.bundle import schema
from workzone.errors import CheckFailedError
from workzone.monitoring.void import mark_path, write_mark
from workzone.registry.gates import judge
from workzone.registry.store import Registry


def gates(*args: Any) -> dict[str, bool | None]:
    return {g.name: g.passed for g in judge(*args)}


def test_a_broken_bundle_is_not_judged_further(make: Make) -> None:
    bundle = make("one")
    (bundle / "policy.json").write_text("{}")
    assert gates(bundle, None) == {"verify": False}


@pytest.mark.parametrize(("ours", "theirs", "passed"), [(0.05, 0.1, True), (0.1, 0.05, False), (None, 0.05, False)])
def test_promises_of_the_champion_are_kept(make: Make, ours: float | None, theirs: float, passed: bool) -> None:
    assert gates(make("new", alpha=ours), make("old", alpha=theirs))["certificate"] is passed


@pytest.mark.parametrize(("limit", "passed"), [(0.05, True), (0.04, False)])
def test_the_limit_asked_for_is_promised(make: Make, limit: float, passed: bool) -> None:
    assert gates(make("new", alpha=0.05), None, {"false_negative_rate": limit})["certificate"] is passed


@pytest.mark.parametrize(("value", "passed"), [(0.86, True), (0.84, False)])
def test_figures_must_not_fall_below_the_interval(make: Make, value: float, passed: bool) -> None:
    new, old = make("new", auroc=(value, 0.8, 0.95)), make("old", auroc=(0.9, 0.85, 0.95))
    assert gates(new, old)["figures"] is passed


def test_figures_on_other_images_are_not_compared(make: Make) -> None:
    new, old = make("new", auroc=(0.1, 0.0, 0.2), test_images="f" * 64), make("old", auroc=(0.9, 0.85, 0.95))
    assert gates(new, old)["figures"] is None


@pytest.mark.parametrize(("low", "passed"), [(0.04, True), (0.06, False)])
def test_test_images_must_not_contradict_a_promise(make: Make, low: float, passed: bool) -> None:
    told = {**promise(0.05), "measured": {"low": low, "high": 0.2, "value": 0.1, "text": f"0.1 [{low}, 0.2]"}}
    bundle = make("one", alpha=0.05, metrics=lambda m: m.update(promises=[told]))
    assert gates(bundle, None)["promises on the test images"] is passed


def test_parity(make: Make) -> None:
    assert gates(make("good"), None)["parity"] is True
    assert gates(make("far", parity=lambda p: p.update(max_difference=1.0)), None)["parity"] is False
    assert gates(make("other", parity=lambda p: p["decisions_equal"].update(torch=False)), None)["parity"] is False
    assert gates(make("silent", parity=lambda p: p.pop("tolerance") and None), None)["parity"] is False


def test_a_failed_gate_stops_unless_a_reason_is_given(registry: Registry, make: Make) -> None:
    registry.promote(registry.add(make("old", alpha=0.05)))
    registry.add(make("new", alpha=0.2))
    with pytest.raises(CheckFailedError, match="the champion promises"):
        registry.promote("1.1.0")
    assert registry.state().aliases == {"champion": "1.0.0"}
    registry.promote("1.1.0", force="emergency, agreed by two people")
    last = registry.entries()[-1].values
    assert last["force"] == "emergency, agreed by two people"
    assert [g["name"] for g in last["gates"] if g["passed"] is False] == ["certificate"]


def test_no_reason_is_good_enough_for_a_broken_bundle(registry: Registry, make: Make) -> None:
    registry.add(make("one"))
    (registry.folder("1.0.0") / "policy.json").write_text("{}")
    with pytest.raises(CheckFailedError, match="verify"):
        registry.promote("1.0.0", force="please")


def test_a_void_certificate_is_not_promoted(registry: Registry, make: Make) -> None:
    registry.add(make("one"))
    folder = registry.folder("1.0.0")
    write_mark(mark_path(folder), schema.read_manifest(folder).sha256, ["refuted"], [{}])
    with pytest.raises(CheckFailedError, match="refuted"):
        registry.promote("1.0.0")
