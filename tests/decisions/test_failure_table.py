"""Every measure against max-probability: figures, paired intervals, and what is called chosen."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from workzone.decisions.failure import MLP, FailureModel, compare_measures
from workzone.errors import BundleError
from workzone.metrics import auroc_f
from workzone.metrics.selective import augrc, auprc_f
from workzone.predictions import sigmoid


def sample(n: int = 800, *, told: float, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    u = 2.0 * np.sign(rng.normal(size=n)) + rng.normal(size=n)
    p = sigmoid(u)
    wrong = rng.random(n) < np.minimum(p, 1 - p) + 0.05
    measures = {
        "max_probability": np.maximum(p, 1 - p),
        "mutual_information": told * wrong + rng.normal(size=n),
        "p_norm_max_logit": told * wrong + rng.normal(size=n),
    }
    return measures, wrong, np.array([f"g{i // 2}" for i in range(n)])


def rows(table: dict) -> dict:
    return {row["name"]: row for row in table["rows"]}


def test_values_are_those_of_the_metrics_and_measures_point_the_right_way() -> None:
    measures, wrong, groups = sample(told=2.0)
    found = rows(compare_measures(measures, wrong, groups))
    for name, sign in (("max_probability", 1), ("mutual_information", -1), ("p_norm_max_logit", -1)):
        trust = sign * measures[name]
        assert found[name]["auroc"]["value"] == pytest.approx(auroc_f(~wrong, trust), abs=1e-12)
        assert found[name]["auprc"]["value"] == pytest.approx(auprc_f(~wrong, trust), abs=1e-12)
        assert found[name]["augrc"]["value"] == pytest.approx(augrc(~wrong, trust), abs=1e-12)
        assert found[name]["auroc"]["value"] > 0.6


def test_a_telling_measure_is_better_and_the_gate_on_it_is_chosen() -> None:
    measures, wrong, groups = sample(told=2.0)
    table = compare_measures(measures, wrong, groups)
    found = rows(table)
    assert found["mutual_information"]["better"]
    assert found["logistic gate"]["better"]
    assert found["logistic gate"]["chosen"]
    assert table["used"] == "logistic gate"
    assert [r["name"] for r in table["rows"] if r["chosen"]] == ["logistic gate"]
    assert "better beyond the interval" in found["logistic gate"]["sentence"]
    assert found["logistic gate"]["difference"]["augrc"]["high"] < 0.0
    assert table["n"] == 800
    assert table["groups"] == 400
    json.dumps(table, allow_nan=False)


def test_an_uninformative_gate_is_not_chosen() -> None:
    measures, wrong, groups = sample(told=0.0)
    table = compare_measures(measures, wrong, groups)
    found = rows(table)
    assert table["used"] == "max_probability"
    assert not found["logistic gate"]["better"]
    assert "No gate (logistic gate) finds them better" in table["sentence"]
    assert found["max_probability"]["difference"]["auroc"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    # Chance is inside the interval of what is pure noise, and max-probability is above it.
    assert found["mutual_information"]["auroc"]["low"] < 0.5 < found["mutual_information"]["auroc"]["high"]
    assert found["mutual_information"]["difference"]["auroc"]["high"] < 0.0


def test_differences_are_paired() -> None:
    measures, wrong, groups = sample(told=0.0)
    p = measures["max_probability"]
    measures["entropy"] = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    row = rows(compare_measures(measures, wrong, groups))["entropy"]
    # Entropy ranks as max-probability does: no resample can tell them apart, though each varies by itself.
    assert row["auroc"]["high"] - row["auroc"]["low"] > 0.05
    assert abs(row["difference"]["auroc"]["low"]) < 1e-12
    assert abs(row["difference"]["auroc"]["high"]) < 1e-12


def test_groups_widen_the_interval() -> None:
    measures, wrong, _ = sample(200, told=1.0)
    several = {k: np.repeat(v, 4) for k, v in measures.items()}
    images, copies = np.arange(800).astype(str), np.repeat(np.arange(200), 4).astype(str)

    def width(groups: np.ndarray) -> float:
        a = rows(compare_measures(several, np.repeat(wrong, 4), groups, models={}))["mutual_information"]["auroc"]
        return float(a["high"] - a["low"])

    assert width(copies) > 1.6 * width(images)


def test_inputs_and_used_are_obeyed() -> None:
    measures, wrong, groups = sample(told=2.0)
    measures["of my own"] = measures["mutual_information"]
    table = compare_measures(measures, wrong, groups, inputs=("max_probability",), used="mutual_information")
    found = rows(table)
    assert found["of my own"]["auroc"] == found["mutual_information"]["auroc"]
    assert "of my own" not in compare_measures(measures, wrong, groups)["inputs"]
    assert table["inputs"] == ["max_probability"]
    assert not found["logistic gate"]["better"]
    assert found["mutual_information"]["chosen"]
    with pytest.raises(ValueError, match="none of the rows"):
        compare_measures(measures, wrong, groups, used="mlp gate")
    with pytest.raises(ValueError, match="reference"):
        compare_measures({"entropy": measures["mutual_information"]}, wrong, groups)


def test_too_few_mistakes_are_no_table() -> None:
    measures, wrong, groups = sample(told=1.0)
    none = np.zeros_like(wrong)
    for few in (none, ~none):
        table = compare_measures(measures, few, groups)
        assert table["rows"] == []
        assert "at least 10 of each are needed" in table["sentence"]
        assert table["used"] == "max_probability"


def test_many_images_take_about_as_long() -> None:
    measures, wrong, groups = sample(20_000, told=1.0)
    start = time.process_time()
    table = compare_measures(measures, wrong, groups)
    assert table["resamples"] == 200
    assert time.process_time() - start < 8.0


def mlp() -> MLP:
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(5, 2)), rng.normal(size=5)), (rng.normal(size=(1, 5)), rng.normal(size=1))]
    return MLP.build(("entropy", "vacuity"), np.array([0.5, 0.1]), np.array([0.2, 3.0]), layers)


def test_network_by_hand() -> None:
    model = mlp()
    x = np.array([[0.3, 0.2], [0.6, -4.0]])
    (w, b), (v, c) = model.layers
    z = (x - [0.5, 0.1]) / [0.2, 3.0]
    expected = [sum(v[0, j] * max(0.0, w[j] @ row + b[j]) for j in range(5)) + c[0] for row in z]
    assert model.log_odds(x) == pytest.approx(expected, abs=1e-12)
    assert model(x) == pytest.approx(sigmoid(np.array(expected)), abs=1e-9)
    assert np.isfinite(model(1e300 * x)).all()
    assert model(1e300 * x).max() < 1.0


def test_stored_network_survives_bit_for_bit_and_refuses_what_is_impossible() -> None:
    model = mlp()
    text = json.dumps(model.to_dict())
    again = MLP.from_dict(json.loads(text))
    assert json.dumps(again.to_dict()) == text
    assert all(
        np.array_equal(a, b) for m, n in zip(model.layers, again.layers, strict=True) for a, b in zip(m, n, strict=True)
    )
    stored = json.loads(text)
    layer = stored["layers"][0]
    long = {"weights": [[0.0, 0.0]] * 257, "bias": [0.0] * 257}
    for change in (
        {"layers": []},
        {"layers": [layer] * 5},
        {"layers": [layer]},
        {"layers": [long, {"weights": [[0.0] * 257], "bias": [0.0]}]},
        {"layers": [{**layer, "weights": layer["weights"][:-1]}, stored["layers"][1]]},
        {"layers": [{**layer, "bias": [float("inf")] * 5}, stored["layers"][1]]},
        {"layers": [{**layer, "weights": [[1e99, 0.0]] * 5}, stored["layers"][1]]},
        {"layers": [{**layer, "weights": [["0", 0.0]] * 5}, stored["layers"][1]]},
        {"layers": "none"},
        {"scale": [1.0, -1.0]},
        {"names": ["mood", "entropy"]},
        {"surprise": 1},
    ):
        with pytest.raises(BundleError):
            MLP.from_dict({**stored, **change})


def test_the_readers_do_not_take_each_other_for_themselves() -> None:
    with pytest.raises(BundleError):
        FailureModel.from_dict(mlp().to_dict())
