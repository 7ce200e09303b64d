"""The failure gate is used where it is better beyond its interval, and says so where it is not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from workzone.data.roles import CalibData
from workzone.decisions import Code, create, from_dict
from workzone.decisions.failure import FailureModel, compare
from workzone.decisions.policies.gate import GatePolicy
from workzone.errors import BundleError, DataError
from workzone.files import canonical_json
from workzone.predictions import sigmoid


def sample(n: int = 1200, *, told: float, seed: int = 0) -> tuple[CalibData, np.ndarray, dict[str, np.ndarray]]:
    """Scores with mistakes; ``told`` is how far the disagreement of views gives them away."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.5).astype(int)
    u = 3.0 * (y - 0.5) + rng.normal(size=n)
    wrong = (u >= 0) != (y == 1)
    p = sigmoid(u)
    doubt = told * wrong + rng.normal(size=n)
    measures = {"max_probability": np.maximum(p, 1 - p), "mutual_information": doubt, "view_variance": rng.random(n)}
    return CalibData.from_arrays(y, u, groups=[f"g{i // 2}" for i in range(n)]), p, measures


def fitted(told: float, **options: Any) -> tuple[GatePolicy, CalibData, np.ndarray, dict[str, np.ndarray]]:
    data, p, measures = sample(told=told)
    policy = create("gate", **options)
    assert isinstance(policy, GatePolicy)
    return policy.fit(data, p, measures), data, p, measures


def test_an_informative_gate_is_used_and_decides_more_than_the_probability_alone() -> None:
    policy, data, p, measures = fitted(3.0, target_risk=0.03)
    assert policy.needs == ("max_probability", "view_variance", "mutual_information")
    assert policy.comparison is not None
    assert policy.comparison.better
    assert "is used" in policy.comparison.sentence()
    d = policy.decide(p, measures)
    wrong = (d.codes == 1) != (data.labels == 1)
    assert policy.guarantees[0].status == "certified"
    assert (wrong & d.accepted).sum() / d.accepted.sum() <= 0.03
    plain = create("sgr", target_risk=0.03).fit(data, p).decide(p)
    assert d.accepted.mean() > plain.accepted.mean() + 0.05


@pytest.mark.parametrize("told", [0.0, 0.1])
def test_an_uninformative_gate_is_not_used_and_says_so(told: float) -> None:
    policy, data, p, _ = fitted(told)
    assert policy.needs == ()
    assert policy.comparison is not None
    assert not policy.comparison.better
    assert "not better beyond the interval, so max-probability is used" in policy.comparison.sentence()
    assert len(policy.decide(p)) == len(data)


def test_too_few_mistakes_are_no_comparison() -> None:
    data, p, measures = sample(60, told=5.0)
    policy = create("gate").fit(data, p, measures)
    assert isinstance(policy, GatePolicy)
    assert policy.comparison is not None
    assert policy.comparison.model is None
    assert "too few" in policy.comparison.sentence()


def test_measures_are_required_where_they_are_used() -> None:
    policy, _, p, measures = fitted(3.0)
    with pytest.raises(DataError, match="needs the uncertainty measure"):
        policy.decide(p)
    with pytest.raises(DataError, match="mutual_information"):
        policy.decide(p, {k: v for k, v in measures.items() if k != "mutual_information"})
    with pytest.raises(DataError, match="not finite"):
        policy.decide(p, {**measures, "view_variance": np.full(len(p), np.nan)})
    with pytest.raises(ValueError, match="shape"):
        policy.decide(p, {**measures, "view_variance": np.zeros(3)})
    data, p, measures = sample(told=1.0)
    for given in (None, {}, {"mood": p}):
        with pytest.raises(DataError, match="needs uncertainty measures"):
            create("gate").fit(data, p, given)
    one = CalibData.from_arrays(data.labels, data.scores, groups=["g"] * len(data))
    with pytest.raises(DataError, match="two groups"):
        create("gate").fit(one, p, measures)


def test_the_stored_gate_decides_alike_and_refuses_what_was_changed() -> None:
    policy, _, p, measures = fitted(3.0)
    text = canonical_json(policy.to_dict())
    again = from_dict(json.loads(text))
    assert canonical_json(again.to_dict()) == text
    assert again.needs == policy.needs
    assert np.array_equal(policy.decide(p, measures).codes, again.decide(p, measures).codes)
    model = json.loads(text)["parameters"]["model"]
    for change in (
        {"names": ["mood"] * 3},
        {"names": ["entropy"] * 3},
        {"scale": [1.0, 0.0, 1.0]},
        {"weights": [1.0]},
        {"intercept": "0"},
        {"mean": [1e99, 0.0, 0.0]},
        {"surprise": 1},
    ):
        stored = json.loads(text)
        stored["parameters"]["model"] = {**model, **change}
        with pytest.raises(BundleError):
            from_dict(stored)
    stored = json.loads(text)
    stored["parameters"]["model"] = None
    with pytest.raises(BundleError, match="contradicts itself"):
        from_dict(stored)


def test_order_of_images_does_not_matter_to_a_used_gate() -> None:
    policy, data, p, measures = fitted(3.0)
    order = np.random.default_rng(1).permutation(len(data))
    other = create("gate").fit(data.take(order), p[order], {k: v[order] for k, v in measures.items()})
    assert other.to_dict() == policy.to_dict()


def test_reasons_name_the_gate() -> None:
    policy, _, p, measures = fitted(3.0, target_risk=0.02)
    d = policy.decide(p, measures)
    assert {r for r, c in zip(d.reasons, d.codes, strict=True) if c == Code.ABSTAIN} == {
        "abstained: stopped by the failure gate"
    }


@pytest.mark.parity
def test_weights_agree_with_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)) * [1.0, 5.0, 0.1] + [0.0, 2.0, -1.0]
    wrong = rng.random(300) < sigmoid(x[:, 0] - 2)
    ours = FailureModel.fit(("entropy", "view_variance", "max_minus_mean"), x, wrong)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    theirs = linear.LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(z, wrong)
    assert ours.weights == pytest.approx(theirs.coef_[0], abs=1e-5)
    assert ours(x) == pytest.approx(theirs.predict_proba(z)[:, 1], abs=1e-5)


def test_constant_measures_and_separable_mistakes_are_harmless() -> None:
    wrong = np.arange(100) < 20
    x = np.column_stack([np.full(100, 0.3), np.where(wrong, 1.0, 0.0)])
    model = FailureModel.fit(("entropy", "view_variance"), x, wrong)
    assert model.weights[0] == 0.0
    assert model(x)[wrong].min() > model(x)[~wrong].max()
    assert np.isfinite(model(1e9 * x)).all()
    assert model(1e9 * x).max() < 1.0


@pytest.mark.stat
def test_chance_alone_rarely_chooses_the_gate() -> None:
    chosen = 0
    for seed in range(12):
        data, p, measures = sample(300, told=0.0, seed=seed)
        wrong = (p >= 0.5) != (data.labels == 1)
        x = np.column_stack([measures["mutual_information"], measures["view_variance"]])
        chosen += compare(("mutual_information", "view_variance"), x, wrong, np.minimum(p, 1 - p), data.groups).better
    # At most 2.5 % if the gate were as good as the probability; here it is worse.
    assert chosen <= 1
