"""Optimisers by name; a member is one ``Method``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from workzone.config.run import TrainConfig
from workzone.errors import ConfigError
from workzone.training.optimisers import adamw, ademamix, muon, schedule_free, sophia
from workzone.training.optimisers.base import Method, Plan, parameter_groups
from workzone.training.optimisers.sam import ASAM_METHOD, SAM_METHOD
from workzone.training.optimisers.schedule import cosine_factor, make_schedule

OPTIMISERS: Mapping[str, Method] = {
    method.name: method
    for method in (
        adamw.METHOD,
        SAM_METHOD,
        ASAM_METHOD,
        sophia.METHOD,
        schedule_free.METHOD,
        ademamix.METHOD,
        muon.METHOD,
    )
}

__all__ = [
    "OPTIMISERS",
    "Method",
    "backward",
    "check_training",
    "cosine_factor",
    "find_method",
    "make_optimizer",
    "make_schedule",
    "parameter_groups",
]


def find_method(name: str, *, where: str = "optimizer") -> Method:
    """Optimiser ``name``; raises ConfigError for one that does not exist."""
    if name not in OPTIMISERS:
        raise ConfigError(f"unknown optimizer {name!r}", where=where, fix=f"take one of: {', '.join(OPTIMISERS)}")
    return OPTIMISERS[name]


def make_optimizer(
    parts: Iterable[tuple[nn.Module, float]],
    *,
    weight_decay: float,
    name: str = "adamw",
    total: int = 1,
    warmup: float = 0.0,
    fused: bool = True,
) -> Optimizer:
    """Optimiser ``name`` for ``(module, peak learning rate)`` pairs, with ``weight_decay`` on matrices only.

    Args:
        parts: modules with their rates.
        weight_decay: decoupled decay.
        name: member of the family.
        total: updates in all, for members with ramps of their own.
        warmup: share of them for warm-up, for members that warm up themselves.
        fused: whether kernels may be fused, see ``Plan``.

    Raises:
        ConfigError: unknown name, or a member that has nothing to train.
    """
    method = find_method(name)
    groups = parameter_groups(parts, weight_decay, split=method.split)
    return method.make(groups, Plan(total=max(1, total), warmup=round(total * warmup), fused=fused))


def backward(loss: Tensor, *, create_graph: bool) -> None:
    """Gradients of ``loss``, differentiable themselves where ``create_graph`` says so."""
    with warnings.catch_warnings():
        # Gradients are set to None before the next update, which breaks the cycle that torch warns of.
        warnings.filterwarnings("ignore", "Using backward.. with create_graph=True", UserWarning)
        torch.autograd.backward(loss, create_graph=create_graph)


def check_training(config: TrainConfig, precision: str) -> None:
    """Raise ConfigError for settings of the image-level training that its optimiser does not go with.

    Args:
        config: settings of phase train.
        precision: Lightning's name of the precision.
    """
    method = find_method(config.optimizer, where="train.optimizer")
    again = method.passes > 1 or bool(method.graph_every)
    refused = {
        "train.accumulate": method.passes > 1 and config.accumulate > 1,
        "train.precision": again and precision.startswith("16"),
        "train.compile": bool(method.graph_every) and config.compile,
        "train.ema": method.averaged and config.ema > 0.0,
    }
    for key, wrong in refused.items():
        if wrong:
            reason = "averages weights itself" if key == "train.ema" else "computes gradients more than once an update"
            raise ConfigError(
                f"{method.name} {reason}, which does not go with {key}", where=key, fix="take its default"
            )
