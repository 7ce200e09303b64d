"""Cosine schedule with warm-up and floor."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def cosine_factor(step: int, *, total: int, warmup: int, floor: float) -> float:
    """Share of the peak rate at ``step``: linear up to ``warmup``, then cosine down to ``floor`` at ``total``."""
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * done))


def make_schedule(
    optimizer: Optimizer, *, total: int, warmup: float, min_lr: float, scheduled: bool = True
) -> LambdaLR:
    """Cosine schedule over ``total`` updates with a ``warmup`` share; every group ends at ``min_lr``.

    Without ``scheduled`` the rate is constant.
    """
    steps = round(total * warmup)

    def factor(peak: float) -> Any:
        if not scheduled:
            return lambda step: 1.0
        floor = min(1.0, min_lr / peak)
        return lambda step: cosine_factor(step, total=total, warmup=steps, floor=floor)

    # A group whose optimiser counts in other units says by how much.
    peaks = [float(group["lr"]) / float(group.get("unit", 1.0)) for group in optimizer.param_groups]
    return LambdaLR(optimizer, [factor(peak) for peak in peaks])
