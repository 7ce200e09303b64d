"""Schedule-Free AdamW: an average of the iterates in place of a falling rate."""

from __future__ import annotations

from torch.optim import Optimizer

from workzone.training.optimisers.base import Group, Method, Plan


def make_schedule_free(groups: list[Group], plan: Plan) -> Optimizer:
    """Schedule-Free AdamW in training mode, with its own warm-up (Defazio et al. 2024, arXiv 2405.15682).

    Weights are evaluated and stored in its evaluation mode, see ``Method.set_mode``.
    """
    from schedulefree import AdamWScheduleFree  # type: ignore[import-untyped]

    optimizer: Optimizer = AdamWScheduleFree(groups, betas=(0.9, 0.999), warmup_steps=plan.warmup)
    optimizer.train()  # type: ignore[attr-defined]
    return optimizer


METHOD = Method("schedule_free", make_schedule_free, scheduled=False, averaged=True)
