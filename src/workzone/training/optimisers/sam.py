"""SAM and ASAM: the gradient at the worst point nearby, with AdamW as base."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from workzone.training.optimisers.base import BETAS, Group, Method, Plan

RHO = {"sam": 0.05, "asam": 0.5}
"""Radii. ASAM's is measured in units of the weights, so that SAM's would have almost no effect on it."""


def make_sam(groups: list[Group], plan: Plan, *, adaptive: bool = False) -> Optimizer:
    """SAM (Foret et al. 2021, arXiv 2010.01412), or ASAM (Kwon et al. 2021, arXiv 2102.11600)."""
    from pytorch_optimizer import SAM

    class TwoPass(SAM):
        """SAM whose step computes both gradients by its closure, the second with the random draws of the first."""

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            if closure is None:
                raise ValueError("SAM computes gradients twice and needs a closure")
            devices = {p.device for g in self.param_groups for p in g["params"] if p.device.type == "cuda"}
            before = torch.get_rng_state(), {d: torch.cuda.get_rng_state(d) for d in devices}
            with torch.enable_grad():
                loss = closure()
            after = torch.get_rng_state(), {d: torch.cuda.get_rng_state(d) for d in devices}
            self.first_step(zero_grad=True)
            _restore(*before)
            with torch.enable_grad():
                closure()
            self.second_step()
            _restore(*after)
            return loss

    return TwoPass(groups, torch.optim.AdamW, rho=RHO["asam" if adaptive else "sam"], adaptive=adaptive, betas=BETAS)


def _restore(cpu: torch.Tensor, cuda: dict[torch.device, torch.Tensor]) -> None:
    torch.set_rng_state(cpu)
    for device, state in cuda.items():
        torch.cuda.set_rng_state(state, device)


def make_asam(groups: list[Group], plan: Plan) -> Optimizer:
    """``make_sam`` in its adaptive form."""
    return make_sam(groups, plan, adaptive=True)


SAM_METHOD = Method("sam", make_sam, passes=2)
ASAM_METHOD = Method("asam", make_asam, passes=2)
