"""One battery for every policy of the registry, then what is special to each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from workzone.calibration import create as create_calibrator
from workzone.data.roles import CalibData, SelectData, TestData, TrainData
from workzone.decisions import POLICIES, REFUSED, Code, Guarantee, Policy, create, from_dict
from workzone.decisions.cascade import Band, Plan, Point
from workzone.decisions.policies.argmax import ArgmaxPolicy
from workzone.decisions.policies.threshold import ThresholdPolicy
from workzone.decisions.uncertainty import binary_entropy
from workzone.errors import BundleError, CheckFailedError, ConfigError, DataError, LeakageError
from workzone.files import canonical_json
from workzone.predictions import Predictions, logit, sigmoid


def scored(n: int, *, separation: float = 3.0, prevalence: float = 0.5, seed: int = 0) -> tuple[CalibData, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (np.arange(n) < round(prevalence * n)).astype(int)
    u = separation * (y - 0.5) + rng.normal(size=n)
    return CalibData.from_arrays(y, u), sigmoid(u)


def measures(p: np.ndarray) -> dict[str, np.ndarray]:
    """Uncertainty measures that say no more than the probability."""
    return {"entropy": binary_entropy(p), "view_variance": 0.1 + 0.1 * np.sin(1e6 * p), "stage_1": logit(p)}


def two_stages() -> Plan:
    """A cascade whose first look says as much as all views."""
    points = (Point((Band(),), 1.0, 0.05), Point((Band(0.1, 0.95),), 0.7, 0.05), Point((Band(0.5, 0.5),), 0.5, 0.05))
    return Plan((0, 1), (1, 2), (create_calibrator("none"),), points)


ROWS: dict[str, Callable[[], Policy]] = {
    "argmax": lambda: create("argmax"),
    "argmax, remapped": lambda: create("argmax", remap=True),
    "threshold": lambda: create("threshold"),
    "threshold, both promises": lambda: create("threshold", target_fnr=0.05, target_fpr=0.05),
    "threshold, both abstain": lambda: create(
        "threshold", target_fnr=1e-4, target_fpr=1e-4, if_not_certifiable="abstain"
    ),
    "threshold, uncertified": lambda: create("threshold", target_fnr=1e-4, target_fpr=1e-4),
    "threshold, by group": lambda: create("threshold", unit="group", target_fpr=0.02),
    "crc": lambda: create("crc", target_fpr=0.05),
    "crc, by group": lambda: create("crc", unit="group", target_fnr=0.05),
    "crc, abstain": lambda: create("crc", target_fnr=1e-4, if_not_certifiable="abstain"),
    "ltt": lambda: create("ltt", target_fnr=0.05, target_fpr=0.1, max_abstention=0.5),
    "ltt, holm": lambda: create("ltt", target_fnr=0.1, family="holm"),
    "ltt, bonferroni abstain": lambda: create(
        "ltt", target_fnr=1e-4, family="bonferroni", if_not_certifiable="abstain"
    ),
    "lac": lambda: create("lac"),
    "lac, empty sets": lambda: create("lac", alpha=0.3),
    "lac, uncertified": lambda: create("lac", alpha=1e-4),
    "lac, by group": lambda: create("lac", unit="group"),
    "mondrian": lambda: create("mondrian", alpha=0.1, alpha_roadwork=0.02),
    "mondrian, half abstain": lambda: create("mondrian", alpha_roadwork=1e-4, if_not_certifiable="abstain"),
    "aps": lambda: create("aps"),
    "aps, bold": lambda: create("aps", alpha=0.4),
    "scrc": lambda: create("scrc"),
    "scrc, expectation by entropy": lambda: create("scrc", promise="expectation", select_by="entropy"),
    "crcp": lambda: create("crcp", epsilon=0.02),
    "crcp, uncertified": lambda: create("crcp", alpha=1e-4),
    "sgr": lambda: create("sgr"),
    "sgr, uncertified": lambda: create("sgr", target_risk=1e-4),
    "sgr, abstain": lambda: create("sgr", target_risk=1e-4, if_not_certifiable="abstain"),
    "gate": lambda: create("gate"),
    "cascade": lambda: create("cascade"),
    "cascade, two stages": lambda: create("cascade", plan=two_stages(), target_fnr=0.05, budget=0.7),
    "cascade, uncertified": lambda: create("cascade", plan=two_stages(), target_fnr=1e-4, budget=0.5),
    "cascade, abstain by group": lambda: create(
        "cascade", plan=two_stages(), target_fnr=1e-4, budget=0.7, if_not_certifiable="abstain", unit="group"
    ),
}
ALL = pytest.mark.parametrize("row", list(ROWS))


def test_every_policy_has_a_row() -> None:
    assert {row.split(",")[0] for row in ROWS} == set(POLICIES)


@ALL
@pytest.mark.parametrize("separation", [0.5, 3.0, 12.0])
def test_decide_is_total_and_its_sets_agree(row: str, separation: float) -> None:
    data, known = scored(1200, separation=separation)
    policy = ROWS[row]().fit(data, known, measures(known))
    p = np.r_[0.0, 5e-324, np.linspace(0, 1, 2001), 1 - 1e-16, 1.0]
    d = policy.decide(p, measures(p))
    assert len(d) == len(d.reasons) == len(p)
    assert set(d.codes.tolist()) <= set(Code)
    assert (d.sets[d.codes == Code.NO_ROADWORK] == [True, False]).all()
    assert (d.sets[d.codes == Code.ROADWORK] == [False, True]).all()
    assert np.array_equal(d.accepted, d.sets.sum(axis=1) == 1)
    assert all(r.startswith("abstained: ") == (c == Code.ABSTAIN) for r, c in zip(d.reasons, d.codes, strict=True))
    empty = d.sets.sum(axis=1) == 0
    assert all(("empty" in r) == e for r, e in zip(d.reasons, empty, strict=True))
    # A higher probability never turns the answer away from roadwork.
    rank = np.select([d.codes == Code.NO_ROADWORK, d.codes == Code.ABSTAIN], [0, 1], 2)
    assert (np.diff(rank) >= 0).all()
    assert len(policy.decide(np.array([]), measures(np.array([])))) == 0


@ALL
def test_every_promise_says_what_it_promises(row: str) -> None:
    data, p = scored(1200)
    policy = ROWS[row]().fit(data, p, measures(p))
    if row.startswith("argmax"):
        assert policy.guarantees == ()
        return
    assert policy.guarantees
    in_expectation = row.startswith(("crc", "lac", "mondrian", "aps")) and not row.startswith("crcp")
    for g in policy.guarantees:
        assert g.kind == ("expectation" if in_expectation or "expectation" in row else "confidence")
        assert ("in expectation" in g.sentence().lower()) is (g.kind == "expectation")
        assert ("with confidence" in g.sentence().lower()) is (g.kind == "confidence")
        assert f"{g.alpha:.2%}" in g.sentence()
        assert Guarantee.model_validate_json(g.model_dump_json()) == g
        if g.status == "certified":
            assert g.errors <= g.n
            assert g.bound <= g.alpha
        elif "this one alone passes" not in g.reason:
            assert g.needed is not None
            assert g.needed > g.n
            assert g.needed_without_errors is not None
            assert str(g.needed_without_errors) in g.sentence()


@pytest.mark.parametrize("name", [n for n in POLICIES if n != "argmax"])
def test_stop_raises_where_the_promise_is_out_of_reach(name: str) -> None:
    key = {
        "threshold": "target_fnr",
        "crc": "target_fnr",
        "ltt": "target_fnr",
        "sgr": "target_risk",
        "gate": "target_risk",
        "cascade": "target_fnr",
    }
    data, p = scored(300)
    with pytest.raises(CheckFailedError, match="Not certifiable"):
        create(name, **{key.get(name, "alpha"): 1e-4}, if_not_certifiable="stop").fit(data, p, measures(p))


@ALL
def test_json_round_trip_is_bit_exact(row: str) -> None:
    data, p = scored(900)
    policy = ROWS[row]().fit(data, p, measures(p))
    text = canonical_json(policy.to_dict())
    again = from_dict(json.loads(text))
    assert canonical_json(again.to_dict()) == text
    first, second = policy.decide(p, measures(p)), again.decide(p, measures(p))
    assert np.array_equal(first.sets, second.sets)
    assert np.array_equal(first.codes, second.codes)
    assert list(first.reasons) == list(second.reasons)


@ALL
def test_stored_values_that_are_changed_are_refused(row: str) -> None:
    data, p = scored(900)
    stored = json.loads(canonical_json(ROWS[row]().fit(data, p, measures(p)).to_dict()))
    for key in stored["parameters"]:
        for wrong in ("?", [], {}, float("nan"), 1e13, -1e13):
            with pytest.raises(BundleError):
                from_dict({**stored, "parameters": {**stored["parameters"], key: wrong}})
    if not row.startswith("argmax"):
        with pytest.raises(BundleError):
            from_dict({**stored, "parameters": {**stored["parameters"], "surprise": 1}})


@ALL
@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1, np.inf])
def test_what_is_no_probability_is_refused(row: str, bad: float) -> None:
    data, p = scored(600)
    policy = ROWS[row]().fit(data, p, measures(p))
    with pytest.raises(DataError, match="not numbers in"):
        policy.decide(np.array([0.5, bad]), measures(np.array([0.5, 0.5])))
    with pytest.raises(DataError, match="not numbers in"):
        ROWS[row]().fit(data, np.r_[p[:-1], bad], measures(p))
    with pytest.raises(ValueError, match="shape"):
        ROWS[row]().fit(data, p[:-1], measures(p))


@ALL
@pytest.mark.parametrize("role", [TrainData, SelectData, TestData, Predictions, np.ndarray])
def test_only_calibration_data_are_taken(row: str, role: Any) -> None:
    data, p = scored(600)
    wrong: Any = data.scores
    if role is Predictions:
        wrong = Predictions(data.ids, data.scores, data.labels)
    elif role is not np.ndarray:
        wrong = role.from_arrays(data.labels, data.scores)
    with pytest.raises(LeakageError, match="policy"):
        ROWS[row]().fit(wrong, p, measures(p))


@ALL
def test_fit_does_not_depend_on_the_order_of_images(row: str) -> None:
    data, p = scored(700)
    order = np.random.default_rng(0).permutation(len(data))
    first = ROWS[row]().fit(data, p, measures(p))
    second = ROWS[row]().fit(data.take(order), p[order], measures(p[order]))
    assert first.to_dict() == second.to_dict()
    assert first.guarantees == second.guarantees


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_means_nothing_for_two_classes_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ConfigError, match="sets are those of aps"):
        create(name, k_reg=5)


def test_argmax_threshold() -> None:
    data, p = scored(600, separation=2.0)
    shifted = sigmoid(data.scores + 2.0)
    assert ArgmaxPolicy().fit(data, p).threshold == 0.5
    remapped = ArgmaxPolicy(remap=True).fit(data, shifted)
    assert remapped.threshold > 0.7
    assert ArgmaxPolicy().decide(np.array([0.5])).codes.tolist() == [Code.ROADWORK]
    with pytest.raises(DataError, match="both classes"):
        ArgmaxPolicy(remap=True).fit(CalibData.from_arrays([1, 1], [0.0, 1.0]), np.array([0.2, 0.4]))


def test_risks_that_are_proved_together_fail_together_and_say_which_one_is_to_blame() -> None:
    data, p = scored(1200)
    policy = create("ltt", target_fnr=0.05, target_fpr=1e-4, family="holm").fit(data, p)
    first, second = policy.guarantees
    assert first.status == second.status == "not_certifiable"
    assert "this one alone passes" in first.reason
    assert second.needed is not None
    assert second.needed > second.n
    assert all("uncertified" in r for r in policy.decide(p).reasons)


def test_too_few_positives_is_not_certifiable_and_says_how_many_are_needed() -> None:
    policy = ThresholdPolicy().fit(*scored(200))
    (promise,) = policy.guarantees
    assert promise.status == "not_certifiable"
    assert (promise.n, promise.errors) == (100, 0)
    assert promise.needed == promise.needed_without_errors == 149
    assert promise.tightest == pytest.approx(1 - 0.05 ** (1 / 100))
    assert "149" in promise.sentence()
    assert "100 roadwork images" in promise.sentence()


def test_errors_at_the_safest_threshold_raise_the_number_needed() -> None:
    data, p = scored(360)
    p = p.copy()
    p[0] = 1e-7
    (promise,) = ThresholdPolicy().fit(data, p).guarantees
    assert promise.status == "not_certifiable"
    assert (promise.errors, promise.needed, promise.needed_without_errors) == (1, 236, 149)


@pytest.mark.parametrize(("positives", "certified"), [(148, False), (149, True)])
def test_the_boundary_lies_at_149_positives(positives: int, certified: bool) -> None:
    data, p = scored(positives + 100, separation=14.0, prevalence=positives / (positives + 100))
    assert (ThresholdPolicy().fit(data, p).guarantees[0].status == "certified") is certified


@pytest.mark.parametrize(("misses", "n"), [(0, 149), (1, 236), (2, 313), (3, 386)])
def test_published_sample_sizes(misses: int, n: int) -> None:
    from workzone.decisions.risk import allowed_errors

    assert allowed_errors(n, 0.02, 0.05) == misses
    assert allowed_errors(n - 1, 0.02, 0.05) == misses - 1


def test_uncertified_decides_everything_and_says_so() -> None:
    data, p = scored(200)
    policy = ThresholdPolicy().fit(data, p)
    d = policy.decide(p)
    assert d.accepted.all()
    assert all("uncertified" in reason for reason in d.reasons)
    assert policy.coverage == 1.0


def test_abstain_withholds_only_what_needs_the_promise() -> None:
    data, p = scored(200)
    d = ThresholdPolicy(if_not_certifiable="abstain").fit(data, p).decide(p)
    assert not (d.codes == Code.NO_ROADWORK).any()
    assert (d.codes == Code.ROADWORK).any()
    both = ThresholdPolicy(target_fpr=0.001, if_not_certifiable="abstain").fit(data, p)
    assert not both.decide(p).accepted.any()
    assert both.coverage == 0.0
    assert not both.meets_min_coverage


def test_stop_raises_with_the_reason() -> None:
    with pytest.raises(CheckFailedError, match="149"):
        ThresholdPolicy(if_not_certifiable="stop").fit(*scored(200))
    ThresholdPolicy(if_not_certifiable="stop").fit(*scored(900))


def test_certified_thresholds_meet_their_targets_on_the_sample() -> None:
    data, p = scored(3000, separation=2.0)
    policy = ThresholdPolicy(target_fnr=0.02, target_fpr=0.03).fit(data, p)
    assert [g.status for g in policy.guarantees] == ["certified", "certified"]
    d = policy.decide(p)
    y = data.labels
    misses = int(((d.codes == Code.NO_ROADWORK) & (y == 1)).sum())
    alarms = int(((d.codes == Code.ROADWORK) & (y == 0)).sum())
    assert [g.errors for g in policy.guarantees] == [misses, alarms]
    assert all(g.errors / g.n <= g.bound <= g.alpha for g in policy.guarantees)
    assert 0.3 < policy.coverage < 1.0
    assert policy.coverage == d.accepted.mean()
    assert policy.coverage_low < policy.coverage


def test_nothing_abstains_where_the_promises_overlap() -> None:
    data, p = scored(3000, separation=7.0)
    policy = ThresholdPolicy(target_fnr=0.02, target_fpr=0.02).fit(data, p)
    assert policy.low is not None
    assert policy.high is not None
    assert policy.low.threshold == policy.high.threshold
    assert policy.coverage == 1.0
    assert all(g.status == "certified" and g.bound <= g.alpha for g in policy.guarantees)


def test_without_a_false_positive_target_nothing_is_promised_about_it() -> None:
    policy = ThresholdPolicy().fit(*scored(1200, separation=2.0))
    assert [g.risk for g in policy.guarantees] == ["false_negative_rate"]
    assert policy.parameters()["high_status"] == "none"


def test_a_certified_upper_threshold_survives_an_uncertified_lower_one() -> None:
    data, p = scored(1000, separation=2.0, prevalence=0.1)
    policy = ThresholdPolicy(target_fpr=0.01).fit(data, p)
    low, high = policy.guarantees
    assert (low.status, high.status) == ("not_certifiable", "certified")
    d = policy.decide(p)
    alarms = int(((d.codes == Code.ROADWORK) & (data.labels == 0)).sum())
    assert high.errors == alarms
    assert high.bound <= 0.01


def test_min_coverage_is_a_fact_and_changes_nothing() -> None:
    data, p = scored(900, separation=1.0)
    strict, loose = (ThresholdPolicy(min_coverage=c).fit(data, p) for c in (0.9, 0.1))
    assert not strict.meets_min_coverage
    assert loose.meets_min_coverage
    assert np.array_equal(strict.decide(p).codes, loose.decide(p).codes)


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="both classes"):
        ThresholdPolicy().fit(CalibData.from_arrays([0] * 5, np.arange(5.0)), np.linspace(0.1, 0.9, 5))


def test_deciding_before_fitting_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="fit first"):
        ThresholdPolicy().decide(np.array([0.5]))
    with pytest.raises(ValueError, match="fit first"):
        ThresholdPolicy().parameters()


@pytest.mark.parametrize(
    "options",
    [{"target_fnr": 0.0}, {"target_fpr": 1.0}, {"delta": 2}, {"min_coverage": 1.1}, {"unit": "pixel"}, {"alpha": 0.1}],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        create("threshold", **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lac", {"alpha": 0.0}),
        ("lac", {"unit": "frame"}),
        ("mondrian", {"alpha_roadwork": 1.0}),
        ("scrc", {"selected": 1.5}),
        ("scrc", {"promise": "certain"}),
        ("scrc", {"select_by": "mood"}),
        ("crcp", {"epsilon": 1.0}),
        ("crcp", {"unit": "group"}),
        ("sgr", {"target_risk": -0.1}),
        ("gate", {"delta": 0}),
        ("ltt", {"family": "none"}),
        ("ltt", {"max_abstention": 0.0}),
        ("crc", {"target_fnr": 2}),
    ],
)
def test_impossible_options_of_the_others_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        create(name, **options)


@pytest.mark.parametrize(
    "change",
    [
        {"t_low": 0.9, "t_high": 0.1},
        {"t_low": None},
        {"low_status": "none"},
        {"low_status": "withheld"},
        {"high_status": "sure"},
        {"high_status": ["certified"]},
        {"delta": 0.0},
        {"target_fnr": "0.02"},
        {"unit": None},
        {"coverage": 2.0},
        {"meets_min_coverage": None},
        {"meets_min_coverage": False, "coverage": 1.0},
        {"surprise": 1},
    ],
)
def test_tampered_thresholds_are_refused(change: dict[str, Any]) -> None:
    stored = ThresholdPolicy().fit(*scored(1200)).to_dict()
    stored["parameters"].update(change)
    with pytest.raises(BundleError):
        from_dict(stored)


@pytest.mark.parametrize(
    "stored",
    [
        [{"policy": "argmax", "parameters": {"threshold": 0.5}}],
        {"policy": "argmax", "parameters": {"threshold": 0.5}, "gate": {}},
        {"policy": ["argmax", "threshold"], "parameters": {}},
        {"policy": "oracle", "parameters": {}},
        {"policy": "argmax", "parameters": None},
        {"policy": "argmax", "parameters": {"threshold": 1.5}},
        None,
    ],
)
def test_exactly_one_known_policy(stored: Any) -> None:
    with pytest.raises(BundleError):
        from_dict(stored)


def test_the_thresholds_themselves_belong_to_the_upper_side() -> None:
    policy = ThresholdPolicy().fit(*scored(1200, separation=2.0))
    assert policy.low is not None
    assert policy.high is not None
    t_low, t_high = policy.low.threshold, policy.high.threshold
    assert t_low is not None
    assert t_high is not None
    assert t_low < t_high
    at = np.array([np.nextafter(t_low, 0), t_low, np.nextafter(t_high, 0), t_high])
    assert policy.decide(at).codes.tolist() == [Code.NO_ROADWORK, Code.ABSTAIN, Code.ABSTAIN, Code.ROADWORK]
