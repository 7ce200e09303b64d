"""Adaptation of a backbone on images: LoRA, DoRA or every weight."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from workzone.config.models import TrackingConfig, TrainConfig
from workzone.data.roles import SelectData, TrainData
from workzone.errors import ConfigError, DataError, LeakageError
from workzone.models.adapters import apply_adapter, merge, trainable_parameters
from workzone.models.backbones import Backbone
from workzone.models.heads import ProbeHead
from workzone.training.images import ImageViews, Loader, make_loaders

_STATISTICS = 512


@dataclass(frozen=True, slots=True)
class Adapted:
    """A trained backbone.

    Attributes:
        backbone: plain, adapters merged, frozen, in evaluation mode.
        head: the head it was trained with, in evaluation mode.
        metrics: selection figures of the best epoch, epochs run, trainable parameters.
        trace: loss of each training step of this process as (position, loss).
    """

    backbone: Backbone
    head: ProbeHead
    metrics: dict[str, Any]
    trace: tuple[tuple[int, float], ...]


def adapt_backbone(
    backbone: Backbone,
    train: TrainData,
    select: SelectData,
    config: TrainConfig,
    *,
    seed: int,
    folder: Path,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: int = 0,
    tracking: TrackingConfig | None = None,
    pos_weight: float | None = None,
    resume: bool = True,
    callbacks: Sequence[Any] = (),
    load: Loader | None = None,
) -> Adapted:
    """Train ``backbone`` with a head on the global views of ``train`` and return it with the weights of its best epoch.

    The best epoch is that of the highest MCC on ``select``, NLL deciding between equals. A run that was killed goes on
    from ``folder/checkpoints/last.ckpt`` and gives what it would have given.

    Args:
        backbone: with pretrained weights; left as it is.
        train: images of role train, with paths.
        select: images of role val_select, with paths.
        config: method, adapter, optimisation.
        seed: seed of everything that draws.
        folder: receives checkpoints and logs.
        device: where to train.
        workers: processes that decode images.
        tracking: loggers.
        pos_weight: weight of a roadwork image in the loss, None for 1.
        resume: take up a checkpoint in ``folder`` if there is one.
        callbacks: further Lightning callbacks.
        load: reads one view; None decodes files as the bundle does.

    Raises:
        ConfigError: method frozen, or a backbone that cannot be adapted.
        LeakageError: images of another role.
        DataError: images without paths, unreadable images, one class only.
    """
    from workzone.training.module import MONITOR, ImageModule
    from workzone.training.trainer import best_checkpoint, last_checkpoint, make_trainer

    _check(train, select, config)
    module = ImageModule(
        prepare(backbone, config, seed),
        _head(backbone, config, seed, train.labels.mean()),
        config,
        seed=seed,
        pos_weight=pos_weight,
    )
    views = ImageViews(train, backbone.image_size, load=load)
    held = ImageViews(select, backbone.image_size, load=load)
    _set_statistics(module.head, backbone, views)
    loaders = make_loaders(views, held, batch_size=config.batch_size, seed=seed, workers=workers)
    trainer = make_trainer(config, folder, monitor=MONITOR, device=device, tracking=tracking, callbacks=callbacks)
    start = last_checkpoint(folder) if resume else None
    # Lightning keeps each module's mode, and a pretrained backbone arrives in evaluation mode.
    module.train()
    fitted: Any = torch.compile(module) if config.compile else module
    trainer.fit(fitted, *loaders, ckpt_path=start, weights_only=True)
    best = best_checkpoint(trainer, MONITOR)
    state = torch.load(best, map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])
    figures = trainer.validate(module, loaders[1], verbose=False)[0]
    module.to("cpu").eval()
    return Adapted(
        backbone=merge(module.backbone),
        head=module.head,
        metrics={
            "val_select": {k.removeprefix("val_"): float(v) for k, v in figures.items() if k != MONITOR},
            "best_epoch": int(state["epoch"]),
            "epochs": int(trainer.current_epoch),
            "method": config.method,
            "trainable_parameters": trainable_parameters(module),
        },
        trace=tuple(module.trace),
    )


def prepare(backbone: Backbone, config: TrainConfig, seed: int) -> Backbone:
    """Copy of ``backbone`` with what ``config.method`` trains requiring gradients; raises ConfigError for frozen."""
    if config.method in ("lora", "dora"):
        return apply_adapter(backbone, config.adapter, config.method, seed)
    if config.method == "full":
        copied = copy.deepcopy(backbone)
        for parameter in copied.parameters():
            parameter.requires_grad_(True)
        return copied
    raise ConfigError("method frozen trains no backbone", where="train.method", fix="take lora, dora or full")


def _check(train: object, select: object, config: TrainConfig) -> None:
    for data, kind in ((train, TrainData), (select, SelectData)):
        if not isinstance(data, kind):
            raise LeakageError(
                f"adapt_backbone was handed {type(data).__name__} in place of {kind.__name__}",
                fix=f"pass the images of role {kind.role}",
            )
    assert isinstance(train, TrainData)
    if not 0 < train.n_positive < len(train):
        raise DataError(
            "the training images have one class only", where=f"role {train.role}", fix="add the other class"
        )


def _head(backbone: Backbone, config: TrainConfig, seed: int, prevalence: float) -> ProbeHead:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = ProbeHead(backbone.embedding_dim, config.hidden, config.dropout)
    head.set_prior(float(prevalence))
    return head


@torch.no_grad()
def _set_statistics(head: ProbeHead, backbone: Backbone, views: ImageViews) -> None:
    """Standardise by a fixed spread of training images as the untouched backbone sees them."""
    rows = range(0, len(views), max(1, len(views) // _STATISTICS))
    pixels = [views[i][0] for i in rows]
    parts = [backbone.eval()(torch.stack(pixels[i : i + 16])) for i in range(0, len(pixels), 16)]
    head.set_statistics(torch.cat(parts))
