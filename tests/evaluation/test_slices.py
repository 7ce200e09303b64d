from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from workzone.config.run import EvaluateConfig
from workzone.errors import ConfigError
from workzone.evaluation.evaluate import make_plots
from workzone.evaluation.figures import Draws
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.slices import Slices, column_values, compute_slices
from workzone.evaluation.summary import summarise

Make = Callable[..., Evaluated]
DRAWS = Draws(200, "percentile", 0.95, False, 0)


def _slices(e: Evaluated, *columns: str, fewest: int = 10) -> Slices:
    return compute_slices(e, columns, draws=DRAWS, fewest=fewest, progress=lambda _: None)


def test_pairs_are_the_two_values_and_unknown_where_either_is(make: Make) -> None:
    e = make(300)
    pairs = column_values(e, "source*hour_band")
    source, band = e.sources, column_values(e, "hour_band")
    known = band != "unknown"
    assert (pairs[~known] == "unknown").all()
    assert pairs[known].tolist() == [f"{s}, {b}" for s, b in zip(source[known], band[known], strict=True)]
    rows = _slices(e, "source * hour_band", "hour_band").rows
    assert sum(r.n for r in rows if r.column == "hour_band") == 300
    own = next(r for r in rows if r.value == "harbour, day")
    assert own.n == int(((source == "harbour") & (band == "day")).sum())
    for wrong in ("source*", "a*b*c"):
        with pytest.raises(ConfigError, match="pair of columns"):
            column_values(e, wrong)


def test_worst_slice_survives_correction_only_where_it_is_really_worse(make: Make) -> None:
    bad = make(900, sources=(("good", 0.7, 0.4, 3.0), ("bad", 0.3, 0.4, 0.2)))
    worst = _slices(bad, "source", "weather").worst
    assert worst is not None
    assert (worst["value"], worst["differs"]) == ("bad", True)
    assert worst["p_adjusted"] < 0.001
    assert [b["value"] for b in worst["below_the_rest"]] == ["bad"]
    assert worst["difference"]["high"] < 0


@pytest.mark.stat
def test_the_worst_of_many_equal_slices_is_rarely_called_worse(make: Make) -> None:
    alarms = naive = 0
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        columns: dict[str, Any] = {"coin": rng.choice(list("abcdefghij"), 500)}
        e = make(500, seed=seed, sources=(("one", 1.0, 0.4, 1.2),), one_view=False, columns=columns)
        worst = _slices(e, "coin").worst
        assert worst is not None
        alarms += worst["differs"]
        naive += worst["difference"]["p_value"] < 0.05
    assert alarms <= 8
    assert naive > 2 * alarms
    assert naive >= 10


def test_fairness_is_told_for_single_columns_and_its_gap_is_that_of_the_slices(make: Make) -> None:
    e = make(900, sources=(("good", 0.6, 0.4, 3.0), ("bad", 0.4, 0.4, 0.2)))
    slices = _slices(e, "source", "hour_band", "confidence", "source*hour_band")
    assert {column for column, _ in slices.fairness} == {"source", "hour_band"}
    gap = next(g for c, g in slices.fairness if c == "source" and g.measure == "equal_opportunity")
    rates = {r.value: r.argmax["fnr"].value for r in slices.rows if r.column == "source"}
    assert gap.value == pytest.approx(abs(rates["bad"] - rates["good"]))
    assert (gap.worse, gap.verdict) == ("bad", "exceeds")


def test_calibration_panels_leave_out_what_has_too_few_images(make: Make, quick: EvaluateConfig) -> None:
    e = make(200)
    summary = summarise(e, quick, seed=0, progress=lambda _: None)
    assert "slice_calibration" in make_plots(e, summary, _slices(e, "source"))
    assert "slice_calibration" not in make_plots(e, summary, _slices(e, "confidence"))
    few = make(18)
    plots = make_plots(few, summarise(few, quick, seed=0, progress=lambda _: None), _slices(few, "source", fewest=2))
    assert "slice_calibration" not in plots
    _, svg = make_plots(e, summary, _slices(e, "source"))["slice_calibration"].render()
    assert "harbour" in svg
    assert "with roadwork" in svg
