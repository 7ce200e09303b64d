from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from conftest import pictures, scored
from workzone.errors import LeakageError
from workzone.streetvision.challenges import Scored, source_weights, stream
from workzone.streetvision.report import simulate, write_simulation
from workzone.streetvision.simulate import Rule, choose, costs, earn, make_streams, require_disjoint
from workzone.vision.streetvision.transforms import PROTOCOLS


def test_stream_is_half_roadwork_whatever_the_data() -> None:
    few = replace(
        scored(np.linspace(0, 1, 100)),
        pictures=replace(pictures(100), labels=np.r_[np.ones(5), np.zeros(95)].astype(int)),
    )
    found = stream(few, challenges=4000, runs=3, seed=0)
    assert found.labels.mean() == pytest.approx(0.5, abs=0.02)
    assert (few.pictures.labels[found.image] == found.labels).all()
    assert np.bincount(found.level.ravel(), minlength=4) / found.level.size == pytest.approx([0.25] * 4, abs=0.02)
    again, other = (stream(few, challenges=4000, runs=3, seed=s) for s in (0, 1))
    assert np.array_equal(found.image, again.image)
    assert not np.array_equal(found.image, other.image)


def test_the_last_version_sends_base_views_only() -> None:
    found = stream(scored(np.linspace(0, 1, 20), protocol="0.4.1"), challenges=200, runs=2, seed=0)
    assert set(found.level.ravel().tolist()) == {0}


def test_sources_are_mixed_where_the_column_names_them() -> None:
    kinds = ["synthetic"] * 2 + ["real"] * 8 + ["synthetic"] * 5 + ["real"] * 5
    named = pictures(20, {"source": kinds})
    weights, sentence = source_weights(named, PROTOCOLS["2.0.4"])
    assert "mixed" in sentence
    positive = named.labels == 1
    synthetic = np.array(kinds) == "synthetic"
    assert weights[positive & synthetic].sum() == pytest.approx(weights[positive & ~synthetic].sum())
    weights, sentence = source_weights(pictures(20, {"source": ["other"] * 20}), PROTOCOLS["2.0.4"])
    assert "not simulated" in sentence
    assert (weights == 1).all()


def test_missing_source_is_said() -> None:
    weights, sentence = source_weights(pictures(20, {"source": ["real"] * 20}), PROTOCOLS["0.4.1"])
    assert "benchmark, synthetic" in sentence
    assert (weights > 0).all()


@pytest.mark.stat
def test_known_rates_earn_the_known_reward(rates: Scored) -> None:
    streams = make_streams(rates, challenges=2000, runs=20, seed=0)
    found = earn(rates, streams, Rule())
    assert found.tpr == pytest.approx(0.98, abs=0.005)
    assert found.tnr == pytest.approx(0.98, abs=0.005)
    assert found.reward.value == pytest.approx(0.916, abs=0.008)
    assert found.reward.low < found.reward.value < found.reward.high
    assert found.sd_step == pytest.approx(0.078, abs=0.015)
    assert found.score == pytest.approx(found.reward.value, abs=0.01)
    assert found.sd_run < found.sd_step / 4
    # Another 100 images would have other rates: that chance is in the interval and not in the spread of runs.
    assert found.reward.high - found.reward.low > 4 * found.sd_run


def test_rules() -> None:
    p, codes = np.array([0.1, 0.45, 0.5, 0.55, 0.9, np.nan]), np.array([0, -1, -1, -1, 1, -1], dtype=np.int8)
    assert Rule().answers(p, codes).tolist() == [0, 0, 0, 1, 1, -1]
    assert Rule(0.9).answers(p, codes).tolist() == [0, 0, 0, 0, 0, -1]
    assert Rule(width=0.5).answers(p, codes).tolist() == [0, -1, -1, -1, 1, -1]
    assert Rule(by_policy=True).answers(p, codes).tolist() == [0, -1, -1, -1, 1, -1]


def test_choice_finds_the_threshold_that_separates() -> None:
    rng = np.random.default_rng(0)
    p = np.r_[rng.uniform(0.2, 0.9, 100), rng.uniform(0.01, 0.2, 100)]
    found = choose(scored(p), challenges=500, runs=4, seed=0)
    # The candidates are quantiles, so the best one may cut off a score or two.
    assert 0.17 < found.always.threshold < 0.24
    assert not found.rule.by_policy
    assert found.reward > 0.97
    assert found.curve[0.5] < 0.5


def test_silence_is_chosen_only_where_it_pays() -> None:
    good = np.r_[np.full(95, 0.95), np.full(5, 0.55), np.full(95, 0.05), np.full(5, 0.45)]
    assert choose(scored(good), challenges=500, runs=4, seed=0).rule.width == 0
    bad = np.r_[np.full(97, 0.95), np.full(3, 0.45), np.full(97, 0.05), np.full(3, 0.55)]
    chosen = choose(scored(bad), challenges=500, runs=4, seed=0)
    answers = chosen.rule.answers(scored(bad).probability, scored(bad).codes)
    assert (answers[97:100] == -1).all() or chosen.rule.width == 0


def test_costs_name_the_kind_that_is_answered_wrongly() -> None:
    columns = {"weather": ["rain"] * 10 + ["clear"] * 90}
    p = np.r_[np.full(10, 0.1), np.full(40, 0.9), np.full(50, 0.1)]
    table = scored(p, columns=columns)
    table.probability[:, 3] = np.where(np.arange(100)[:, None] < 50, 0.1, 0.9)  # level 3 is all wrong
    streams = make_streams(table, challenges=500, runs=10, seed=0)
    found = costs(table, streams, Rule())
    by_kind = {(c.column, c.kind): c for c in found}
    assert found[0].cost.value == max(c.cost.value for c in found)
    assert (found[0].column, found[0].kind) == ("level", "3")
    assert by_kind["level", "3"].tpr == 0
    rain = by_kind["weather", "rain"]
    assert rain.tpr == 0
    assert rain.images == 10
    assert rain.cost.value > 0.03
    assert rain.share == pytest.approx(0.1, abs=0.02)


def test_images_that_chose_must_not_report() -> None:
    with pytest.raises(LeakageError, match="10 images"):
        require_disjoint(scored(np.full(10, 0.5)), scored(np.full(10, 0.5)))
    require_disjoint(scored(np.full(10, 0.5), prefix="a"), scored(np.full(10, 0.5)))


def test_report_is_written(rates: Scored, tmp_path: Path) -> None:
    import json

    streams = make_streams(rates, challenges=300, runs=20, seed=0)
    choice = choose(rates, challenges=300, runs=2, seed=1)
    found = simulate("b", rates, streams, challenges=300, runs=20, draws=2, seed=0, choice=choice)
    write_simulation(found, tmp_path)
    record = json.loads((tmp_path / "simulation.json").read_text())
    assert record["n"] == 100
    assert record["n_positive"] == 50
    first = record["earnings"][0]
    assert (first["threshold"], first["width"], first["by_policy"]) == (0.5, 0.0, False)
    assert first["reward"]["low"] <= first["reward"]["value"] <= first["reward"]["high"]
    assert {p["threshold"] for p in record["curve"]} >= {0.5}
    assert (tmp_path / "simulation.png").read_bytes().startswith(b"\x89PNG")
    assert "mean reward" in found.sentence()
