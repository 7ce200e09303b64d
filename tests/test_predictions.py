from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from workzone.errors import DataError
from workzone.predictions import Predictions, logit, sigmoid, value_name


def predictions() -> Predictions:
    return Predictions(
        ids=np.array(["a", "b", "c"]),
        log_odds=np.array([-2.5, 0.1, 7.0]),
        labels=np.array([0, 1, 1]),
        view_log_odds=np.array([[0.1, np.nan], [0.2, 0.3], [1.0, 2.0]]),
        embeddings=np.arange(6, dtype=np.float32).reshape(3, 2),
        columns={"source": np.array(["x", "y", None], dtype=object), "hour": np.array([1.0, np.nan, 3.0])},
    )


@pytest.mark.parametrize("name", ["p.parquet", "p.csv"])
def test_round_trip_is_exact(tmp_path: Path, name: str) -> None:
    before = predictions()
    before.save(tmp_path / name)
    after = Predictions.load(tmp_path / name)
    assert after.ids.tolist() == before.ids.tolist()
    assert np.array_equal(after.log_odds, before.log_odds)
    assert after.labels is not None
    assert np.array_equal(after.labels, before.labels)
    assert np.array_equal(after.view_log_odds, before.view_log_odds, equal_nan=True)
    assert np.array_equal(after.embeddings, before.embeddings)
    assert after.column("source").tolist() == ["x", "y", "unknown"]
    assert after.column("hour").tolist() == ["1", "unknown", "3"]
    assert after.column("weather").tolist() == ["unknown"] * 3


def test_a_table_of_probabilities_is_read_as_log_odds(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,probability,label\n1,0.25,0\n2,0.75,1\n")
    loaded = Predictions.load(tmp_path / "p.csv")
    assert loaded.log_odds == pytest.approx([-np.log(3), np.log(3)])
    (tmp_path / "bad.csv").write_text("id,probability\n1,1.25\n")
    with pytest.raises(DataError, match="outside"):
        Predictions.load(tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": np.array(["a", "a", "c"])}, "not unique"),
        ({"log_odds": np.array([0.0, np.nan, 1.0])}, "not a finite number"),
        ({"log_odds": np.array([0.0, 1.0])}, "shape"),
        ({"labels": np.array([0, 1, 2])}, "labels must be 0"),
        ({"columns": {"source": np.array(["x"])}}, "column 'source'"),
    ],
)
def test_the_contract_is_checked(change: dict[str, np.ndarray], message: str) -> None:
    fields = {"ids": np.array(["a", "b", "c"]), "log_odds": np.zeros(3), "labels": np.array([0, 1, 1])}
    with pytest.raises(DataError, match=message):
        Predictions(**{**fields, **change})


def test_missing_column_and_file(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("name,score\n1,0.25\n")
    with pytest.raises(DataError, match="'id'"):
        Predictions.load(tmp_path / "p.csv")
    with pytest.raises(DataError, match="cannot be read"):
        Predictions.load(tmp_path / "none.parquet")


def test_sigmoid_and_logit_are_inverse_and_stable() -> None:
    u = np.array([-800.0, -20.0, -1.0, 0.0, 1.0, 20.0, 800.0])
    p = sigmoid(u)
    assert ((p >= 0) & (p <= 1)).all()
    assert logit(p[2:5]) == pytest.approx(u[2:5], abs=1e-12)
    assert p + sigmoid(-u) == pytest.approx(np.ones(7), abs=1e-15)


@pytest.mark.parametrize("name", ["old.csv", "old.parquet"])
def test_whole_numbers_that_were_stored_as_decimals_read_as_whole(tmp_path: Path, name: str) -> None:
    held = {
        "hour": np.array([7.0, np.nan, -1.0]),
        "speed": np.array([7.5, 2.0, np.nan]),
        "version": np.array(["v7.0", "7.0", ""], dtype=object),
    }
    Predictions(np.array(["a", "b", "c"]), np.zeros(3), columns=held).save(tmp_path / name)
    old = Predictions.load(tmp_path / name)
    assert old.column("hour").tolist() == ["7", "unknown", "-1"]
    assert old.column("speed").tolist() == ["7.5", "2", "unknown"]
    assert old.column("version").tolist() == ["v7.0", "7.0", "unknown"]


def test_names_of_values() -> None:
    values = (7, 7.0, -0.0, 7.5, 1e300, float("inf"), "7.0", True, np.float64(3.0))
    assert [value_name(v) for v in values] == ["7", "7", "0", "7.5", "1e+300", "inf", "7.0", "True", "3"]
