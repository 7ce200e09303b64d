from __future__ import annotations

import csv
from pathlib import Path

import pytest

from workzone.config.load import build_config
from workzone.errors import MissingExtraError
from workzone.pipeline.tracking import TRACKERS, track

CURVES = {"member0": [{"loss": 1.0}, {"loss": 0.5, "auroc": 0.75}]}


def log(folder: Path, *loggers: str) -> None:
    config = build_config({"data": "synthetic", "out": str(folder), "tracking": {"loggers": list(loggers)}})
    track(config, folder / "tracking", "fuse", curves=CURVES, figures={"mcc": 0.5})


def test_csv_holds_the_curve_and_is_replaced(tmp_path: Path) -> None:
    log(tmp_path, "csv")
    log(tmp_path, "csv")
    rows = list(csv.DictReader((tmp_path / "tracking/csv/fuse/member0.csv").open()))
    assert rows == [{"step": "0", "loss": "1.0", "auroc": ""}, {"step": "1", "loss": "0.5", "auroc": "0.75"}]
    assert (tmp_path / "tracking/csv/fuse/figures.csv").read_text() == "step,mcc\n0,0.5\n"


def test_tensorboard_reads_the_curve_back(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log(tmp_path, "tensorboard")
    events = accumulator.EventAccumulator(str(tmp_path / "tracking/tensorboard/fuse/member0")).Reload()
    assert [e.value for e in events.Scalars("fuse/loss")] == [1.0, 0.5]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_named(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'workzone\[ops\]'"):
        log(tmp_path, name)


def test_every_logger_of_the_configuration_has_a_tracker() -> None:
    assert set(TRACKERS) == {"csv", "tensorboard", "mlflow", "wandb"}
