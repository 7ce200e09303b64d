"""AdEMAMix: a second, slow momentum."""

from __future__ import annotations

from torch.optim import Optimizer

from workzone.training.optimisers.base import Group, Method, Plan

ALPHA = 5.0


def make_ademamix(groups: list[Group], plan: Plan) -> Optimizer:
    """AdEMAMix, ramps as long as the run, decay decoupled (Pagliardini, Ablin, Grangier 2024, arXiv 2409.03137)."""
    from pytorch_optimizer import AdEMAMix

    optimizer: Optimizer = AdEMAMix(
        groups,
        betas=(0.9, 0.999, slow_decay(plan.total)),
        alpha=ALPHA,
        t_alpha_beta3=float(plan.total),
        weight_decouple=True,
    )
    return optimizer


def slow_decay(total: int) -> float:
    """Decay whose half-life is 15 % of ``total`` updates, between 0.95 and the paper's 0.9999 (6,900 updates)."""
    return min(0.9999, max(0.95, float(0.5 ** (1.0 / (0.15 * max(1, total))))))


METHOD = Method("ademamix", make_ademamix)
