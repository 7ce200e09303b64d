"""Training by workers of Ray gives what training by processes of torchrun gives: the same worker function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workzone.config.run import ModelConfig, TrainConfig
from workzone.data.roles import SelectData, TrainData
from workzone.errors import ConfigError
from workzone.models.backbones import Backbone, scratch_backbone
from workzone.training.distributed import adapt_distributed

SIDE = 64


@pytest.fixture
def backbone() -> Backbone:
    return scratch_backbone(ModelConfig(backbone="efficientnet_lite0", image_size=SIDE), seed=3)


@pytest.fixture
def roles(tmp_path: Path) -> tuple[TrainData, SelectData]:
    rng = np.random.default_rng(0)

    def draw(kind, name: str, n: int):
        labels = np.arange(n) % 2
        paths = []
        for i, label in enumerate(labels):
            pixels = rng.integers(60, 120, (SIDE, SIDE, 3), dtype=np.uint8)
            pixels[20:40, 20:40] = (250, 120, 10) if label else (60, 60, 60)
            paths.append(str(tmp_path / f"{name}{i}.png"))
            Image.fromarray(pixels).save(paths[-1])
        ids = np.array([f"{name}{i}" for i in range(n)])
        return kind(ids=ids, labels=labels, groups=ids, paths=np.array(paths))

    return draw(TrainData, "t", 16), draw(SelectData, "s", 6)


def config(launcher: str, processes: int = 2) -> TrainConfig:
    return TrainConfig.model_validate(
        {"method": "full", "epochs": 2, "batch_size": 8, "hidden": 8, "dropout": 0.0, "augment": "none",
         "processes": processes, "launcher": launcher, "deterministic": True}
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_ray_and_torchrun_train_the_same(backbone, roles, tmp_path, ray_environment, monkeypatch, strategy):
    for name, value in {**ray_environment, "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    found = {}
    for launcher in ("torchrun", "ray"):
        own = config(launcher).model_copy(update={"strategy": strategy})
        trained, metrics = adapt_distributed(
            backbone, *roles, own, seed=5, folder=tmp_path / launcher, device="cpu", workers=0
        )
        found[launcher] = metrics, torch.cat([p.detach().flatten() for p in trained.parameters()])
    assert found["ray"][0]["processes"] == 2
    assert found["ray"][0] == found["torchrun"][0]
    assert torch.equal(found["ray"][1], found["torchrun"][1])
    before = torch.cat([p.detach().flatten() for p in backbone.parameters()])
    assert not torch.equal(found["ray"][1], before)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_that_is_too_small_is_named(backbone, roles, tmp_path, ray_environment, monkeypatch):
    for name, value in ray_environment.items():
        monkeypatch.setenv(name, value)
    many = config("ray", processes=64).model_copy(update={"batch_size": 64})
    with pytest.raises(ConfigError, match="64 processes do not fit"):
        adapt_distributed(backbone, *roles, many, seed=5, folder=tmp_path / "out", device="cpu")
