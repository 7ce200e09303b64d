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


def without_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Addresses that somebody tried to reach, all of which are refused; sockets of this machine alone work."""
    import socket

    asked: list[object] = []
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and str(address[0]) not in ("127.0.0.1", "::1"):  # type: ignore[index]
            asked.append(address)
            raise OSError("there is no network here")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
    return asked


@pytest.mark.slow
def test_mlflow_holds_the_curve_the_figures_and_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    asked = without_network(monkeypatch)
    log(tmp_path / "streets", "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'streets/tracking/mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "workzone"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "streets-fuse"
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"member0.loss": 0.5, "member0.auroc": 0.75, "mcc": 0.5}
    assert [m.value for m in client.get_metric_history(run.info.run_id, "member0.loss")] == [1.0, 0.5]
    assert run.data.params["data"] == "synthetic"
    assert run.data.params["seed"] == "0"
    assert asked == []
    assert not Path("mlruns").exists()


@pytest.mark.slow
def test_wandb_writes_a_run_that_can_be_sent_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    import socket

    monkeypatch.delenv("WANDB_MODE", raising=False)
    asked = without_network(monkeypatch)
    # W&B works in a process of its own: it would ask here.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        log(tmp_path / "streets", "wandb")
        listening.settimeout(0.5)
        with pytest.raises(TimeoutError):
            listening.accept()
    (folder,) = (tmp_path / "streets/tracking/wandb").glob("offline-run-*")
    (file,) = folder.glob("run-*.wandb")
    raw = file.read_bytes()
    for words in (b"member0/loss", b"member0/auroc", b"0.75", b"mcc", b"streets-fuse", b"synthetic"):
        assert words in raw, words
    assert asked == []
