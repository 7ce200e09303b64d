"""Predictions of a model that somebody else trained, on the command line alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

Call = Callable[..., Any]


@pytest.fixture
def tables(tmp_path: Path) -> list[Path]:
    from sklearn.datasets import make_classification
    from sklearn.linear_model import LogisticRegression

    x, y = make_classification(900, 12, n_informative=5, weights=[0.7], random_state=0)
    paths = []
    for name, width in (("narrow", 1), ("wide", 12)):
        p = LogisticRegression().fit(x[:500, :width], y[:500]).predict_proba(x[500:, :width])[:, 1]
        frame = pl.DataFrame({"id": np.arange(400), "label": y[500:], "probability": p, "hour": np.arange(400) % 24})
        paths.append(tmp_path / f"{name}.csv")
        frame.write_csv(paths[-1])
    return paths


def test_compare(call: Call, tables: list[Path], tmp_path: Path) -> None:
    answer = call("compare", *tables, "--out", tmp_path / "out", "--resamples", "500")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("B is better: MCC ")
    for text in ("400 images in both", "McNemar, exact", "DeLong", "AUROC"):
        assert text in answer.out
    printed = call("compare", *tables, "--json", "--resamples", "500", "--interval", "percentile")
    assert json.loads(printed.out) == json.loads((tmp_path / "out" / "comparison.json").read_text())
    same = call("compare", tables[0], tables[0], "-m", "auroc", "--interval", "bca")
    assert same.code == 0
    assert same.out.startswith("No difference can be told: AUROC")


def test_evaluate_then_compare(call: Call, tables: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    answer = call("evaluate", tables[1], "--out", out, "resamples=100")
    assert answer.code == 0, answer.err
    summary = json.loads((out / "metrics_summary.json").read_text())
    assert summary["n"] == 400
    assert summary["interval"]["resamples"] == 100
    assert summary["policy"]["policy"] == "argmax"
    assert summary["certified"] == "none"
    assert (out / "report.html").is_file()
    found = json.loads(call("compare", tables[1], out, "--json").out)
    assert found["counts"]["shared"] == 400
    assert found["metrics"][0]["difference"]["value"] == 0


def test_decisions_and_one_class(call: Call, tables: list[Path], tmp_path: Path) -> None:
    frame = pl.read_csv(tables[1]).filter(pl.col("label") == 1).with_columns(decision=pl.lit("abstain"))
    frame.write_parquet(tmp_path / "one.parquet")
    answer = call("evaluate", tmp_path / "one.parquet", "--out", tmp_path / "ev", "resamples=100")
    assert answer.code == 0, answer.err
    summary = json.loads((tmp_path / "ev" / "metrics_summary.json").read_text())
    assert summary["policy"]["policy"] == "given"
    assert summary["counts"]["decided"] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["evaluate", "{t}", "images"], "evaluated alone"),
        (["evaluate", "{d}"], "needs labelled images"),
        (["evaluate", "{bare}"], "no column 'label'"),
        (["evaluate", "{t}", "resample=9"], "resample"),
        (["evaluate", "{d}/none.csv"], "no such file"),
        (["compare", "{t}", "{d}/empty"], "holds no predictions"),
        (["compare", "{t}", "{t}", "-m", "mc"], "no metric 'mc'"),
    ],
)
def test_errors_are_one_paragraph(call: Call, tables: list[Path], tmp_path: Path, words: list[str], says: str) -> None:
    (tmp_path / "empty").mkdir()
    pl.read_csv(tables[0]).drop("label").write_csv(tmp_path / "bare.csv")
    filled = [w.format(t=tables[0], d=tmp_path, bare=tmp_path / "bare.csv") for w in words]
    answer = call(*filled, "--out", tmp_path / "out")
    assert answer.code == 2, answer.err
    assert says in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "out").exists()
