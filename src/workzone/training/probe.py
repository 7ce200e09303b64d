"""The head that looks once, on cached features of the global view."""

from __future__ import annotations

from workzone.config.run import TrainConfig
from workzone.models.aggregators import Aggregator, GlobalView
from workzone.training.features import Features, require_roles
from workzone.training.fuse import HeadFit, Progress, fit_members
from workzone.training.loop import LoopSettings, Metric


def fit_probe(
    train: Features,
    select: Features,
    config: TrainConfig,
    *,
    seed: int,
    members: int = 1,
    metric: Metric = "nll",
    pos_weight: float | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> HeadFit:
    """Train a head on the first view of each image; the arguments are those of ``fit_aggregator``.

    The result has the form of an aggregator, so it is stored and exported like one.

    Raises:
        LeakageError: features of another role.
        DataError: one class only, no images.
    """
    require_roles(train, select, user="fit_probe")
    settings = LoopSettings.of(
        config,
        metric=metric,
        pos_weight=pos_weight,
        warmup=config.warmup,
        min_lr=config.min_lr,
        clip=config.clip,
        where="train",
    )

    def make() -> Aggregator:
        return GlobalView(train.dim, hidden=config.hidden, dropout=config.dropout)

    return fit_members(
        train.views(1), select.views(1), make, settings, seed=seed, members=members, device=device, progress=progress
    )
