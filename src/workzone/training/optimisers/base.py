"""What every optimiser is: parameter groups in, a torch optimiser and how it wants to be driven out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

BETAS = (0.9, 0.95)
Group = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """Length of the training that an optimiser is made for.

    Attributes:
        total: updates in all.
        warmup: updates of linear warm-up.
        fused: whether kernels may be fused; fused ones undo the scaling of mixed precision by themselves, after
            gradients were to be clipped.
    """

    total: int
    warmup: int
    fused: bool = True


@dataclass(frozen=True, slots=True)
class Method:
    """One optimiser of the family.

    Attributes:
        name: name in the configuration.
        make: builds it from parameter groups. ``step(closure)`` of every member computes the gradients by the closure.
        passes: how often it calls the closure for one update.
        graph_every: updates between those whose gradients must be differentiable themselves, 0 for never.
        scheduled: whether the rate follows the cosine; otherwise the member warms up itself and keeps its rate.
        averaged: whether it evaluates another point than it trains at, and has modes for the two.
        split: whether hidden matrices come in groups of their own, marked by the key ``hidden``.
    """

    name: str
    make: Callable[[list[Group], Plan], Optimizer]
    passes: int = 1
    graph_every: int = 0
    scheduled: bool = True
    averaged: bool = False
    split: bool = False

    def wants_graph(self, optimizer: Optimizer) -> bool:
        """Whether the gradients of the update to come must be differentiable."""
        return bool(self.graph_every) and int(optimizer.param_groups[0].get("step", 0)) % self.graph_every == 0

    def set_mode(self, optimizer: Any, *, training: bool) -> None:
        """Move the weights to where gradients are taken, or to where they are evaluated and stored."""
        if self.averaged:
            optimizer.train() if training else optimizer.eval()


def parameter_groups(
    parts: Iterable[tuple[nn.Module, float]], weight_decay: float, *, split: bool = False
) -> list[Group]:
    """Trainable parameters of ``(module, peak learning rate)`` pairs, with ``weight_decay`` on matrices only.

    Biases, norms, scales and single vectors are not decayed.

    Args:
        parts: modules with their rates.
        weight_decay: decoupled decay.
        split: give hidden matrices groups of their own, with ``hidden`` True.
    """
    groups: list[Group] = []
    for module, lr in parts:
        trained = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        chosen: dict[tuple[bool, bool], list[Tensor]] = {}
        for name, p in trained:
            chosen.setdefault((p.ndim >= 2, split and is_hidden_matrix(name, p)), []).append(p)
        for (matrix, hidden), members in sorted(chosen.items(), reverse=True):
            group: Group = {"params": members, "lr": lr, "weight_decay": weight_decay if matrix else 0.0}
            groups.append(group | ({"hidden": hidden} if split else {}))
    if not groups:
        raise ValueError("nothing is trainable")
    return groups


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter maps features to features: no kernel, embedding, last layer or factor of an adapter."""
    apart = ("patch_embed", "pos_embed", "cls_token", "reg_token", "lora_")
    return parameter.ndim == 2 and min(parameter.shape) > 2 and not any(part in name for part in apart)
