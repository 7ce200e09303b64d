"""The type checker rejects what the run-time check rejects."""

from __future__ import annotations

from pathlib import Path

import pytest

SNIPPET = """
from workzone.calibration.temperature import TemperatureCalibrator
from workzone.data.roles import CalibData, TestData, TrainData
def good(data: CalibData) -> None: TemperatureCalibrator().fit(data)
def bad(data: TrainData) -> None: TemperatureCalibrator().fit(data)
def worse(data: TestData) -> None: TemperatureCalibrator().fit(data)
"""


@pytest.mark.slow
def test_mypy_rejects_other_roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import workzone

    api = pytest.importorskip("mypy.api")
    source = tmp_path / "snippet.py"
    source.write_text(SNIPPET)
    monkeypatch.setenv("MYPYPATH", str(Path(workzone.__file__).parents[1]))
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nfollow_imports = silent\n")
    out, _, code = api.run(["--config-file", str(config), "--cache-dir", str(tmp_path / "cache"), str(source)])
    lines = [line for line in out.splitlines() if "error:" in line]
    assert code == 1
    assert [line.split(":")[1] for line in lines] == ["5", "6"]
    assert all("arg-type" in line for line in lines)
