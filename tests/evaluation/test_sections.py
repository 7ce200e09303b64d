"""The parts of the report about choices: scores to abstain by, calibrators, ways to answer, and pages made apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from workzone.calibration import from_dict
from workzone.calibration.select import select
from workzone.config.run import EvaluateConfig
from workzone.data.roles import CalibData
from workzone.decisions import GatePolicy, SelectivePolicy, ThresholdPolicy
from workzone.decisions.types import Decisions
from workzone.decisions.uncertainty import from_views
from workzone.errors import DataError
from workzone.evaluation.calibrators import choice, lowest_of_test, on_test, read_methods
from workzone.evaluation.compare import compare, write_comparison
from workzone.evaluation.contrasts import contrasts, resamples_needed
from workzone.evaluation.evaluate import evaluate
from workzone.evaluation.figures import Draws
from workzone.evaluation.given import evaluated_from, load_given, save_scores
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.report.more import refresh, related
from workzone.evaluation.report.sections import calibrators, selective_table
from workzone.evaluation.selective import SELECTIVE_FIGURES, as_probability, policy_confidence, score_figures
from workzone.evaluation.summary import summarise
from workzone.metrics import selective
from workzone.predictions import sigmoid

Make = Callable[..., Evaluated]
DRAWS = Draws(200, "percentile", 0.95, True, 0)


def _quiet(_: str) -> None:
    return None


# Calibrators


def table(n: int = 600, seed: int = 0) -> tuple[CalibData, list[dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    z = 3 * ((2 * y - 1) + rng.normal(0, 1.2, n))
    data = CalibData.from_arrays(y, z)
    chosen = select(data, ("none", "temperature", "platt", "isotonic", "stack"), seed=0)
    rows = []
    for row in chosen.table:
        fitted = None if row.name != "stack" else _stack(data)
        rows.append({**row.to_dict(), "chosen": row.name == chosen.best.name, "fitted": fitted})
    return data, rows


def _stack(data: CalibData) -> dict[str, Any]:
    from workzone.calibration import create

    return create("stack").fit(data).to_dict()


def test_every_calibrator_is_told_with_its_errors_and_its_reason() -> None:
    data, rows = table()
    methods = read_methods(rows)
    assert methods[0].chosen
    assert {m.name for m in methods} == {"none", "temperature", "platt", "isotonic", "stack"}
    by_name = {m.name: m for m in methods}
    assert by_name["isotonic"].eligible is False
    assert sum(w for _, w in by_name["stack"].members) == pytest.approx(1)
    for m in methods:
        assert m.brier_se is not None
        assert m.brier_se > 0
        assert m.reason
    assert by_name["none"].cv_nll > methods[0].cv_nll  # type: ignore[operator]
    said = choice(methods)
    assert said.startswith(f"{methods[0].name} is in use (")
    scored = [m for m in methods if m.eligible]
    lowest = min(scored, key=lambda m: m.cv_nll or 0)
    assert ("one standard error" in said) == (lowest.name != methods[0].name)
    assert "would be chosen" in choice(methods, in_use=False)
    assert choice(()) == ""
    known = on_test(methods, {"none": sigmoid(data.scores)}, data.labels, DRAWS)
    test = {m.name: m.test for m in known}
    assert test["temperature"] is None
    assert test["none"] is not None
    assert test["none"].reading == "above chance", "the scores are three times too bold"


def test_the_simpler_of_equals_is_explained_in_words() -> None:
    rows = [
        {
            "name": "temperature",
            "n_parameters": 1,
            "cv_nll": 0.305,
            "excess": 0.005,
            "excess_se": 0.007,
            "chosen": True,
        },
        {"name": "beta", "n_parameters": 3, "cv_nll": 0.300, "excess": 0.0, "excess_se": 0.0, "chosen": False},
    ]
    said = choice(read_methods(rows))
    assert "although beta (3 parameters) has the lowest NLL out of fold, 0.300" in said
    assert "temperature is 0.0050 above it (standard error of that difference 0.0070)" in said
    lone = choice(read_methods(rows[:1]))
    assert lone == "temperature is in use (1 parameter): it is the only calibrator that was tried."


def test_the_page_shows_the_calibrators_and_their_picture(make: Make, quick: EvaluateConfig, tmp_path: Path) -> None:
    _, rows = table()
    e = make(150)
    e = make(150, calibrators=rows, calibrated={"temperature": e.probability, "none": sigmoid(1.3 * e.probability)})
    evaluate(e, quick, tmp_path, seed=0)
    assert (tmp_path / "calibrators.png").is_file()
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    shown = html[html.index("Calibrators that were tried") : html.index('<h2 id="comparisons">')]
    for row in rows:
        assert row["name"] in shown
        assert row["reason"] in shown
    stored = json.loads((tmp_path / "metrics_summary.json").read_text(encoding="utf-8"))["calibrators"]
    assert [m["test"] is not None for m in stored] == [m["name"] in ("temperature", "none") for m in stored]
    s = summarise(e, quick, seed=0, progress=_quiet)
    assert lowest_of_test(s.methods).startswith("On the images of this report") or not s.methods[0].test
    bare = make(60, calibrators=[{"name": "temperature", "chosen": True}])
    assert calibrators(bare, summarise(bare, quick, seed=0, progress=_quiet))["head"] == []


# Selective


def test_a_score_is_measured_as_the_metrics_do() -> None:
    rng = np.random.default_rng(0)
    right, confidence = rng.random(200) < 0.8, np.round(rng.normal(size=200), 1)
    groups = np.arange(200).astype(str)
    found = score_figures(right, confidence, groups, DRAWS, prevalence=0.3)
    assert set(found) == set(SELECTIVE_FIGURES)
    assert found["augrc"].value == pytest.approx(selective.augrc(right, confidence))
    assert found["auroc_f"].value == pytest.approx(selective.auroc_f(right, confidence))
    assert found["risk_at_coverage_80pct"].value == pytest.approx(selective.risk_at_coverage(right, confidence, 0.8))
    assert all(i.prevalence == 0.3 for i in found.values())
    as_p = as_probability(confidence)
    assert (np.sign(np.subtract.outer(as_p, as_p)) == np.sign(np.subtract.outer(confidence, confidence))).all()


def test_the_score_a_policy_abstains_by() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 600)
    spread = rng.exponential(1.0, 600)
    views = (2 * y - 1)[:, None] * 1.2 + spread[:, None] * rng.normal(0, 2, (600, 5))
    z = views.mean(axis=1)
    data, measures = CalibData.from_arrays(y, z), from_views(sigmoid(z), views)
    entropy = SelectivePolicy(alpha=0.3, select_by="view_variance").fit(data, sigmoid(z), measures)
    name, confidence = policy_confidence(entropy, sigmoid(z), views) or ("", np.zeros(0))
    assert name == "view variance"
    selected = np.array(
        [not r.startswith("abstained: not selected") for r in entropy.decide(sigmoid(z), measures).reasons]
    )
    assert confidence[selected].min() > confidence[~selected].max()
    gate = GatePolicy(target_risk=0.4).fit(data, sigmoid(z), measures)
    found = policy_confidence(gate, sigmoid(z), views)
    assert (found is None) == (gate.model is None)
    plain = ThresholdPolicy(target_fnr=0.2).fit(data, sigmoid(z))
    assert policy_confidence(plain, sigmoid(z), views) is None


def test_selective_table_holds_every_score(make: Make, quick: EvaluateConfig) -> None:
    e = make(200)
    wrong = e.argmax != e.labels
    oracle = ("oracle", np.where(wrong, 0.0, 1.0) + 1e-3 * np.arange(200))
    s = summarise(replace(e, confidence=oracle), quick.model_copy(update={"resamples": 400}), seed=0, progress=_quiet)
    t = selective_table(s)
    assert t["head"] == ["max(p, 1 - p)", "the policy's own score", "max(p, 1 - p), one view"]
    assert [row["title"] for row in t["rows"]][:5] == [
        "AURC",
        "e-AURC",
        "AUGRC",
        "e-AUGRC",
        "AUROC of finding mistakes",
    ]
    assert len(t["rows"]) == 5 + 5 + 4
    assert s.systems["policy_score"].natural["auroc_f"].value == 1
    (contrast,) = [c for c in s.contrasts if c.key == "score"]
    assert contrast.sentence.startswith("Oracle is better: AUGRC (lower is better)")


# Comparisons


def test_pairs_of_ways_to_answer(make: Make) -> None:
    e = make(300)
    noise = np.random.default_rng(1).normal(0, 4, 300)
    other = sigmoid(e.predictions.log_odds + noise)
    e = make(300, others={"openvino-int8": other}, recalibrated=("platt", e.probability))
    found = {c.key: c for c in contrasts(e, DRAWS)}
    assert list(found) == ["policy", "views", "engine openvino-int8", "calibration"]
    engine = found["engine openvino-int8"]
    assert engine.sentence.startswith("Onnxruntime is better: MCC")
    assert engine.mcnemar is not None
    assert engine.mcnemar.only_b == int((((other >= 0.5) != e.labels) & (e.argmax == e.labels)).sum())
    assert engine.delong is not None
    assert engine.delong.p < 0.01
    same = found["calibration"]
    assert (
        same.sentence
        == f"No difference can be told: NLL is {same.rows[0].difference.a.value:.3f} for both on these images."
    )
    assert same.delong is None
    for c in found.values():
        assert c.rows[0].p_holm is not None
        assert c.rows[0].p_holm >= c.rows[0].difference.p


def test_too_few_resamples_are_said() -> None:
    assert resamples_needed(3, replace(DRAWS, resamples=100)) == 120
    assert resamples_needed(3, replace(DRAWS, resamples=120)) is None


def test_the_policy_is_told_with_its_price(make: Make) -> None:
    e = make(250)
    c = next(c for c in contrasts(e, DRAWS) if c.key == "policy")
    wrong, half = e.decisions.accepted & (e.decisions.codes != e.labels), e.argmax != e.labels
    rows = {r.name: r.difference for r in c.rows}
    assert rows["wrong_of_all"].a.value == pytest.approx(half.mean())
    assert rows["wrong_of_all"].b.value == pytest.approx(wrong.mean())
    given = e.decisions.accepted
    assert rows["wrong_of_answered"].a.value == pytest.approx(half[given].mean())
    assert rows["wrong_of_answered"].b.value == pytest.approx(wrong[given].mean())
    assert f"avoids {int((half & ~wrong).sum())}" in c.more[0]
    assert f"{int((~given).sum())} of 250 images" in c.more[1]
    both = f"The policy answers {wrong.mean():.1%} of all images wrongly, against {half.mean():.1%}"
    assert c.sentence.startswith(both)
    alike = make(
        60, one_view=False, decisions=Decisions(e.argmax[:60] * 0, np.zeros(60), np.ones((60, 2), bool), ["x"] * 60)
    )
    alike = replace(alike, decisions=replace(alike.decisions, codes=alike.argmax))
    assert contrasts(alike, DRAWS) == ()


# Tables from elsewhere


def given_table(tmp_path: Path, name: str = "mine", **columns: Any) -> Path:
    rng = np.random.default_rng(0)
    n = 400
    y = rng.integers(0, 2, n)
    p = sigmoid(4 * ((2 * y - 1) + rng.normal(0, 1.5, n)))
    frame = pl.DataFrame({"id": [f"{i:03d}" for i in range(n)], "label": y, "probability": p, **columns})
    frame.write_csv(tmp_path / f"{name}.csv")
    return tmp_path / f"{name}.csv"


def test_a_calibration_split_is_kept_apart(tmp_path: Path) -> None:
    split = np.array(["train", "calibration", "Test", "test"])[np.arange(400) % 4]
    e = evaluated_from(load_given(given_table(tmp_path, split=split)))
    assert len(e) == 200
    assert {int(i) % 4 for i in e.predictions.ids.tolist()} == {2, 3}
    chosen = next(row for row in e.calibrators if row["chosen"])
    assert chosen["name"] != "none", "the scores are far too bold"
    assert e.recalibrated is not None
    assert e.recalibrated[0] == chosen["name"]
    fitted = from_dict(chosen["fitted"])
    assert e.recalibrated[1] == pytest.approx(fitted(e.predictions.log_odds))
    assert set(e.calibrated) >= {"none", "temperature", "platt", "beta", "stack"}
    assert "100 images" in e.calibration_note
    found = next(c for c in contrasts(e, DRAWS) if c.key == "calibration")
    assert found.sentence.startswith(f"{chosen['name'].capitalize()} is better: NLL")


def test_without_a_split_calibrators_are_judged_across_folds(tmp_path: Path) -> None:
    place = np.array(["harbour", "ring"])[np.arange(400) % 2]
    e = evaluated_from(load_given(given_table(tmp_path, source=place, split=place)))
    assert len(e) == 400, "words that name no split are slices"
    assert e.calibrated == {}
    assert e.recalibrated is None
    assert "names no calibration images" in e.calibration_note
    assert "per_dataset" in {row["name"] for row in e.calibrators}


def test_a_split_without_test_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names no test images"):
        evaluated_from(load_given(given_table(tmp_path, split=["train"] * 400)))


def test_few_images_are_evaluated_without_a_choice(tmp_path: Path) -> None:
    path = given_table(tmp_path)
    pl.read_csv(path, schema_overrides={"id": pl.String}).head(12).write_csv(path)
    e = evaluated_from(load_given(path))
    assert e.calibrators == ()
    assert "too few" in e.calibration_note


# Pages made apart


def test_a_report_lists_what_is_made_later(make: Make, quick: EvaluateConfig, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for seed, folder in enumerate((first, second)):
        e = make(80, seed=0, one_view=False)
        e = replace(e, probability=sigmoid(e.predictions.log_odds + np.random.default_rng(seed).normal(0, seed, 80)))
        evaluate(e, quick, folder, seed=0)
        save_scores(e, folder / "predictions.parquet")
    before = (first / "report.html").read_text(encoding="utf-8")
    assert "More about this detector" not in before
    found = compare(load_given(first), load_given(second), resamples=200)
    write_comparison(found, first / "compare" / "second")
    page = (first / "compare" / "second" / "comparison.html").read_text(encoding="utf-8")
    for to in ('href="../../report.html"', 'href="../../../second/report.html"'):
        assert to in page
    after = (first / "report.html").read_text(encoding="utf-8")
    assert 'href="compare/second/comparison.html"' in after
    assert "A: first, B: second" in after
    assert 'href="#more"' not in before
    assert after.count('href="#more"') == after.count('id="more"') == 1
    (entry,) = related(first)
    assert entry.sentence == found.verdict
    evaluate(make(80, one_view=False), quick, first, seed=0)
    assert 'href="compare/second/comparison.html"' in (first / "report.html").read_text(encoding="utf-8")
    (first / "compare" / "second" / "comparison.json").write_text("{", encoding="utf-8")
    assert related(first)[0].sentence == "comparison.json cannot be read."


def test_the_files_of_a_run_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "evaluate"
    folder.mkdir(parents=True)
    report = "<!-- more --><!-- /more --><!-- pages -->\n<!-- /pages -->"
    (folder / "report.html").write_text(report, encoding="utf-8")
    (folder / "robustness.json").write_text('{"sentence": "Breaks <first>."}', encoding="utf-8")
    other = tmp_path / "run" / "compare" / "b"
    other.mkdir(parents=True)
    (other / "comparison.html").write_text("", encoding="utf-8")
    (other / "comparison.json").write_text('{"verdict": "B is better."}', encoding="utf-8")
    (tmp_path / "run" / "run.json").write_text("{}", encoding="utf-8")
    assert not refresh(folder)
    assert (folder / "report.html").read_text(encoding="utf-8") == report
    assert [p.href for p in related(folder)] == ["robustness.json", "../compare/b/comparison.html"]
    (tmp_path / "run" / "run.json").unlink()
    assert refresh(folder)
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "Breaks &lt;first&gt;." in html
    assert html.startswith('<!-- more --><a href="#more">More about this detector</a><!-- /more --><!-- pages -->')
    assert html.endswith("<!-- /pages -->")
    assert not refresh(tmp_path)
    # Reports of before the mark of the link are brought up to date without it; a link goes with its entries.
    (folder / "report.html").write_text("<!-- pages -->\n<!-- /pages -->", encoding="utf-8")
    assert refresh(folder)
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!-- pages -->")
    (folder / "report.html").write_text(html, encoding="utf-8")
    (folder / "robustness.json").unlink()
    (other / "comparison.html").unlink()
    assert refresh(folder)
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!-- more --><!-- /more -->")
