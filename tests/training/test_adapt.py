from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.patches import Killed, draw, lightning_killer, role
from workzone.config.run import AdapterConfig, TrackingConfig, TrainConfig
from workzone.data.roles import CalibData, SelectData, TrainData
from workzone.errors import ConfigError, DataError, LeakageError, MissingExtraError
from workzone.training.adapt import adapt_backbone
from workzone.training.optimisers import OPTIMISERS

GOLDEN = Path(__file__).parent / "golden" / "loss_trace.json"


def test_dropout_and_batch_norm_are_in_the_modes_they_should_be(tiny, tmp_path):
    import lightning as L

    seen: list[set[bool]] = []

    class Modes(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            kinds = [m.training for m in module.modules() if isinstance(m, torch.nn.Dropout)]
            norms = [m.training for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
            seen.append({all(kinds), *norms})

    def with_norm(*_: object):
        backbone = tiny()
        backbone.network.extra = torch.nn.BatchNorm2d(3)
        return backbone

    run(with_norm, tmp_path, config(method="full", epochs=2), callbacks=[Modes()])
    assert len(seen) == 8
    assert all(modes == {True, False} for modes in seen)


def config(**changes) -> TrainConfig:
    base = {
        "method": "lora",
        "adapter": AdapterConfig(rank=4, alpha=4, dropout=0.1, init="zero"),
        "epochs": 3,
        "batch_size": 8,
        "lr": 3e-3,
        "backbone_lr": 3e-3,
        "hidden": 8,
        "drop_path": 0.0,
        "augment": "light",
        "patience": 10,
    }
    return TrainConfig(**(base | changes))


def run(tiny, folder, cfg, **more):
    return adapt_backbone(
        tiny(), role(TrainData, 32, 0), role(SelectData, 16, 1000), cfg, seed=5, folder=folder, load=draw, **more
    )


@pytest.mark.parametrize(("method", "ema", "workers"), [("dora", 0.0, 0), ("full", 0.9, 0), ("full", 0.0, 2)])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tiny, tmp_path, method, ema, workers):
    cfg = config(method=method, ema=ema, epochs=4)
    whole = run(tiny, tmp_path / "whole", cfg, workers=workers)
    with pytest.raises(Killed):
        run(tiny, tmp_path / "killed", cfg, callbacks=[lightning_killer(2, 1)], workers=workers)
    resumed = run(tiny, tmp_path / "killed", cfg, workers=workers)
    expected = dict(whole.trace)
    assert len(whole.trace) == 16
    assert [position for position, _ in resumed.trace] == sorted(expected)[8:]
    assert all(loss == expected[position] for position, loss in resumed.trace)
    assert resumed.backbone.fingerprint() == whole.backbone.fingerprint()
    assert resumed.metrics == whole.metrics
    finished = run(tiny, tmp_path / "killed", cfg)
    assert finished.trace == ()
    assert finished.backbone.fingerprint() == whole.backbone.fingerprint()


def test_learns_and_leaves_a_plain_backbone(tiny, tmp_path):
    base = tiny()
    done = adapt_backbone(
        base,
        role(TrainData, 64, 0),
        role(SelectData, 32, 1000),
        config(epochs=12, augment="none", backbone_lr=1e-2, adapter=AdapterConfig(rank=4, alpha=4, dropout=0.0)),
        seed=0,
        folder=tmp_path,
        load=draw,
    )
    assert done.metrics["val_select"]["auroc"] > 0.9
    assert done.trace[-1][1] < 0.8 * done.trace[0][1]
    assert done.backbone.network.state_dict().keys() == base.network.state_dict().keys()
    assert base.fingerprint() == tiny().fingerprint()
    assert not any(p.requires_grad for p in done.backbone.parameters())
    with torch.inference_mode():
        held = role(SelectData, 32, 1000)
        pixels = torch.from_numpy(np.stack([draw(p) for p in held.paths]))
        scores = done.head(done.backbone(pixels)).numpy()
    assert np.mean((scores > 0) == held.labels) == pytest.approx(done.metrics["val_select"]["accuracy"])
    names = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert "last.ckpt" in names
    assert 1 <= len(names) - 1 <= 3
    assert (tmp_path / "logs" / "csv" / "metrics.csv").is_file()


@pytest.mark.golden
def test_loss_trace_is_the_stored_one(tiny, tmp_path):
    done = run(tiny, tmp_path, config(method="dora", accumulate=2, lr=3e-2, backbone_lr=1e-2))
    got = [round(loss, 6) for _, loss in done.trace]
    assert got == pytest.approx(json.loads(GOLDEN.read_text()), abs=1e-4)


def test_roles_methods_and_data_are_checked(tiny, tmp_path):
    train, held = role(TrainData, 8, 0), role(SelectData, 8, 50)
    more = {"seed": 0, "folder": tmp_path, "load": draw}
    with pytest.raises(LeakageError, match="CalibData in place of SelectData"):
        adapt_backbone(tiny(), train, role(CalibData, 8, 50), config(), **more)
    with pytest.raises(LeakageError, match="SelectData in place of TrainData"):
        adapt_backbone(tiny(), held, held, config(), **more)
    with pytest.raises(ConfigError, match="frozen"):
        adapt_backbone(tiny(), train, held, config(method="frozen"), **more)
    with pytest.raises(DataError, match="one class"):
        adapt_backbone(tiny(), train.take(np.arange(0, 8, 2)), held, config(), **more)
    with pytest.raises(ConfigError, match="fp16"):
        adapt_backbone(tiny(), train, held, config(precision="fp16"), device="cpu", **more)


@pytest.mark.parametrize("optimizer", list(OPTIMISERS))
def test_mixed_precision_trains_with_clipped_gradients(tiny, tmp_path, optimizer):
    done = run(tiny, tmp_path, config(method="full", epochs=1, precision="bf16", clip=1.0, optimizer=optimizer))
    assert np.isfinite([loss for _, loss in done.trace]).all()
    assert len(done.trace) > 1


def test_unreadable_training_image_is_named(tiny, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    paths = np.array([str(tmp_path / "broken.jpg")] * 4)
    data = {"ids": np.array(list("abcd")), "labels": np.array([0, 1, 0, 1]), "groups": np.array(list("abcd"))}
    with pytest.raises(DataError, match=r"cannot be read.*broken\.jpg"):
        adapt_backbone(
            tiny(), TrainData(**data, paths=paths), SelectData(**data, paths=paths), config(), seed=0, folder=tmp_path
        )


def test_missing_logger_names_its_extra(tmp_path, monkeypatch):
    from lightning.pytorch import loggers

    from workzone.training.trainer import make_loggers

    def absent(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("wandb")

    monkeypatch.setattr(loggers, "WandbLogger", absent)
    with pytest.raises(MissingExtraError, match=r"workzone\[ops\]"):
        make_loggers(TrackingConfig(loggers=("wandb",)), tmp_path)
    assert [type(x).__name__ for x in make_loggers(TrackingConfig(), tmp_path)] == ["CSVLogger", "TensorBoardLogger"]
