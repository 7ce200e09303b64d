"""Sophia-H: steps clipped by an estimate of the curvature."""

from __future__ import annotations

from torch.optim import Optimizer

from workzone.training.optimisers.base import Group, Method, Plan

GAMMA = 0.01
PERIOD = 10


def make_sophia(groups: list[Group], plan: Plan) -> Optimizer:
    """Sophia with Hutchinson's estimate of the diagonal every ten updates (Liu et al. 2023, arXiv 2305.14342).

    The library moves by ``rate * clip(m / h, GAMMA)``, the paper by ``rate * clip(m / (GAMMA * h), 1)``; rate and decay
    are converted, so that ``lr`` and ``weight_decay`` are the paper's.
    """
    from pytorch_optimizer import SophiaH

    converted = [
        g | {"lr": g["lr"] / GAMMA, "weight_decay": g["weight_decay"] * GAMMA, "unit": 1.0 / GAMMA} for g in groups
    ]
    sophia: Optimizer = SophiaH(converted, betas=(0.96, 0.99), p=GAMMA, update_period=PERIOD, weight_decouple=True)
    return sophia


METHOD = Method("sophia", make_sophia, graph_every=PERIOD)
