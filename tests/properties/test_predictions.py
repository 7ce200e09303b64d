"""Tables of predictions survive a round trip, whatever names and words they hold."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workzone.errors import WorkzoneError
from workzone.predictions import Predictions

WORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=12)
SPECIAL = ["007", "1e5", "1_000", "true", "nan", "null", "None", "-0", "=1+1", 'a"b', "a,b", "a\nb", "a\r\nb", " x "]
HOSTILE = WORDS | st.sampled_from([*SPECIAL, "∞", "1.50"])
NUMBERS = st.floats(-700, 700)


@st.composite
def predictions(draw: st.DrawFn) -> Predictions:
    ids = draw(st.lists(HOSTILE.filter(lambda s: s != ""), min_size=1, max_size=6, unique=True))
    n = len(ids)

    def numbers() -> np.ndarray:
        return np.array(draw(st.lists(NUMBERS, min_size=n, max_size=n)), dtype=np.float64)

    labels = draw(st.none() | st.lists(st.integers(0, 1), min_size=n, max_size=n))
    cells = st.lists(HOSTILE | st.none(), min_size=n, max_size=n)
    columns = draw(st.dictionaries(st.sampled_from(["source", "group", "weather", "path"]), cells))
    views = np.stack([numbers(), numbers()], axis=1) if draw(st.booleans()) else None
    return Predictions(
        np.array(ids, dtype=object).astype(str),
        numbers(),
        None if labels is None else np.array(labels),
        views,
        None,
        {name: np.array(values, dtype=object) for name, values in columns.items()},
    )


def _as_numbers(table: Predictions, name: str) -> list[float | None] | None:
    """Values of a column whose words were all numbers; None where they are text."""
    values = table.columns[name].tolist()
    return None if any(isinstance(v, str) for v in values) else [None if v is None else float(v) for v in values]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@settings(max_examples=25, deadline=None)
@given(made=predictions())
def test_round_trip(suffix: str, made: Predictions) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"p{suffix}"
        made.save(path)
        back = Predictions.load(path)
    assert back.ids.tolist() == made.ids.tolist()
    assert back.log_odds.tolist() == made.log_odds.tolist()
    assert (back.labels is None) == (made.labels is None)
    if made.labels is not None and back.labels is not None:
        assert back.labels.tolist() == made.labels.tolist()
    if made.view_log_odds is not None and back.view_log_odds is not None:
        assert np.array_equal(back.view_log_odds, made.view_log_odds)
    for name in made.columns:
        # As everything downstream reads them: text, with one word for unknown.
        found, kept = back.column(name).tolist(), made.column(name).tolist()
        if set(kept) <= {"true", "false", "unknown"}:
            found = [word.lower() for word in found]  # a column of nothing else holds booleans
        assert found == kept or _as_numbers(back, name) == [None if w == "unknown" else float(w) for w in kept], name


@pytest.mark.parametrize("row", ["a, ,1,0", "a,0,x,0", "a,0,1,y"])
def test_text_where_numbers_belong_is_said_with_its_column(row: str, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(f"id,log_odds,label,view_log_odds_0\n{row}\n")
    with pytest.raises(WorkzoneError, match="something else than numbers"):
        Predictions.load(path)


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=200) | st.binary(max_size=60).map(lambda rest: b"id,log_odds\n" + rest))
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_any_bytes_are_a_table_or_one_paragraph(suffix: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"p{suffix}"
        path.write_bytes(content)
        try:
            found = Predictions.load(path)
        except WorkzoneError:
            return
        assert np.isfinite(found.log_odds).all()
