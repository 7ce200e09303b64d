from __future__ import annotations

import numpy as np
import pytest

from workzone.evaluation.bands import confidence_bands, hour_band, hour_bands
from workzone.predictions import Predictions


@pytest.mark.parametrize(
    ("hour", "band"),
    [
        (0, "night"), (5, "night"), (5.99, "night"), (6, "dawn"), (7, "dawn"), (8, "day"), (17, "day"), (18, "dusk"),
        (19, "dusk"), (20, "night"), (23, "night"), (24, "unknown"), (-1, "unknown"), (float("nan"), "unknown"),
    ],
)  # fmt: skip
def test_hour_band(hour: float, band: str) -> None:
    assert hour_band(hour) == band


def _table(**columns: list[object]) -> Predictions:
    n = len(next(iter(columns.values())))
    known = {name: np.array(values, dtype=object) for name, values in columns.items()}
    return Predictions(np.array([str(i) for i in range(n)]), np.zeros(n), columns=known)


def test_hour_goes_before_the_word_and_unknown_is_said() -> None:
    table = _table(hour=[22, None, None, "noon", 7.5], time_of_day=["day", "daytime", None, "dawn_dusk", ""])
    assert hour_bands(table).tolist() == ["night", "day", "unknown", "dawn_dusk", "dawn"]
    assert hour_bands(_table(weather=["rain"])).tolist() == ["unknown"]


def test_confidence_bands_cover_both_answers() -> None:
    bands = confidence_bands(np.array([0.5, 0.05, 0.95, 0.0, 1.0, 0.45]))
    assert bands.tolist() == ["0.50-0.60", "0.95-0.99", "0.95-0.99", "0.99-1.00", "0.99-1.00", "0.50-0.60"]
