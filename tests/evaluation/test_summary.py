from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from workzone.config.run import EvaluateConfig
from workzone.decisions.types import Code, Decisions
from workzone.errors import DataError
from workzone.evaluation.figures import Draws, Part, policy_at_prevalence, policy_figures
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.report.terminal import summary_rows
from workzone.evaluation.report.words import cautions, certificate_line, headline
from workzone.evaluation.slices import compute_slices, day_night_gap
from workzone.evaluation.summary import MACRO_LABELS, MACRO_POLICY, Summary, summarise
from workzone.metrics import auroc, clopper_pearson
from workzone.predictions import Predictions

Make = Callable[..., Evaluated]


def _quiet(_: str) -> None:
    return None


def _run(e: Evaluated, settings: EvaluateConfig) -> Summary:
    return summarise(e, settings, seed=0, progress=_quiet)


def _codes(e: Evaluated, codes: Any) -> Decisions:
    return Decisions(
        np.asarray(codes, dtype=np.int8), e.probability, np.ones((len(e), 2), dtype=bool), ["because"] * len(e)
    )


def _part(y: list[int], codes: list[int]) -> Part:
    groups = np.array([str(i) for i in range(len(y))])
    return Part(np.array(y), np.where(np.array(codes) == 1, 0.9, 0.1), np.array(codes, dtype=np.int8), groups)


DRAWS = Draws(200, "percentile", 0.95, True, 0)
# 4 roadwork: 2 found, 1 missed, 1 held; 6 others: 3 right, 1 false alarm, 2 held.
Y = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
CODES = [1, 1, 0, -1, 0, 0, 0, 1, -1, -1]


def test_abstentions_are_neither_misses_nor_false_alarms() -> None:
    found = policy_figures(_part(Y, CODES), DRAWS)
    expected = {
        "coverage": 7 / 10, "risk": 2 / 7, "wrong_of_all": 2 / 10, "fnr": 1 / 4, "fpr": 1 / 6, "found": 2 / 4,
        "coverage_roadwork": 3 / 4, "coverage_no_roadwork": 4 / 6, "precision_decided": 2 / 3,
        "mcc_decided": (2 * 3 - 1 * 1) / (3 * 3 * 4 * 4) ** 0.5,
    }  # fmt: skip
    assert {name: i.value for name, i in found.items()} == pytest.approx(expected)
    assert (found["fnr"].low, found["fnr"].high) == pytest.approx(clopper_pearson(1, 4))
    assert {name: found[name].n for name in ("coverage", "risk", "fnr", "fpr")} == {
        "coverage": 10, "risk": 7, "fnr": 4, "fpr": 6,
    }  # fmt: skip


def test_stated_prevalence_mixes_the_rates_of_the_classes() -> None:
    found = policy_at_prevalence(_part(Y, CODES), DRAWS, 0.5)
    coverage = (3 / 4 + 4 / 6) / 2
    assert found["coverage"].value == pytest.approx(coverage)
    assert found["risk"].value == pytest.approx((1 / 4 + 1 / 6) / 2 / coverage)
    assert found["precision_decided"].value == pytest.approx((2 / 4) / (2 / 4 + 1 / 6))
    assert found["risk"].prevalence == 0.5


def test_no_errors_seen_is_not_an_interval_of_zero() -> None:
    found = policy_at_prevalence(_part([1, 1, 0, 0, 0], [1, -1, 0, 0, -1]), DRAWS, 0.5)
    assert found["risk"].value == 0
    assert found["risk"].high > 0.3


def test_macro_is_the_mean_of_the_sources_with_both_classes(make: Make, quick: EvaluateConfig) -> None:
    s = _run(make(400), quick)
    both = [row for row in s.sources if row.both_classes]
    assert [row.name for row in s.sources if not row.both_classes] == ["campus"]
    assert len(both) == 3
    for system, names in (("argmax", MACRO_LABELS), ("policy", MACRO_POLICY)):
        for name in names:
            values = [getattr(row, system)[name].value for row in both]
            macro = s.macro[system][name]
            assert macro.value == pytest.approx(np.mean(values)), name
            assert macro.low <= macro.value <= macro.high, name


