"""Attention over views, plain and gated."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from workzone.models.aggregators.base import Aggregator, hide, masked_softmax
from workzone.models.heads import FeatureDropout, last_layer, set_bias


class Attention(Aggregator):
    """Attention MIL: ``a_v = w tanh(V h_v)``, gated ``a_v = w (tanh(V h_v) * sigmoid(U h_v))``, weights softmax(a).

    The classifier is linear in h, so the score of an image is the weighted mean of its view log-odds. The weights say
    what was averaged, not why.

    Reference: Ilse, Tomczak, Welling 2018 (arXiv 1802.04712).

    Args:
        gated: the gated form.
        width: width of V and U.
    """

    name: ClassVar[str] = "attention"

    def __init__(
        self, dim: int, *, hidden: int, dropout: float, boxes: bool = False, gated: bool = True, width: int = 128
    ) -> None:
        super().__init__(dim, hidden=hidden, dropout=dropout, boxes=boxes)
        self.gated, self.width = gated, width
        inner = hidden or self.input_dim
        self.body: nn.Module = nn.Sequential(
            FeatureDropout(dropout),
            *(
                [nn.Linear(self.input_dim, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Dropout(dropout)]
                if hidden
                else []
            ),
        )
        self.value = nn.Linear(inner, width)
        self.gate = nn.Linear(inner, width) if gated else None
        self.attention = nn.Linear(width, 1)
        self.classifier = last_layer(inner)

    def pool(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Aggregator.pool``."""
        h = self.body(features)
        key = torch.tanh(self.value(h))
        if self.gate is not None:
            key = key * torch.sigmoid(self.gate(h))
        weights = masked_softmax(self.attention(key).squeeze(-1), mask)
        views = hide(self.classifier(h).squeeze(-1), mask)
        return (weights * views).sum(dim=-1), views, weights

    def set_prior(self, prevalence: float, *, views: int = 1) -> None:
        """See ``Aggregator.set_prior``."""
        set_bias(self.classifier, prevalence)

    def settings(self) -> dict[str, Any]:
        """See ``Aggregator.settings``."""
        return super().settings() | {"gated": self.gated, "width": self.width}
