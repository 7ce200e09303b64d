"""AdamW with decay on matrices only, and a cosine schedule with warm-up and floor."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

BETAS = (0.9, 0.95)


def parameter_groups(parts: Iterable[tuple[nn.Module, float]], weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters of ``(module, peak learning rate)`` pairs, with ``weight_decay`` on matrices only.

    Biases, norms, scales and single vectors are not decayed.
    """
    groups: list[dict[str, Any]] = []
    for module, lr in parts:
        trained = [p for p in module.parameters() if p.requires_grad]
        for decay, members in (
            (weight_decay, [p for p in trained if p.ndim >= 2]),
            (0.0, [p for p in trained if p.ndim < 2]),
        ):
            if members:
                groups.append({"params": members, "lr": lr, "weight_decay": decay})
    if not groups:
        raise ValueError("nothing is trainable")
    return groups


def make_optimizer(parts: Iterable[tuple[nn.Module, float]], *, weight_decay: float) -> AdamW:
    """AdamW with betas 0.9 and 0.95, in its fused form on devices that have it."""
    groups = parameter_groups(parts, weight_decay)
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for g in groups for p in g["params"])
    return AdamW(groups, betas=BETAS, fused=fused)


def cosine_factor(step: int, *, total: int, warmup: int, floor: float) -> float:
    """Share of the peak rate at ``step``: linear up to ``warmup``, then cosine down to ``floor`` at ``total``."""
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * done))


def make_schedule(optimizer: torch.optim.Optimizer, *, total: int, warmup: float, min_lr: float) -> LambdaLR:
    """Cosine schedule over ``total`` updates with a ``warmup`` share; every group ends at ``min_lr``."""
    steps = round(total * warmup)

    def factor(peak: float) -> Any:
        floor = min(1.0, min_lr / peak)
        return lambda step: cosine_factor(step, total=total, warmup=steps, floor=floor)

    return LambdaLR(optimizer, [factor(float(group["lr"])) for group in optimizer.param_groups])