def test_pooled_figures_that_flatter_are_called_out(make: Make, quick: EvaluateConfig) -> None:
    # Within each source the scores are noise; between sources they follow the share of roadwork.
    e = make(
        400, sources=(("easy", 0.5, 0.03, 1e-6), ("work", 0.5, 0.97, 1e-6)), columns={"weather": np.full(400, "clear")}
    )
    s = _run(e, quick)
    assert s.systems["argmax"].natural["auroc"].value > 0.9
    assert s.macro["argmax"]["auroc"].value < 0.75
    share = {row.name: row.n_positive / row.n for row in s.sources}
    assert s.source_auroc == pytest.approx(auroc(e.labels, np.array([share[v] for v in e.sources])))
    slices = compute_slices(e, ("source",), draws=s.draws, fewest=10, progress=_quiet)
    assert any("flatters" in line for line in cautions(e, s, slices))


def test_groups_widen_intervals(make: Make, quick: EvaluateConfig) -> None:
    # Four copies of every image in one group hold no more information than one.
    single = make(80, one_view=False)
    four = np.repeat(np.arange(80), 4)
    ids = np.array([f"{single.predictions.ids[i]}-{k}" for k, i in enumerate(four)])
    columns = {name: v[four] for name, v in single.predictions.columns.items()} | {"group": four.astype(str)}
    copies = Evaluated(
        Predictions(ids, single.predictions.log_odds[four], single.labels[four], columns=columns),
        single.probability[four],
        Decisions(single.decisions.codes[four], single.probability[four], single.decisions.sets[four], ["x"] * 320),
    )
    widths = {}
    for by_group in (True, False):
        value = _run(copies, quick.model_copy(update={"by_group": by_group})).systems["policy"].natural["coverage"]
        widths[by_group] = value.high - value.low
    assert widths[True] > 1.5 * widths[False]


def test_headline_counts_agree_with_the_codes(make: Make, quick: EvaluateConfig) -> None:
    e = make(200)
    s = _run(e, quick)
    y, codes = e.labels, e.decisions.codes
    assert s.counts["decided"] + s.counts["abstained"] == 200
    assert s.counts["missed"] == int(((codes == Code.NO_ROADWORK) & (y == 1)).sum())
    assert s.counts["wrong"] == s.counts["missed"] + s.counts["false_alarms"]
    text = " ".join(headline(s))
    assert f"decided {s.counts['decided']}" in text
    assert f"to {s.counts['missed']} of {s.n_positive} images with roadwork" in text


@pytest.mark.parametrize(("alpha", "verdict"), [(0.9, "at or below"), (0.0001, "above the limit")])
def test_promise_is_held_against_the_test_images(make: Make, quick: EvaluateConfig, alpha: float, verdict: str) -> None:
    e = make(250)
    guarantee = e.certificate.guarantees[0].model_copy(update={"alpha": alpha, "status": "certified"})  # type: ignore[union-attr]
    e = make(250, certificate=e.certificate.model_copy(update={"guarantees": (guarantee,)}))  # type: ignore[union-attr]
    s = _run(e, quick)
    assert s.certified == "certified"
    assert s.promises[0].verdict.startswith(verdict)
    assert s.promises[0].events == s.counts["missed"]
    slices = compute_slices(e, (), draws=s.draws, fewest=10, progress=_quiet)
    assert any("certificate names" in line for line in cautions(e, s, slices)) == (verdict != "at or below")


