"""The examples run and say what their comments say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.readme, pytest.mark.timeout(900)]


def source(name: str) -> str:
    return (ROOT / "examples" / name).read_text(encoding="utf-8")


def test_calibrate_your_own_scores(bench: Any) -> None:
    out = bench.python(source("calibrate_your_own_scores.py"))
    before, after = map(float, re.findall(r"([\d.]+) (?:before|after)", out))
    assert after < before
    assert "With confidence 0.95" in out


def test_calibrate_scores_of_a_table(bench: Any) -> None:
    rng = np.random.default_rng(1)
    u = rng.normal(0.0, 2.0, 400)
    y = (rng.random(400) < 1 / (1 + np.exp(-u))).astype(int)
    rows = [f"i{i},{y[i]},{1 / (1 + np.exp(-u[i]))},g{i // 4}" for i in range(400)]
    table = bench.folder / "scores.csv"
    table.write_text("id,label,probability,group\n" + "\n".join(rows) + "\n", encoding="utf-8")
    out = bench.python(source("calibrate_your_own_scores.py"), str(table))
    assert "ertif" in out


def test_predict_with_python(workshop: Any) -> None:
    images = [str(p) for p in sorted((workshop.folder / "streets/images").glob("*.jpg"))[:5]]
    out = workshop.python(source("predict_with_python.py"), "outputs/streets/bundle", *images)
    assert out.count("P(roadwork)") == 5


def test_every_example_is_listed() -> None:
    listed = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    for path in (ROOT / "examples").glob("*.py"):
        assert f"`{path.name}`" in listed
