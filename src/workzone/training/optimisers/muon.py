"""Muon for hidden matrices, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Muon, Optimizer

from workzone.errors import ConfigError
from workzone.training.optimisers.adamw import make_adamw
from workzone.training.optimisers.base import Group, Method, Plan


class MuonWithAdamW(Optimizer):
    """Two optimisers that step, save and load as one.

    Args:
        hidden: groups of hidden matrices.
        others: all other groups; may be empty.
        plan: length of the training.
    """

    def __init__(self, hidden: list[Group], others: list[Group], plan: Plan) -> None:
        # Moonshot's scaling has the size of AdamW's steps, so that rate and decay carry over (arXiv 2502.16982).
        self.parts: list[Optimizer] = [Muon(hidden, adjust_lr_fn="match_rms_adamw")]
        if others:
            self.parts.append(make_adamw(others, plan))
        super().__init__([{"params": p} for p in self._parameters()], {})
        self._link()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """States of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore ``state_dict()``."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._link()

    def _parameters(self) -> list[Any]:
        return [p for part in self.parts for group in part.param_groups for p in group["params"]]

    def _link(self) -> None:
        # The groups are those of the parts themselves: a schedule that sets a rate here sets it there.
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def make_muon(groups: list[Group], plan: Plan) -> MuonWithAdamW:
    """Muon (Jordan et al. 2024) on hidden matrices, orthogonalised at every update.

    Raises:
        ConfigError: no hidden matrix is trained.
    """
    hidden = [g for g in groups if g["hidden"]]
    if not hidden:
        raise ConfigError(
            "Muon has no hidden matrix to train", where="optimizer", fix="take a head with a hidden layer, or adamw"
        )
    return MuonWithAdamW(hidden, [g for g in groups if not g["hidden"]], plan)


METHOD = Method("muon", make_muon, split=True)