@pytest.mark.parametrize("low", [0.05, 0.2])
def test_what_speaks_against_a_promise_is_said_with_the_certificate(
    make: Make, quick: EvaluateConfig, low: float
) -> None:
    s = _run(make(120, status="certified"), quick)
    measured = replace(s.promises[0].measured, value=0.3, low=low, high=0.4)
    s = replace(s, promises=(replace(s.promises[0], alpha=0.1, measured=measured, verdict="above the limit"),))
    title, sentence = certificate_line(s)
    contradicted = low > 0.1
    assert title == ("Certified, but these images contradict it" if contradicted else "Certified")
    assert ("On these images the" in sentence) == contradicted
    terminal = next(value for name, value, _ in summary_rows(s) if name.startswith("promise"))
    assert ("certified, but 30.0%" in terminal) == contradicted
    mean = replace(s, promises=(replace(s.promises[0], kind="expectation"),))
    assert certificate_line(mean)[0] == "Certified", "a single draw may lie above a promise about the mean"


def test_group_promise_counts_groups(make: Make, quick: EvaluateConfig) -> None:
    e = make(250)
    guarantee = e.certificate.guarantees[0].model_copy(update={"unit": "group"})  # type: ignore[union-attr]
    s = _run(make(250, certificate=e.certificate.model_copy(update={"guarantees": (guarantee,)})), quick)  # type: ignore[union-attr]
    positive = e.labels == 1
    missed = positive & (e.decisions.codes == Code.NO_ROADWORK)
    assert s.promises[0].measured.n == len(set(e.groups[positive]))
    assert s.promises[0].events == len(set(e.groups[missed]))


def test_slices_show_unknown_name_the_small_and_find_the_worst(make: Make, quick: EvaluateConfig) -> None:
    e = make(
        600,
        sources=(
            ("harbour", 0.4, 0.15, 3.2),
            ("ring", 0.3, 0.45, 2.2),
            ("alley", 0.2, 0.3, 0.2),
            ("campus", 0.1, 0.0, 2.5),
        ),
        columns={"rare": np.array(["odd"] * 5 + ["usual"] * 595), "empty": np.array([None] * 600, dtype=object)},
    )
    slices = compute_slices(
        e,
        ("source", "weather", "rare", "empty"),
        draws=Draws(100, "percentile", 0.95, True, 0),
        fewest=10,
        progress=_quiet,
    )
    values = {(row.column, row.value): row for row in slices.rows}
    assert ("weather", "unknown") in values
    assert slices.left_out == (("rare", "odd", 5),)
    assert slices.not_recorded == ("empty",)
    assert sum(row.n for row in slices.rows if row.column == "source") == 600
    alley = e.sources == "alley"
    expected = ((e.argmax != e.labels) & alley & (e.labels == 1)).sum() / (alley & (e.labels == 1)).sum()
    assert values["source", "alley"].argmax["fnr"].value == pytest.approx(expected)
    assert slices.worst is not None
    assert (slices.worst["column"], slices.worst["value"]) == ("source", "alley")
    assert values["source", "campus"].note.startswith("no roadwork images")
    assert not np.isfinite(values["source", "campus"].argmax["mcc"].value)
    grid = slices.grid
    assert sum(map(sum, grid["n"])) == 600
    assert sum(map(sum, grid["wrong"])) == int((e.argmax != e.labels).sum())


def test_worst_of_small_slices_has_a_caveat(make: Make) -> None:
    e = make(120, columns={"coin": np.array(["a", "b"] * 60)})
    slices = compute_slices(e, ("coin",), draws=Draws(200, "percentile", 0.95, True, 0), fewest=10, progress=_quiet)
    assert slices.worst is not None
    assert not slices.worst["differs"]
    assert "may be chance" in slices.worst["caveat"]


def test_day_night_gap() -> None:
    y = np.ones(80, dtype=np.int64)
    p = np.r_[np.full(40, 0.9), np.full(30, 0.1), np.full(10, 0.9)]
    part = Part(y, p, np.ones(80, dtype=np.int8), np.array([str(i) for i in range(80)]))
    bands = np.array(["day"] * 40 + ["night"] * 40)
    gap = day_night_gap(part, bands, DRAWS)
    assert gap["gap"].value == pytest.approx(0.75)
    assert gap["verdict"] == "differs"
    same = day_night_gap(part.take(np.arange(80) % 40 < 40), np.tile(["day", "night"], 40), DRAWS)
    assert same["verdict"] == "cannot be told from chance"
    assert day_night_gap(part, np.full(80, "day"), DRAWS)["verdict"].startswith("not defined")


