"""One process of a distributed training: ``torchrun -m workzone.training.worker JOB``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from workzone.config.run import TrackingConfig, TrainConfig
from workzone.config.views import ViewSpec
from workzone.data.roles import RoleData, SelectData, TrainData
from workzone.files import read_json, write_json

R = TypeVar("R", bound=RoleData)


def main(job: Path) -> None:
    """Train what ``job`` describes; rank 0 writes ``result/`` there."""
    from workzone.models.backbones import load_backbone, save_backbone
    from workzone.training.adapt import adapt_backbone
    from workzone.training.distributed import world

    told: dict[str, Any] = read_json(job / "job.json")
    config = TrainConfig.model_validate(told["config"])
    adapted = adapt_backbone(
        load_backbone(job, drop_path=config.drop_path, checkpointing=config.checkpointing),
        _role(TrainData, told["train"]),
        _role(SelectData, told["select"]),
        config,
        seed=told["seed"],
        folder=Path(told["folder"]),
        device=told["device"],
        workers=told["workers"],
        tracking=TrackingConfig.model_validate(told["tracking"]) if told["tracking"] else None,
        layout=ViewSpec.model_validate(told["layout"]) if told["layout"] else None,
    )
    if world()[0] == 0:
        save_backbone(adapted.backbone, job / "result")
        write_json(job / "result" / "metrics.json", adapted.metrics)


def _role(kind: type[R], told: dict[str, Any]) -> R:
    ids, groups, paths = (np.array(told[k], dtype=np.str_) for k in ("ids", "groups", "paths"))
    columns = {name: np.array(values) for name, values in told["columns"].items()}
    labels = np.array(told["labels"], dtype=np.int64)
    return kind(ids=ids, labels=labels, groups=groups, paths=paths, columns=columns)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
