"""Curves and figures of a run where people look at them: CSV and TensorBoard by default, MLflow and W&B on request.

The files of the run are the record; trackers are a view of it, written when a phase ends, so a killed phase leaves no
half curve behind.
"""

from __future__ import annotations

import csv
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from workzone.config import RunConfig
from workzone.errors import needs_extra
from workzone.files import atomic_path

Curve = Sequence[Mapping[str, float]]


class Tracker(ABC):
    """Takes the curves and figures of one phase; ``name`` is what ``tracking.loggers`` lists."""

    name: ClassVar[str]

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder

    @abstractmethod
    def log(self, phase: str, curves: Mapping[str, Curve], figures: Mapping[str, float]) -> None:
        """Record ``curves`` (name to one row per epoch) and final ``figures`` of ``phase``."""


class CsvTracker(Tracker):
    """One file per curve below ``tracking/csv``."""

    name: ClassVar[str] = "csv"

    def log(self, phase: str, curves: Mapping[str, Curve], figures: Mapping[str, float]) -> None:
        """See ``Tracker.log``."""
        shutil.rmtree(self.folder / "csv" / phase, ignore_errors=True)
        for name, curve in {**curves, "figures": [figures]}.items():
            columns = list(dict.fromkeys(key for row in curve for key in row))
            target = self.folder / "csv" / phase / f"{name}.csv"
            with atomic_path(target) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.DictWriter(stream, ["step", *columns], lineterminator="\n")
                writer.writeheader()
                writer.writerows({"step": step, **row} for step, row in enumerate(curve))


class TensorBoardTracker(Tracker):
    """Event files below ``tracking/tensorboard``; show them with ``tensorboard --logdir``."""

    name: ClassVar[str] = "tensorboard"

    def log(self, phase: str, curves: Mapping[str, Curve], figures: Mapping[str, float]) -> None:
        """See ``Tracker.log``."""
        with needs_extra("tensorboard", "train", feature="the tensorboard logger"):
            from torch.utils.tensorboard import SummaryWriter
        target = self.folder / "tensorboard" / phase
        shutil.rmtree(target, ignore_errors=True)
        for name, curve in curves.items():
            with SummaryWriter(str(target / name)) as writer:
                for step, row in enumerate(curve):
                    for key, value in row.items():
                        writer.add_scalar(f"{phase}/{key}", value, step)
        with SummaryWriter(str(target)) as writer:
            for key, value in figures.items():
                writer.add_scalar(f"{phase}/final/{key}", value, 0)


class MlflowTracker(Tracker):
    """One MLflow run per phase, in ``tracking.experiment``; SQLite beside the run unless a URI is given."""

    name: ClassVar[str] = "mlflow"

    def log(self, phase: str, curves: Mapping[str, Curve], figures: Mapping[str, float]) -> None:
        """See ``Tracker.log``."""
        # MLflow reports how it is used to its makers unless it is told not to.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        with needs_extra("mlflow-skinny", "ops", feature="the mlflow logger"):
            import mlflow
        self.folder.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(self.config.tracking.uri or f"sqlite:///{self.folder / 'mlflow.db'}")
        mlflow.set_experiment(self.config.tracking.experiment)
        with mlflow.start_run(run_name=f"{self.config.out.name}-{phase}"):
            mlflow.log_params(dict(_flat(self.config.model_dump(mode="json"))))
            for name, curve in curves.items():
                for step, row in enumerate(curve):
                    mlflow.log_metrics({f"{name}.{key}": value for key, value in row.items()}, step=step)
            mlflow.log_metrics(dict(figures))


class WandbTracker(Tracker):
    """One W&B run per phase, in the project ``tracking.experiment``.

    Runs are written to ``tracking/wandb`` and nothing leaves the machine, unless ``WANDB_MODE=online`` is set;
    ``wandb sync`` sends them later.
    """

    name: ClassVar[str] = "wandb"

    def log(self, phase: str, curves: Mapping[str, Curve], figures: Mapping[str, float]) -> None:
        """See ``Tracker.log``."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        with needs_extra("wandb", "ops", feature="the wandb logger"):
            import wandb
        self.folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=self.config.tracking.experiment,
            name=f"{self.config.out.name}-{phase}",
            dir=str(self.folder),
            config=self.config.model_dump(mode="json"),
            mode="online" if os.environ.get("WANDB_MODE") == "online" else "offline",
            # The run itself holds environment and commit; the tracker need not look at the machine again.
            settings=wandb.Settings(
                console="off", disable_git=True, save_code=False, silent=True, x_disable_meta=True, x_disable_stats=True
            ),
        )
        for name, curve in curves.items():
            for step, row in enumerate(curve):
                run.log({f"{name}/step": step, **{f"{name}/{key}": value for key, value in row.items()}})
        run.summary.update(dict(figures))
        run.finish()


TRACKERS: Mapping[str, type[Tracker]] = {
    cls.name: cls for cls in (CsvTracker, TensorBoardTracker, MlflowTracker, WandbTracker)
}


def track(
    config: RunConfig,
    folder: Path,
    phase: str,
    *,
    curves: Mapping[str, Curve] | None = None,
    figures: Mapping[str, float],
) -> None:
    """Hand the curves and figures of a finished phase to every logger of the configuration.

    Raises:
        MissingExtraError: the package of a logger is not installed.
    """
    for name in config.tracking.loggers:
        TRACKERS[name](config, folder).log(phase, curves or {}, figures)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
