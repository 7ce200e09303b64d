"""Aggregators over the views of an image, by name; a member is one class that follows ``Aggregator``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from workzone.config.run import FuseConfig
from workzone.errors import ConfigError
from workzone.models.aggregators.attention import Attention
from workzone.models.aggregators.attention_mlp import AttentionMLP
from workzone.models.aggregators.base import MASKED, Aggregator
from workzone.models.aggregators.ensemble import Ensemble
from workzone.models.aggregators.global_view import GlobalView
from workzone.models.aggregators.logsumexp import LogSumExp
from workzone.models.aggregators.noisy_or import NoisyOr
from workzone.models.aggregators.topk_mean import TopKMean
from workzone.models.aggregators.view_attention import ViewAttention

AGGREGATORS: Mapping[str, type[Aggregator]] = {
    "attention": Attention,
    "attention_mlp": AttentionMLP,
    "topk_mean": TopKMean,
    "logsumexp": LogSumExp,
    "noisy_or": NoisyOr,
    "view_attention": ViewAttention,
    "global": GlobalView,
}

MIX = ("logsumexp", "topk_mean", "noisy_or")
"""Aggregators that the members of ``fuse.aggregator=mix`` take in turn."""

_OWN: Mapping[str, Callable[[FuseConfig], dict[str, Any]]] = {
    "topk_mean": lambda config: {"k": config.k},
    "logsumexp": lambda config: {"sharpness": config.sharpness, "learned": config.learn_sharpness},
    "view_attention": lambda config: {
        "heads": config.heads,
        "spatial": config.spatial,
        "backend": config.backend,
    },
}

__all__ = [
    "AGGREGATORS",
    "MASKED",
    "MIX",
    "Aggregator",
    "Attention",
    "AttentionMLP",
    "Ensemble",
    "GlobalView",
    "LogSumExp",
    "NoisyOr",
    "TopKMean",
    "ViewAttention",
    "build_aggregator",
    "create_aggregator",
]


def create_aggregator(config: FuseConfig, dim: int, *, member: int = 0, **options: Any) -> Aggregator:
    """Member number ``member`` of ``config`` for embeddings of width ``dim``; ``options`` go to its constructor."""
    name = MIX[member % len(MIX)] if config.aggregator == "mix" else config.aggregator
    settings: dict[str, Any] = {"dim": dim, "hidden": config.hidden, "dropout": config.dropout}
    if name in _OWN:
        settings |= _OWN[name](config)
    return build_aggregator(name, settings | options)


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
