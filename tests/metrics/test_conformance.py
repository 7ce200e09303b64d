"""Every registered metric: degenerate samples, ranges, weights, resampling."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from workzone.metrics import METRICS, evaluate, evaluate_rows
from workzone.metrics.bootstrap import bootstrap
from workzone.metrics.sample import Rows, Sample

RNG = np.random.default_rng(0)
_Y = RNG.integers(0, 2, 60)


def _cases() -> dict[str, tuple[Any, Any]]:
    p = np.clip(0.5 + 0.25 * (2 * _Y - 1) + RNG.normal(0, 0.3, 60), 0, 1)
    return {
        "plain": (_Y, p),
        "ties": (_Y, np.round(p, 1)),
        "only_positives": (np.ones(30, dtype=int), p[:30]),
        "only_negatives": (np.zeros(30, dtype=int), p[:30]),
        "constant_score": (_Y, np.full(60, 0.3)),
        "saturated": (_Y, (p > 0.5).astype(float)),
        "saturated_right": (_Y, _Y.astype(float)),
        "saturated_wrong": (_Y, 1.0 - _Y),
        "one_image": (np.array([1]), np.array([0.7])),
        "two_images": (np.array([0, 1]), np.array([0.7, 0.2])),
        "empty": (np.array([], dtype=int), np.array([])),
    }


CASES = _cases()
ONE_CLASS = {"brier_skill", "auroc", "balanced_accuracy"}
# Where a metric is documented to be NaN, by case; everything else must be a number in range.
NAN = {
    "plain": {"mce"},
    "ties": {"mce"},
    "only_positives": ONE_CLASS | {"fpr", "specificity", "mce"},
    "only_negatives": ONE_CLASS | {"recall", "fnr", "average_precision", "mce"},
    "constant_score": {"precision"},
    "saturated": {"spiegelhalter_z"},
    "saturated_right": {"spiegelhalter_z", "auroc_f", "auprc_f"},
    "saturated_wrong": {"spiegelhalter_z", "auroc_f"},
    "one_image": ONE_CLASS | {"fpr", "specificity", "mce", "auroc_f", "auprc_f"},
    "two_images": {"mce", "auroc_f"},
}


@pytest.mark.parametrize("case", CASES)
def test_value_is_in_range_or_documented_nan(case: str) -> None:
    y, p = CASES[case]
    found = evaluate(y, p)
    assert found.keys() == METRICS.keys()
    if case == "empty":
        assert {name for name, v in found.items() if not np.isnan(v)} == {"mcc"}
        return
    undefined = {name for name, v in found.items() if np.isnan(v)}
    assert undefined == NAN.get(case, set())
    for name, value in found.items():
        low, high = METRICS[name].range
        assert np.isnan(value) or low - 1e-9 <= value <= high + 1e-9, name


@pytest.mark.parametrize("case", [c for c in CASES if c != "empty"])
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_of_every_metric_on_every_case(case: str, method: Any) -> None:
    y, p = CASES[case]
    for name, i in bootstrap(METRICS, y, p, n_resamples=40, method=method).items():
        assert i.n == len(y)
        if np.isnan(i.value):
            continue
        low, high = METRICS[name].range
        assert np.isnan(i.low) or low - 1e-9 <= i.low <= i.high <= high + 1e-9, name


@pytest.mark.parametrize("case", ["plain", "ties", "saturated", "two_images"])
@pytest.mark.parametrize("name", METRICS)
def test_integer_weights_equal_repeated_images(case: str, name: str) -> None:
    y, p = CASES[case]
    rng = np.random.default_rng(3)
    decided = (p + rng.normal(0, 0.2, len(p)) > 0.5).astype(int)
    weights = rng.multinomial(len(y), np.full(len(y), 1 / len(y)), size=25)
    found = evaluate_rows(y, p, weights, decided, [name])[name]
    for row, value in zip(weights, found, strict=True):
        index = np.repeat(np.arange(len(y)), row)
        if name in ("ece_equal_mass", "ece_debiased"):
            continue
        assert value == pytest.approx(
            evaluate(y[index], p[index], decided[index], [name])[name], nan_ok=True, abs=1e-12
        )


@pytest.mark.parametrize("name", ["ece_equal_mass", "ece_debiased"])
def test_equal_mass_bins_are_those_of_the_sample(name: str) -> None:
    y, p = CASES["plain"]
    edges = np.quantile(p, np.linspace(0, 1, 16)[1:-1])
    w = np.random.default_rng(4).multinomial(len(y), np.full(len(y), 1 / len(y)))
    i = np.repeat(np.arange(len(y)), w)
    total = 0.0
    for b in range(15):
        of_bin = i[np.searchsorted(edges, p[i], side="right") == b]
        k = len(of_bin)
        if name == "ece_equal_mass":
            total += abs((p[of_bin] - y[of_bin]).sum()) / len(i)
        elif k > 1:
            rate = y[of_bin].mean()
            total += k / len(i) * ((rate - p[of_bin].mean()) ** 2 - rate * (1 - rate) / (k - 1))
    expected = total if name == "ece_equal_mass" else np.sign(total) * np.sqrt(abs(total))
    assert evaluate(y, p, names=[name], weights=w)[name] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_order_of_images_does_not_matter(name: str) -> None:
    y, p = CASES["ties"]
    shuffle = np.random.default_rng(1).permutation(len(y))
    assert evaluate(y, p, names=[name])[name] == pytest.approx(
        evaluate(y[shuffle], p[shuffle], names=[name])[name], nan_ok=True
    )


# These depend on the number of images, or on the bins of the sample, and not on class shares alone.
COUNT_BOUND = {"ece_debiased", "mce", "spiegelhalter_z", "ece_equal_mass"}


@pytest.mark.parametrize("name", sorted(METRICS.keys() - COUNT_BOUND))
def test_stated_prevalence_equals_copies_of_the_rarer_class(name: str) -> None:
    y, p = np.r_[np.ones(20, dtype=int), np.zeros(40, dtype=int)], RNG.random(60)
    copies = np.r_[np.arange(20), np.arange(60)]
    found = evaluate(y, p, names=[name], prevalence=0.5)[name]
    assert found == pytest.approx(evaluate(y[copies], p[copies], names=[name])[name], abs=1e-9)


def test_stated_prevalence_needs_both_classes() -> None:
    y, p = CASES["only_positives"]
    found = evaluate(y, p, prevalence=0.5)
    assert np.isnan(found["accuracy"])
    assert np.isnan(found["brier"])


# Detection of mistakes is judged at its own error rate, so two models cannot be ordered by it.
DIRECTED = sorted(n for n, metric in METRICS.items() if metric.higher_is_better is not None and not n.endswith("_f"))


@pytest.mark.parametrize("name", DIRECTED)
def test_better_scores_move_in_the_stated_direction(name: str) -> None:
    better = METRICS[name].higher_is_better
    rng = np.random.default_rng(5)
    z = rng.normal(0, 4, 4000)
    y = (rng.random(4000) < 1 / (1 + np.exp(-z))).astype(int)
    right, noisy = (1 / (1 + np.exp(-s)) for s in (z, z + rng.normal(0, 4, 4000)))
    good, bad = (evaluate(y, q, names=[name])[name] for q in (right, noisy))
    assert (good > bad) if better else (good < bad)


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        ([0, 2], [0.1, 0.2], "only 0 and 1"),
        ([0, 1], [0.1, 1.2], "lie in"),
        ([0, 1], [0.1, float("nan")], "finite"),
        ([0, 1], [0.1], "shape"),
    ],
)
def test_wrong_input_is_refused(y: Any, p: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(y, p)


def test_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="did you mean 'auroc'"):
        evaluate([0, 1], [0.1, 0.2], names=["aurok"])


def test_int_and_float_weights_agree() -> None:
    y, p = CASES["ties"]
    s = Sample(y, p)
    w = np.random.default_rng(2).integers(0, 4, (7, len(y)))
    for metric in METRICS.values():
        np.testing.assert_allclose(metric.rows(Rows(s, w)), metric.rows(Rows(s, w.astype(float))), err_msg=metric.name)


def test_descriptions_name_kinds_and_needs() -> None:
    kinds = {"counts", "ranking", "probability", "calibration", "selective"}
    for metric in METRICS.values():
        assert metric.kind in kinds
        assert metric.needs
        assert metric.description
    assert len(set(itertools.chain(METRICS))) == len(METRICS)
