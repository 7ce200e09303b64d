"""Each risk that a policy promises, counted by hand on ten images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workzone.decisions.policies as policies
from workzone.data.roles import CalibData
from workzone.decisions import SelectivePolicy
from workzone.decisions.certificate import Guarantee
from workzone.decisions.types import Decisions
from workzone.evaluation.figures import Draws, Part
from workzone.evaluation.promises import measure_promise, measure_promises
from workzone.predictions import sigmoid

DRAWS = Draws(200, "percentile", 0.95, False, 0)
Y = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
CODES = [1, 1, 0, -1, 0, 0, 0, 1, -1, -1]
# Columns no_roadwork, roadwork; the sets of images 2, 7 and 9 lack the true label.
SETS = [[0, 1], [0, 1], [1, 0], [1, 1], [1, 0], [1, 0], [1, 0], [0, 1], [1, 1], [0, 0]]
SELECTED = [1, 1, 1, 0, 1, 1, 1, 1, 0, 1]
GROUPS = list("aabbccddee")


def part() -> Part:
    codes = np.array(CODES, dtype=np.int8)
    return Part(np.array(Y), np.where(codes == 1, 0.9, 0.1), codes, np.array(GROUPS))


def promise(risk: str, **values: Any) -> Guarantee:
    given: dict[str, Any] = {"risk": risk, "status": "certified", "alpha": 0.5, "delta": 0.05, "method": "by hand"}
    return Guarantee(**(given | {"n": 100, "errors": 0, "bound": 0.01} | values))


RISKS = {
    "false_negative_rate": (1, 4),
    "false_positive_rate": (1, 6),
    "selective_error": (2, 7),
    "abstention": (3, 10),
    "miscoverage": (3, 10),
    "miscoverage_roadwork": (1, 4),
    "miscoverage_no_roadwork": (2, 6),
    "selected_miscoverage": (3, 8),
}
BY_GROUP = {
    "false_negative_rate": (1, 2),
    "false_positive_rate": (1, 3),
    "miscoverage": (3, 5),
    "miscoverage_roadwork": (1, 2),
    "miscoverage_no_roadwork": (2, 3),
}


@pytest.mark.parametrize(
    ("unit", "risk", "expected"),
    [("image", r, v) for r, v in RISKS.items()] + [("group", r, v) for r, v in BY_GROUP.items()],
)
def test_a_risk_is_counted_by_its_definition(unit: str, risk: str, expected: tuple[int, int]) -> None:
    sets, selected = np.array(SETS, dtype=bool), np.array(SELECTED, dtype=bool)
    found = measure_promise(promise(risk, unit=unit), part(), DRAWS, sets=sets, selected=selected)
    events, n = expected
    assert (found.events, found.measured.n) == expected
    assert found.measured.value == pytest.approx(events / n)
    assert found.measured.low < events / n < found.measured.high
    assert found.above == (events / n > 0.5)


def test_every_risk_that_a_policy_names_is_measured() -> None:
    named: set[str] = set()
    for path in Path(str(policies.__file__)).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for value in re.findall(r"risk=(.*?),?\n", text):
            named |= set(re.findall(r'"([a-z_]+)"', value)) - {"low"}
        for names in re.findall(r'names = \(("false.*?)\)', text):
            named |= set(re.findall(r'"([a-z_]+)"', names))
    assert {"selective_error", "selected_miscoverage", "miscoverage", "abstention"} <= named
    assert named <= set(RISKS), "a risk has no case by hand"


@pytest.mark.parametrize(("alpha", "verdict"), [(0.5, "at or below"), (0.2, "chance allows"), (0.0001, "than chance")])
def test_a_promise_in_expectation_is_worded_as_one(alpha: float, verdict: str) -> None:
    for kind, delta in (("expectation", 1.0), ("confidence", 0.05)):
        g = promise("false_negative_rate", alpha=alpha, kind=kind, delta=delta)
        found = measure_promise(g, part(), DRAWS)
        assert verdict in found.verdict
        assert ("mean over draws" in found.verdict) == (kind == "expectation")


def test_what_cannot_be_measured_says_why() -> None:
    bare = part()
    assert measure_promise(promise("miscoverage"), bare, DRAWS).verdict == "not measured on these images"
    assert measure_promise(promise("happiness"), bare, DRAWS).verdict == "not measured on these images"
    negatives = bare.take(bare.y == 0)
    assert "lack this class" in measure_promise(promise("false_negative_rate"), negatives, DRAWS).verdict
    silent = Part(bare.y, bare.p, np.full(10, -1, dtype=np.int8), bare.groups)
    assert measure_promise(promise("selective_error"), silent, DRAWS).verdict == "not measured: no image was answered"
    blank = Decisions(bare.codes, bare.p, np.array(SETS, dtype=bool), ["abstained: not selected by entropy"] * 10)
    (found,) = measure_promises([promise("selected_miscoverage")], bare, blank, DRAWS)
    assert found.verdict == "not measured: no image was selected"


def test_the_selected_of_a_real_policy_are_those_it_did_not_turn_away() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    z = (2 * y - 1) * 2 + rng.normal(0, 1.5, 400)
    policy = SelectivePolicy(alpha=0.2, selected=0.6).fit(CalibData.from_arrays(y, z), sigmoid(z))
    decided = policy.decide(sigmoid(z))
    everything = Part(y, sigmoid(z), decided.codes, np.arange(400).astype(str))
    (found,) = measure_promises(policy.guarantees, everything, decided, DRAWS)
    selected = np.maximum(sigmoid(z), 1 - sigmoid(z)) >= -policy.cut
    assert found.measured.n == int(selected.sum()) < 400
    assert found.events == int((~decided.sets[np.arange(400), y] & selected).sum())
