"""Aggregators over the views of an image, by name; a member is one class that follows ``Aggregator``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from workzone.config.models import FuseConfig
from workzone.errors import ConfigError
from workzone.models.aggregators.attention import Attention
from workzone.models.aggregators.base import MASKED, Aggregator
from workzone.models.aggregators.ensemble import Ensemble
from workzone.models.aggregators.global_view import GlobalView
from workzone.models.aggregators.logsumexp import LogSumExp
from workzone.models.aggregators.topk_mean import TopKMean

AGGREGATORS: Mapping[str, type[Aggregator]] = {
    "attention": Attention,
    "topk_mean": TopKMean,
    "logsumexp": LogSumExp,
    "global": GlobalView,
}

_OWN: Mapping[str, Callable[[FuseConfig], dict[str, Any]]] = {"topk_mean": lambda config: {"k": config.k}}

__all__ = [
    "AGGREGATORS",
    "MASKED",
    "Aggregator",
    "Attention",
    "Ensemble",
    "GlobalView",
    "LogSumExp",
    "TopKMean",
    "build_aggregator",
    "create_aggregator",
]


def create_aggregator(config: FuseConfig, dim: int, **options: Any) -> Aggregator:
    """One aggregator of ``config`` for embeddings of width ``dim``; ``options`` go to the member's constructor."""
    settings: dict[str, Any] = {"dim": dim, "hidden": config.hidden, "dropout": config.dropout}
    if config.aggregator in _OWN:
        settings |= _OWN[config.aggregator](config)
    return build_aggregator(config.aggregator, settings | options)


def build_aggregator(name: str, settings: Mapping[str, Any]) -> Aggregator:
    """Member ``name`` from the settings that ``Aggregator.settings`` gave; raises ConfigError for what it is not."""
    if name not in AGGREGATORS:
        raise ConfigError(
            f"unknown aggregator {name!r}", where="fuse.aggregator", fix=f"take one of: {', '.join(AGGREGATORS)}"
        )
    try:
        return AGGREGATORS[name](**settings)
    except TypeError as error:
        raise ConfigError(f"settings do not fit aggregator {name!r}: {error}", where="fuse") from error
