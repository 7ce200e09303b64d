"""What can never work is refused when the configuration is read, and phase decide writes what it compared."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

from workzone.config.load import load_config
from workzone.config.run import BY_GROUP, NEEDS_VIEWS
from workzone.data.roles import CalibData
from workzone.decisions import POLICIES
from workzone.decisions.policies.gate import GatePolicy
from workzone.decisions.uncertainty import MEASURES, from_views
from workzone.errors import ConfigError
from workzone.pipeline.phases.decide import compare_uncertainty, make_policy, measures
from workzone.predictions import Predictions, sigmoid

ONE_VIEW = ("views.layout=global",)


def words(tmp_path: Path, *more: str) -> list[str]:
    return ["data=synthetic", f"out={tmp_path / 'run'}", *more]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("decide.policy=gate", *ONE_VIEW), "policy 'gate' compares the views"),
        (
            ("decide.policy=scrc", "decide.select_by=mutual_information", *ONE_VIEW),
            "decide.select_by=mutual_information",
        ),
        (("decide.policy=sgr", "decide.unit=group"), "promise about images only"),
        (("decide.policy=gate", "decide.unit=group"), "promise about images only"),
        (("decide.policy=gate", "decide.gate_model=forest"), "decide.gate_model"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, more: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config(words(tmp_path, *more))


@pytest.mark.parametrize(
    "more",
    [
        ("decide.policy=gate",),
        ("decide.policy=gate", "views.layout=global", "views.flip=true"),
        ("decide.policy=gate", "views.layout=global", "views.scales=[1.0,1.5]"),
        ("decide.policy=scrc", *ONE_VIEW),
        ("decide.policy=scrc", "decide.select_by=entropy", *ONE_VIEW),
        ("decide.policy=sgr", *ONE_VIEW),
        ("decide.policy=mondrian", "decide.unit=group"),
        ("decide.policy=threshold", "decide.max_abstention=0.1"),
    ],
)
def test_what_can_work_is_not(tmp_path: Path, more: tuple[str, ...]) -> None:
    config = load_config(words(tmp_path, *more))
    assert make_policy(config).name == config.decide.policy


def test_the_lists_of_the_configuration_are_those_of_the_policies() -> None:
    by_group = {name for name, cls in POLICIES.items() if "unit" in inspect.signature(cls).parameters}
    assert set(BY_GROUP) == by_group | {"argmax"}
    rng = np.random.default_rng(0)
    u = rng.normal(size=(50, 1))
    found = from_views(sigmoid(u[:, 0]), u)
    assert {name for name, values in found.items() if np.ptp(values) == 0.0} == set(NEEDS_VIEWS)


def test_the_network_is_handed_in_only_where_it_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    plain = make_policy(load_config(words(tmp_path, "decide.policy=gate")))
    network = make_policy(load_config(words(tmp_path, "decide.policy=gate", "decide.gate_model=mlp")))
    assert isinstance(plain, GatePolicy)
    assert isinstance(network, GatePolicy)
    assert (plain.gate_model, plain.fit_model) == ("logistic", None)
    assert network.gate_model == "mlp"
    assert network.fit_model is not None


def scored(n: int = 300) -> tuple[Predictions, CalibData, np.ndarray]:
    rng = np.random.default_rng(0)
    y = (rng.random(n) < 0.5).astype(int)
    views = 1.5 * (2 * y - 1)[:, None] + 1.2 * rng.normal(size=(n, 1)) + rng.normal(size=(n, 5))
    data = CalibData.from_arrays(y, views.mean(axis=1), groups=[f"g{i // 2}" for i in range(n)])
    spread = {"embedding_variance": rng.random(n).astype(object)}
    return Predictions(data.ids, data.scores, data.labels, views, columns=spread), data, sigmoid(data.scores)


def test_the_table_of_phase_decide(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    predictions, data, p = scored()
    measured = measures(predictions, data, p)
    assert measured is not None
    policy = make_policy(load_config(words(tmp_path, "decide.policy=gate"))).fit(data, p, measured)
    table = compare_uncertainty(predictions, data, p, measured, policy, seed=0)
    names = [row["name"] for row in table["rows"]]
    assert names == [m for m in MEASURES if m != "vacuity"] + ["logistic gate", "mlp gate"]
    assert "embedding_variance" not in table["inputs"]
    assert isinstance(policy, GatePolicy)
    assert policy.comparison is not None
    assert table["gate"] == policy.comparison.sentence()
    assert table["used"] == ("logistic gate" if policy.comparison.better else "max_probability")
    order = np.random.default_rng(1).permutation(len(data))
    moved = {k: v[order] for k, v in measured.items()}
    assert compare_uncertainty(predictions, data.take(order), p[order], moved, policy, seed=0) == table


def test_the_table_names_what_another_policy_uses(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    predictions, data, p = scored()
    measured = measures(predictions, data, p)
    chosen = load_config(words(tmp_path, "decide.policy=scrc", "decide.select_by=view_variance"))
    policy = make_policy(chosen).fit(data, p, measured)
    table = compare_uncertainty(predictions, data, p, measured, policy, seed=0)
    assert (table["used"], table["gate"]) == ("view_variance", None)
    assert [r["name"] for r in table["rows"] if r["chosen"]] == ["view_variance"]
    without = compare_uncertainty(predictions, data, p, None, policy, seed=0)
    assert without["rows"] == []
    assert "not scored" in without["sentence"]
