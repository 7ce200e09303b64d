"""The network of the failure gate; what it learned leaves as numbers for ``workzone.decisions``."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from workzone.decisions.failure import MLP
from workzone.decisions.failure.mlp import HIDDEN
from workzone.decisions.failure.model import standardisation
from workzone.predictions import FloatArray

DROPOUT = (0.2, 0.1, 0.05)
POS_WEIGHT = 2.0
EPOCHS, LR = 20, 1e-3
_BATCH, _STEPS = 32, 16


class GateNetwork(nn.Module):
    """Linear, batch norm, ReLU and dropout three times (128, 64, 32 units), then one log-odds of a mistake.

    Args:
        dim: number of measures D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        widths = (dim, *HIDDEN)
        self.linear = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, (*HIDDEN, 1), strict=True))
        self.norm = nn.ModuleList(nn.BatchNorm1d(b) for b in HIDDEN)

    def forward(self, measures: Tensor) -> Tensor:
        """Log-odds (N,) of standardised measures (N, D)."""
        x = measures
        for linear, norm, share in zip(self.linear, self.norm, DROPOUT, strict=False):
            x = F.dropout(torch.relu(norm(linear(x))), share, self.training)
        out: Tensor = self.linear[-1](x)
        return out.squeeze(-1)

    @torch.no_grad()
    def folded(self) -> list[tuple[FloatArray, FloatArray]]:
        """Weights and bias of each layer in evaluation mode, batch norm folded in."""
        layers = []
        for i, linear in enumerate(self.linear):
            assert isinstance(linear, nn.Linear)
            w, b = linear.weight.double(), linear.bias.double()
            if i < len(self.norm):
                norm = self.norm[i]
                assert isinstance(norm, nn.BatchNorm1d)
                assert norm.running_mean is not None
                assert norm.running_var is not None
                gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
                w, b = w * gain[:, None], (b - norm.running_mean.double()) * gain + norm.bias.double()
            layers.append((w.numpy(), b.numpy()))
        return layers


def fit_mlp(names: tuple[str, ...], measures: FloatArray, wrong: NDArray[np.bool_], /, *, seed: int = 0) -> MLP:
    """Train on measures (N, D) and whether the answer was wrong (N,); the ``fit_model`` of policy ``gate``.

    A mistake weighs twice as much as a right answer; AdamW at 1e-3, 20 epochs. The batch grows with N beyond 32 images,
    so that an epoch has about 16 steps and a comparison out of fold takes about a second at any N.

    Raises:
        ValueError: fewer than two images, for which batch norm has no deviation.
    """
    if len(wrong) < 2:
        raise ValueError(f"the network needs at least 2 images, got {len(wrong)}")
    mean, scale = standardisation(measures)
    x = torch.from_numpy(((measures - mean) / scale).astype(np.float32))
    layers = train_network(x, torch.from_numpy(wrong.astype(np.float32)), seed=seed).folded()
    varies = np.isfinite(scale)
    # What never varied was never learned from: its random first weights would answer if it varied later.
    layers[0] = (layers[0][0] * varies, layers[0][1])
    return MLP.build(names, mean, np.where(varies, scale, 1.0), layers)


def train_network(x: Tensor, wrong: Tensor, *, seed: int) -> GateNetwork:
    """Network trained on standardised measures (N, D) and mistakes (N,), in evaluation mode; leaves torch's own
    random state as it was.
    """
    n = len(x)
    batch = max(_BATCH, math.ceil(n / _STEPS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = GateNetwork(x.shape[1]).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=LR)
        loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(POS_WEIGHT))
        for _ in range(EPOCHS):
            order = torch.randperm(n)
            for start in range(0, n, batch):
                rows = order[start : start + batch]
                if len(rows) < 2:
                    continue
                optimizer.zero_grad()
                loss(network(x[rows]), wrong[rows]).backward()
                optimizer.step()
    return network.eval()
