"""DoRAN: DoRA with a learnable positive term beside the norm it divides by, and optional auxiliary networks.

The weight is ``m * (W0 + s B A) / (|W0 + s B A| + tau)`` by rows; the norm is a constant for gradients.
``tau = softplus(rho)`` starts at 1 % of the mean row norm and ``m`` at ``|W0| + tau``, so that nothing changes at
step 0. The term is learned, not drawn: nothing here is random after the start.

Choices that the abstract leaves open are ours: one tau a layer; auxiliary networks ``W2 relu(W1)`` with a hidden width
equal to the rank, on a fused ``qkv`` alone, the first matrices shared by its three projections.

Reference: Diep, Dang, Truong, Dinh, Nguyen, Ho 2025 (arXiv 2510.04331).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Init = Literal["zero", "pissa", "pissa_niter_4"]
TAU_SHARE = 0.01
_PROJECTIONS = 3


class DoranLinear(nn.Module):
    """A linear layer with a trainable low-rank direction, magnitude and denominator.

    Args:
        base: layer (out, in); its weights are frozen, and become the residual with PiSSA.
        rank: rank r of the update.
        scale: factor s of the update.
        dropout: on the input of the update.
        init: ``zero``, or the principal part of the weight by an exact or a randomised decomposition.
        auxiliary: make the factors by small networks shared between the projections of a fused qkv.

    Raises:
        ValueError: auxiliary networks with PiSSA, or on a layer that is no fused qkv.
    """

    def __init__(
        self, base: nn.Linear, *, rank: int, scale: float, dropout: float, init: Init = "zero", auxiliary: bool = False
    ) -> None:
        super().__init__()
        if auxiliary and (init != "zero" or base.out_features % _PROJECTIONS):
            raise ValueError("auxiliary networks need the zero start and a fused qkv")
        self.base = base.requires_grad_(False)
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.parts = _PROJECTIONS if auxiliary else 1
        out, rows = base.out_features // self.parts, base.in_features
        norm = base.weight.detach().norm(dim=1)
        hidden = rank if auxiliary else 0
        self.lora_A = nn.Parameter(torch.empty(self.parts, rank, hidden or rows))
        self.lora_B = nn.Parameter(torch.zeros(self.parts, out, hidden or rank))
        nn.init.kaiming_uniform_(self.lora_A.view(-1, self.lora_A.shape[-1]), a=math.sqrt(5))
        self.lora_first_A = nn.Parameter(torch.empty(hidden, rows)) if auxiliary else None
        self.lora_first_B = nn.Parameter(torch.empty(hidden, rank)) if auxiliary else None
        for first in (self.lora_first_A, self.lora_first_B):
            if first is not None:
                nn.init.kaiming_uniform_(first, a=math.sqrt(5))
        if init != "zero":
            self._principal(rank, init)
        tau = max(TAU_SHARE * float(norm.mean()), 1e-6)
        self.lora_rho = nn.Parameter(torch.tensor(_inverse_softplus(tau), dtype=torch.float32))
        self.lora_magnitude = nn.Parameter(norm + self.tau.detach())

    @property
    def tau(self) -> Tensor:
        """The positive term beside the norm."""
        return F.softplus(self.lora_rho)

    def update(self) -> Tensor:
        """``s B A`` (out, in)."""
        a: Tensor = self.lora_A
        b: Tensor = self.lora_B
        if self.lora_first_A is not None and self.lora_first_B is not None:
            a, b = a @ F.relu(self.lora_first_A), b @ F.relu(self.lora_first_B)
        return self.scale * (b @ a).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (..., out) of inputs (..., in); dropout reaches the update only."""
        update = self.update()
        ratio = self._ratio(update)
        if not (self.training and self.dropout.p):
            return F.linear(x, ratio.unsqueeze(1) * (self.base.weight + update), self.base.bias)
        y = (F.linear(x, self.base.weight) + F.linear(self.dropout(x), update)) * ratio
        return y if self.base.bias is None else y + self.base.bias

    @torch.no_grad()
    def merge(self, safe_merge: bool = True) -> None:
        """Fold the update into the weights of ``base``; ``safe_merge`` refuses weights that are not finite."""
        update = self.update()
        merged = self._ratio(update).unsqueeze(1) * (self.base.weight + update)
        if safe_merge and not bool(torch.isfinite(merged).all()):
            raise ValueError("the merged weights are not finite")
        self.base.weight.copy_(merged)

    def get_base_layer(self) -> nn.Linear:
        """The plain layer."""
        return self.base

    def _ratio(self, update: Tensor) -> Tensor:
        norm = (self.base.weight + update).detach().norm(dim=1)
        ratio: Tensor = self.lora_magnitude / (norm + self.tau)
        return ratio

    @torch.no_grad()
    def _principal(self, rank: int, init: Init) -> None:
        weight = self.base.weight
        if init == "pissa":
            u, s, vh = torch.linalg.svd(weight, full_matrices=False)
            v = vh.T
        else:
            u, s, v = torch.svd_lowrank(weight, q=rank, niter=4)
        root = (s[:rank] / self.scale).sqrt()
        self.lora_A.copy_((root.unsqueeze(1) * v[:, :rank].T).unsqueeze(0))
        self.lora_B.copy_((u[:, :rank] * root).unsqueeze(0))
        weight.sub_(self.update())


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))
