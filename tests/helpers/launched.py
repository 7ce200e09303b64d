"""One process of a distributed training of the tiny network: ``launched.py OUT STRATEGY EPOCHS [weighed]``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

SIDE = 32


def draw(path: str) -> np.ndarray:
    index, label = (int(part) for part in path.split("-"))
    rng = np.random.default_rng(index)
    view = rng.integers(60, 120, (SIDE, SIDE, 3), dtype=np.uint8)
    if label:
        y, x = rng.integers(0, 22, 2)
        view[y : y + 10, x : x + 10] = (250, 120, 10)
    return view


def train(out: Path, strategy: str, epochs: int, batch_size: int = 8, *, weighed: bool = False) -> dict[str, object]:
    from timm.models.vision_transformer import VisionTransformer

    from workzone.config.run import TrainConfig
    from workzone.data.roles import SelectData, TrainData
    from workzone.models.backbones import Backbone, BackboneSpec
    from workzone.training.adapt import adapt_backbone

    torch.manual_seed(0)
    network = VisionTransformer(img_size=SIDE, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)
    spec = BackboneSpec("tiny_vit", "vit", 8, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), "none", "cls")
    backbone = Backbone("tiny", spec, network, image_size=SIDE, pooling="cls").eval()

    def role(kind, n: int, start: int):
        labels = np.arange(n) % 2
        ids = np.array([f"{start + i}-{label}" for i, label in enumerate(labels)])
        columns = {
            "sample_weight": np.where(labels == 1, 1.5, 0.5), "loss_weight": np.where(labels == 1, 0.7, 1.3),
        }  # fmt: skip
        return kind(ids=ids, labels=labels, groups=ids, paths=ids, columns=columns)

    config = TrainConfig(
        method="full", epochs=epochs, batch_size=batch_size, lr=3e-2, backbone_lr=3e-3, hidden=8, dropout=0.0,
        augment="none", patience=50, strategy=strategy, mixture="manifest" if weighed else "none",
    )  # fmt: skip
    done = adapt_backbone(
        backbone, role(TrainData, 32, 0), role(SelectData, 15, 1000), config, seed=5, folder=out, device="cpu",
        load=draw,
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
