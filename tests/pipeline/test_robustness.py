"""What a run says about changed pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workzone.config.load import load_config
from workzone.vision.corruptions import CORRUPTIONS


@pytest.mark.e2e
def test_the_report_of_a_run_shows_corruptions_and_the_validators_levels(tiny_run: Path) -> None:
    found = json.loads((tiny_run / "evaluate" / "robustness.json").read_text())
    assert found["n"] == 4
    cells = {(row["change"], row["level"]) for row in found["rows"]}
    validator = {(f"streetvision {name}", level) for name in ("2.0.4", "letterbox") for level in range(4)}
    assert cells == {("none", 0), *((name, 5) for name in CORRUPTIONS), *validator}
    html = (tiny_run / "evaluate" / "report.html").read_text()
    section = html.partition("<!-- pages -->")[2].partition("<!-- /pages -->")[0]
    assert found["sentence"].split("(")[0] in section
    for name in (*CORRUPTIONS, "streetvision 2.0.4", "streetvision letterbox"):
        assert f">{name.replace('_', ' ')}</th>" in section
    assert "data:image/png;base64," in section
    record = json.loads((tiny_run / "run.json").read_text())
    assert "evaluate/robustness.json" in record["phases"]["evaluate"]["outputs"]
    assert record["roles_opened"]["val_test"] == 1, "the test images are opened once for both"


@pytest.mark.parametrize("preset", ["demo", "small", "full"])
def test_presets_measure_it_and_the_bare_default_does_not(preset: str, tmp_path: Path) -> None:
    words = ["data=synthetic", f"out={tmp_path}"]
    assert load_config([*words, f"preset={preset}"]).evaluate.robustness >= 20
    assert load_config(words).evaluate.robustness == 0
