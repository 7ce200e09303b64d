"""Adaptation of a backbone on images: LoRA, DoRA or every weight."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from workzone.config.run import TrackingConfig, TrainConfig
from workzone.config.views import ViewSpec
from workzone.data.roles import SelectData, TrainData
from workzone.errors import ConfigError, DataError, LeakageError
from workzone.models.adapters import apply_adapter, merge, trainable_parameters
from workzone.models.backbones import Backbone
from workzone.models.heads import ProbeHead
from workzone.training.datasets import data_sets
from workzone.training.distributed import batch_share, world
from workzone.training.images import ImageViews, Loader, make_loaders
from workzone.training.selection import select_scores

_STATISTICS = 512


@dataclass(frozen=True, slots=True)
class Adapted:
    """A trained backbone.

    Attributes:
        backbone: plain, adapters merged, frozen, in evaluation mode.
        head: the head it was trained with, in evaluation mode.
        metrics: selection figures of the best epoch, epochs run, trainable parameters.
        trace: loss of each training step of this process as (position, loss), the mean over processes.
        select_log_odds: (N,) scores of the selection images by these weights, in their order.
    """

    backbone: Backbone
    head: ProbeHead
    metrics: dict[str, Any]
    trace: tuple[tuple[int, float], ...]
    select_log_odds: NDArray[np.float64]


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
    layout: ViewSpec | None = None,
) -> Adapted:
    """Train ``backbone`` with a head on the images of ``train`` and return it with the weights of its best epoch.

    Images are their whole view; with ``config.views`` each step also sees that many random tiles of each, and the score
    of an image is pooled over its views. Selection then looks at all tiles.

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
        load: reads the views of one image; None decodes files as the bundle does.
        layout: grid that tiles are taken from; needed with ``config.views``.

    Raises:
        ConfigError: method frozen, tiles without a grid, or a backbone that cannot be adapted.
        LeakageError: images of another role.
        DataError: images without paths, unreadable images, one class only.
    """
    from workzone.training.module import MONITOR, ImageModule
    from workzone.training.trainer import best_checkpoint, epochs_done, last_checkpoint, make_trainer

    _check(train, select, config)
    sets = data_sets(train, config)
    module = ImageModule(
        prepare(backbone, config, seed),
        _head(backbone, config, seed, train.labels.mean()),
        config,
        seed=seed,
        pos_weight=pos_weight,
        sets=sets,
    )
    tiles = _layout(config, layout)
    views = ImageViews(train, backbone.image_size, load=load, views=tiles)
    held = ImageViews(select, backbone.image_size, load=load, views=tiles)
    _set_statistics(module.head, backbone, views)
    rank, size, _ = world()
    share = {"batch_size": batch_share(config), "rank": rank, "world": size}
    loaders = make_loaders(views, held, seed=seed, workers=workers, draw=sets.draw, **share)
    # The weights of a sharded module cannot be put back into it from outside.
    whole = copy.deepcopy(module) if size > 1 and config.strategy == "fsdp2" else module
    trainer = make_trainer(config, folder, monitor=MONITOR, device=device, tracking=tracking, callbacks=callbacks)
    start = last_checkpoint(folder) if resume else None
    if start is not None:
        # Lightning asks for the first images, and worker processes fetch them, before it names the epoch.
        loaders[0].sampler.set_epoch(epochs_done(start))  # type: ignore[attr-defined]
    # Lightning keeps each module's mode, and a pretrained backbone arrives in evaluation mode.
    module.train()
    fitted: Any = torch.compile(module) if config.compile else module
    trainer.fit(fitted, *loaders, ckpt_path=start, weights_only=True)
    best = best_checkpoint(trainer, MONITOR)
    state = torch.load(best, map_location="cpu", weights_only=True)
    whole.load_state_dict(state["state_dict"])
    if whole is module:
        figures = trainer.validate(module, loaders[1], verbose=False)[0]
        log_odds = module.select_log_odds
    else:
        log_odds = _scores(whole.to(trainer.strategy.root_device).eval(), loaders[1])
        figures = select_scores(log_odds, select.labels)
    whole.to("cpu").eval()
    return Adapted(
        backbone=merge(whole.backbone),
        head=whole.head,
        metrics={
            "val_select": {k.removeprefix("val_"): float(v) for k, v in figures.items() if k != MONITOR},
            "best_epoch": int(state["epoch"]),
            "epochs": int(trainer.current_epoch),
            "method": config.method,
            "trainable_parameters": trainable_parameters(whole),
            "processes": size,
        },
        trace=tuple(module.trace),
        select_log_odds=log_odds,
    )


@torch.no_grad()
def _scores(module: nn.Module, loader: Iterable[Any]) -> NDArray[np.float64]:
    device = next(module.parameters()).device
    return torch.cat([module(pixels.to(device)).float().cpu() for pixels, *_ in loader]).numpy().astype(np.float64)


def prepare(backbone: Backbone, config: TrainConfig, seed: int) -> Backbone:
    """Copy of ``backbone`` with what ``config.method`` trains requiring gradients; raises ConfigError for frozen."""
    if config.method == "frozen":
        raise ConfigError(
            "method frozen trains no backbone", where="train.method", fix="take lora, dora, doran, explora or full"
        )
    if config.method != "full":
        return apply_adapter(backbone, config.adapter, config.method, seed)
    copied = copy.deepcopy(backbone)
    for parameter in copied.parameters():
        parameter.requires_grad_(True)
    return copied


def _layout(config: TrainConfig, layout: ViewSpec | None) -> ViewSpec | None:
    if not config.views:
        return None
    if layout is None or layout.fixed_tiles < config.views:
        raise ConfigError(
            f"there is no grid of at least {config.views} tiles", where="train.views", fix="use views.layout=grid"
        )
    return layout


def _check(train: object, select: object, config: TrainConfig) -> None:
    for data, kind in ((train, TrainData), (select, SelectData)):
        if not isinstance(data, kind):
            raise LeakageError(
                f"adapt_backbone was handed {type(data).__name__} in place of {kind.__name__}",
                fix=f"pass the images of role {kind.role}",
            )
    assert isinstance(train, TrainData)
    if config.strategy == "fsdp2" and config.optimizer != "adamw":
        raise ConfigError(
            f"optimizer {config.optimizer} is not known to work on shared weights",
            where="train.strategy",
            fix="use optimizer=adamw, or strategy=ddp",
        )
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
    # Of an image with tiles, the whole and one tile in turn.
    pixels = []
    for row in rows:
        seen = views[row][0]
        pixels += [seen] if seen.ndim == 3 else [seen[0], seen[1 + row % (len(seen) - 1)]]
    parts = [backbone.eval()(torch.stack(pixels[i : i + 16])) for i in range(0, len(pixels), 16)]
    head.set_statistics(torch.cat(parts))