@pytest.mark.parametrize(
    "case", ["perfect", "silent", "only_negative", "only_positive", "one_source", "one_group", "tiny", "bare"]
)
def test_degenerate_inputs_are_reported_not_crashed_on(make: Make, quick: EvaluateConfig, case: str) -> None:
    e = make(60, one_view=case != "bare")
    n = len(e)
    if case == "perfect":
        p = np.where(e.labels == 1, 0.999, 0.001)
        e = make(60, probability=p, decisions=_codes(e, e.labels))
    elif case == "silent":
        e = make(60, decisions=_codes(e, np.full(n, -1)))
    elif case in ("only_negative", "only_positive"):
        e = make(
            60,
            sources=(("a", 0.5, float(case == "only_positive"), 2.0), ("b", 0.5, float(case == "only_positive"), 2.0)),
        )
    elif case == "one_source":
        e = make(60, sources=(("a", 1.0, 0.4, 2.0),))
    elif case == "one_group":
        e = make(60, columns={"group": np.full(60, "g"), "source": np.full(60, "s")})
    elif case == "tiny":
        e = make(12)
    elif case == "bare":
        e = make(60, one_view=False, status=None, calibrators=(), meta={}, policy={}, columns={})
        e = Evaluated(
            Predictions(e.predictions.ids, e.predictions.log_odds, e.labels), e.probability, _codes(e, e.argmax)
        )
    s = _run(e, quick)
    slices = compute_slices(e, quick.slices, draws=s.draws, fewest=quick.min_slice, progress=_quiet)
    said, warned = " ".join(headline(s)), " ".join(cautions(e, s, slices))
    assert summary_rows(s)
    policy = s.systems["policy"].natural
    if case == "perfect":
        assert s.counts["wrong"] == 0
        assert policy["fnr"].high > 0
    if case == "silent":
        assert "decided nothing" in said
        assert not np.isfinite(policy["risk"].value)
    if case == "only_negative":
        assert "no roadwork at all" in warned
        assert not np.isfinite(policy["fnr"].value)
        assert "with roadwork, not" not in said
    if case == "only_positive":
        assert "nothing but roadwork" in warned
    if case == "one_group":
        assert "one group" in warned
        assert policy["coverage"].high - policy["coverage"].low > 0.9
        assert not np.isfinite(s.systems["argmax"].natural["auroc"].low)


def test_unusable_inputs_are_refused(make: Make) -> None:
    e = make(20)
    unlabelled = Predictions(e.predictions.ids, e.predictions.log_odds)
    with pytest.raises(DataError, match="no labels"):
        make(20, predictions=unlabelled)
    with pytest.raises(DataError, match="probability holds 19 values for 20"):
        make(20, probability=e.probability[:19])


def test_many_groups_of_which_few_hold_roadwork_are_told(make: Make, quick: EvaluateConfig) -> None:
    """Thirteen images of four places once gave 0.923 [0.902, 1.000]."""
    e = make(120, sources=(("a", 1.0, 0.2, 2.0),))
    names = np.array([f"r{i % 4}" if label else f"g{i}" for i, label in enumerate(e.labels)])
    for groups, told in ((names, True), (np.array([f"g{i}" for i in range(120)]), False)):
        e = make(120, sources=(("a", 1.0, 0.2, 2.0),), columns={"group": groups})
        s = _run(e, quick)
        assert s.n_groups_roadwork == len(np.unique(groups[e.labels == 1]))
        slices = compute_slices(e, quick.slices, draws=s.draws, fewest=quick.min_slice, progress=_quiet)
        assert any("come from only 4 groups" in line for line in cautions(e, s, slices)) == told
