from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from workzone.errors import ConfigError, DataError
from workzone.evaluation.compare import compare, write_comparison
from workzone.evaluation.given import Given, evaluated_from, load_given, save_scores
from workzone.evaluation.report.compare import classical_tests, comparison_table, render
from workzone.metrics import evaluate

N = 300


def table(noise: float, seed: int, **columns: Any) -> pl.DataFrame:
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    z = shared.normal(-0.5, 2.5, N)
    y = (shared.random(N) < 1 / (1 + np.exp(-z))).astype(int)
    p = 1 / (1 + np.exp(-(z + own.normal(0, noise, N))))
    return pl.DataFrame({"id": [f"{i:03d}" for i in range(N)], "label": y, "probability": p, **columns})


def given(folder: Path, name: str, frame: pl.DataFrame) -> Given:
    frame.write_csv(folder / f"{name}.csv")
    return load_given(folder / f"{name}.csv")


def decisions(frame: pl.DataFrame, low: float = 0.2, high: float = 0.7) -> pl.DataFrame:
    p = frame["probability"].to_numpy()
    said = np.where(p < low, "no_roadwork", np.where(p >= high, "roadwork", "abstain"))
    return frame.with_columns(pl.Series("decision", said))


def test_a_clear_difference_and_its_mirror(tmp_path: Path) -> None:
    weak, strong = given(tmp_path, "weak", table(4, 1)), given(tmp_path, "strong", table(0.2, 2))
    found, mirrored = compare(weak, strong), compare(strong, weak)
    assert re.fullmatch(
        r"B is better: MCC 0\.\d{3} against 0\.\d{3}, difference 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]\.", found.verdict
    )
    assert mirrored.verdict.startswith("A is better: MCC")
    assert found.mcnemar.only_a == mirrored.mcnemar.only_b
    by_name = {row.name: row for row in found.rows}
    assert by_name["brier"].winner == "B", "lower is better"
    assert by_name["brier"].difference.difference.high < 0
    assert by_name["mcc"].p_holm is None
    raw = [row.difference.p for row in found.rows[1:]]
    assert all(row.p_holm >= p for row, p in zip(found.rows[1:], raw, strict=True))  # type: ignore[operator]
    y, p = np.asarray(weak.predictions.labels), weak.probability
    for name, value in evaluate(y, p, names=["mcc", "auroc", "nll"]).items():
        assert by_name[name].difference.a.value == pytest.approx(value)
    lower = compare(weak, strong, metric="brier")
    assert lower.verdict.startswith("B is better: Brier score (lower is better)")
    assert [row.name for row in lower.rows].count("brier") == 1


def test_no_difference(tmp_path: Path) -> None:
    one, two = given(tmp_path, "one", table(1, 1)), given(tmp_path, "two", table(1, 2))
    assert compare(one, two).verdict.startswith("No difference can be told: MCC 0.")
    same = compare(one, one)
    assert same.verdict.startswith("No difference can be told")
    assert "for both" in same.verdict
    assert {row.winner for row in same.rows} == {"none"}


