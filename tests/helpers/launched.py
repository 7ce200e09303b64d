"""One process of a distributed training of the tiny network: ``launched.py OUT STRATEGY EPOCHS [weighed]``."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from helpers.networks import tiny_backbone
from helpers.patches import R, draw, role
from workzone.data.roles import SelectData, TrainData


def weighed_role(kind: type[R], n: int, start: int) -> R:
    data = role(kind, n, start)
    columns = {
        "sample_weight": np.where(data.labels == 1, 1.5, 0.5), "loss_weight": np.where(data.labels == 1, 0.7, 1.3),
    }  # fmt: skip
    return replace(data, columns=columns)


def train(out: Path, strategy: str, epochs: int, batch_size: int = 8, *, weighed: bool = False) -> dict[str, object]:
    from workzone.config.run import TrainConfig
    from workzone.training.adapt import adapt_backbone

    config = TrainConfig(
        method="full", epochs=epochs, batch_size=batch_size, lr=3e-2, backbone_lr=3e-3, hidden=8, dropout=0.0,
        augment="none", patience=50, strategy=strategy, mixture="manifest" if weighed else "none",
    )  # fmt: skip
    done = adapt_backbone(
        tiny_backbone(), weighed_role(TrainData, 32, 0), weighed_role(SelectData, 15, 1000), config, seed=5,
        folder=out, device="cpu", load=draw,
    )  # fmt: skip
    weights = torch.cat([p.detach().flatten() for p in done.backbone.parameters()])
    return {
        "trace": [[at, loss] for at, loss in done.trace],
        "metrics": done.metrics,
        "scores": done.select_log_odds.tolist(),
        "weights": [float(weights.double().sum()), float(weights.double().square().sum())],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    found = train(folder, sys.argv[2], int(sys.argv[3]), weighed="weighed" in sys.argv[4:])
    (folder / f"rank{os.environ.get('RANK', '0')}.json").write_text(json.dumps(found))
