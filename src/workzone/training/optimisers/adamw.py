"""AdamW."""

from __future__ import annotations

from torch.optim import AdamW

from workzone.training.optimisers.base import BETAS, Group, Method, Plan


def make_adamw(groups: list[Group], plan: Plan) -> AdamW:
    """AdamW with betas 0.9 and 0.95, in its fused form on devices that have it (Loshchilov, Hutter 2019)."""
    able = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for g in groups for p in g["params"])
    return AdamW(groups, betas=BETAS, fused=plan.fused and able)


METHOD = Method("adamw", make_adamw)