def test_images_are_matched_by_id(tmp_path: Path) -> None:
    one, frame = given(tmp_path, "one", table(1, 1)), table(1, 2)
    straight = compare(one, given(tmp_path, "two", frame))
    shuffled = compare(one, given(tmp_path, "three", frame.sample(fraction=1.0, shuffle=True, seed=1)))
    assert straight.rows == shuffled.rows
    part = compare(one, given(tmp_path, "four", frame.head(120).drop("label")))
    assert (part.counts["a"], part.counts["b"], part.counts["shared"]) == (N, 120, 120)
    other = given(tmp_path, "five", frame.with_columns(pl.format("{}{}", pl.lit("9"), "id").alias("id")))
    with pytest.raises(DataError, match=r"share no image.*such as '000'.*such as '9000'"):
        compare(one, other)


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    frame = table(1, 1)
    one = given(tmp_path, "one", frame)
    flipped = frame.with_columns(
        pl.when(pl.col("id") == "007").then(1 - pl.col("label")).otherwise("label").alias("label")
    )
    with pytest.raises(DataError, match=r"disagree about the label of 1 of 300 shared images.*'007'"):
        compare(one, given(tmp_path, "flipped", flipped))
    bare = given(tmp_path, "bare", frame.drop("label"))
    with pytest.raises(DataError, match="neither table has labels"):
        compare(bare, bare)
    for name in ("mcd", "spiegelhalter_z"):
        with pytest.raises(ConfigError, match="choose one of"):
            compare(one, one, metric=name)
    grouped = [frame.with_columns(pl.Series("group", np.arange(N) // k)) for k in (3, 5)]
    with pytest.raises(DataError, match="group the shared images differently"):
        compare(given(tmp_path, "threes", grouped[0]), given(tmp_path, "fives", grouped[1]))


def test_groups(tmp_path: Path) -> None:
    group = pl.Series("group", [f"g{i // 3}" if i < 297 else "" for i in range(N)])
    one = given(tmp_path, "one", table(1, 1).with_columns(group))
    two = given(tmp_path, "two", table(0.5, 2))
    found = compare(one, two)
    assert found.by_group
    assert found.counts["units"] == 99 + 3
    assert any("independent" in text for text in found.cautions)
    alone = compare(one, two, by_group=False)
    assert not alone.by_group
    assert alone.rows[0].difference.difference.value == found.rows[0].difference.difference.value
    assert alone.rows != found.rows


def test_decisions(tmp_path: Path) -> None:
    frames = [decisions(table(k, k)) for k in (1, 2)]
    one, two = (given(tmp_path, f"t{k}", f) for k, f in enumerate(frames))
    rows = {row.name: row for row in compare(one, two).rows}
    said = frames[0]["decision"].to_numpy()
    label = frames[0]["label"].to_numpy()
    assert rows["decided"].difference.a.value == pytest.approx((said != "abstain").mean())
    missed = (said == "no_roadwork")[label == 1].mean()
    assert rows["decided_missed"].difference.a.value == pytest.approx(missed)
    wrong = np.where(label == 1, said == "no_roadwork", said == "roadwork")[said != "abstain"].mean()
    assert rows["decided_wrong"].difference.a.value == pytest.approx(wrong)
    sharp = given(tmp_path, "sharp", decisions(frames[0], 0.3, 0.3))
    found = compare(sharp, two)
    assert found.answers[0] == "its decisions"
    wanted = evaluate(label, sharp.probability, sharp.probability >= 0.3, names=["mcc"])["mcc"]
    assert found.rows[0].difference.a.value == pytest.approx(wanted)
    assert any("made differently" in text for text in found.cautions)


def test_one_class_only(tmp_path: Path) -> None:
    frames = [table(k, k).with_columns(label=pl.lit(1)) for k in (1, 2)]
    found = compare(*(given(tmp_path, f"t{k}", f) for k, f in enumerate(frames)))
    assert found.verdict == "Nothing can be said: MCC is not defined on these images."
    assert any("one class only" in text for text in found.cautions)
    assert {r.name for r in found.rows if r.winner == "undefined"} >= {"mcc", "auroc", "fpr"}
    assert np.isfinite(next(r for r in found.rows if r.name == "brier").difference.p)
    write_comparison(found, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["better"] == "undefined"


def test_few_resamples_are_said_to_be_too_few(tmp_path: Path) -> None:
    one, two = given(tmp_path, "one", table(1, 1)), given(tmp_path, "two", table(2, 2))
    assert any("400 or more" in text for text in compare(one, two, resamples=100).cautions)
    assert not any("resamples" in text for text in compare(one, two).cautions)


def test_page_and_table(tmp_path: Path) -> None:
    frame = table(1, 1)
    one, two = given(tmp_path, "<b>one", frame), given(tmp_path, "two", table(3, 2))
    found = compare(one, two)
    page = render(found)
    assert "&lt;b&gt;one" in page
    assert "<b>one" not in page
    assert found.verdict in page
    assert page.count("<svg") == 1
    assert not re.search(r"(?:src|href)=\"(?!#)|url\((?!#)|@import", page)
    assert comparison_table(found).row_count == len(found.rows)
    assert [name for name, _ in classical_tests(found)] == ["McNemar, exact", "DeLong"]
    write_comparison(found, tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert stored["verdict"] == found.verdict
    assert stored["metrics"][0]["primary"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["comparison.html", "comparison.json"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.drop("id"), "lacks the column 'id'"),
        (lambda f: f.drop("probability"), "neither a column 'probability' nor 'log_odds'"),
        (lambda f: f.with_columns(probability=pl.col("probability") * 9), r"outside \[0, 1\].*row \d+"),
        (lambda f: f.with_columns(probability=pl.lit(None)), "no finite numbers.*row 1"),
        (lambda f: f.with_columns(label=pl.lit("maybe")), "no label.*'maybe'"),
        (
            lambda f: f.with_columns(label=pl.when(pl.col("id") == "001").then(None).otherwise("label")),
            "no label.*row 2",
        ),
        (lambda f: f.with_columns(decision=pl.lit("perhaps")), "no decision.*'perhaps'"),
        (lambda f: f.with_columns(id=pl.lit("x")), "not unique.*rows 1 and 2"),
        (lambda f: f.head(0), "no rows"),
    ],
)
def test_bad_tables(tmp_path: Path, change: Any, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        given(tmp_path, "bad", change(table(1, 1)))
    assert "bad.csv" in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "noise.parquet").write_bytes(bytes(range(256)))
    (tmp_path / "notes.txt").write_text("x")
    for name, says in (
        ("noise.parquet", "cannot be read"),
        ("notes.txt", "ends in .csv"),
        ("none.csv", "no such file"),
    ):
        with pytest.raises(DataError, match=says):
            load_given(tmp_path / name)
    with pytest.raises(DataError, match="holds no predictions"):
        load_given(tmp_path)


def test_reading(tmp_path: Path) -> None:
    frame = table(1, 1)
    words = frame.with_columns(pl.Series("label", np.array(["no_roadwork", "roadwork"])[frame["label"].to_numpy()]))
    one, two = given(tmp_path, "one", frame), given(tmp_path, "two", words)
    assert one.predictions.ids[7] == "007"
    np.testing.assert_array_equal(one.predictions.labels, two.predictions.labels)
    odds = frame.select("id", "label", log_odds=pl.Series(one.predictions.log_odds))
    np.testing.assert_allclose(given(tmp_path, "odds", odds).probability, one.probability)
    with pytest.raises(DataError, match="no column 'label'"):
        evaluated_from(given(tmp_path, "bare", frame.drop("label")))


def test_a_saved_evaluation_is_read_back(tmp_path: Path) -> None:
    frame = decisions(table(1, 1)).with_columns(pl.Series("hour", np.arange(N) % 24), source=pl.lit("ring"))
    first = given(tmp_path, "one", frame)
    evaluated = evaluated_from(first)
    assert evaluated.policy["policy"] == "given"
    assert evaluated.certificate is None
    run = tmp_path / "run"
    save_scores(evaluated, run / "evaluate" / "predictions.parquet")
    again = load_given(run)
    assert again.name == "run"
    np.testing.assert_array_equal(again.probability, first.probability)
    np.testing.assert_array_equal(again.codes, first.codes)  # type: ignore[arg-type]
    assert again.predictions.columns["hour"].tolist() == first.predictions.columns["hour"].tolist()
    assert compare(first, load_given(run / "evaluate")).rows[0].difference.p == 1
    plain = evaluated_from(given(tmp_path, "two", table(1, 1)))
    assert plain.policy["policy"] == "argmax"
    np.testing.assert_array_equal(plain.decisions.codes, plain.argmax)
