"""Plain attention over views, its weights from a network of two layers."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from workzone.models.aggregators.base import Aggregator, hide, masked_softmax
from workzone.models.heads import FeatureDropout, last_layer, set_bias


class AttentionMLP(Aggregator):
    """Weights ``softmax_v(MLP(h_v))`` with ``MLP: dim -> hidden -> LayerNorm, ReLU, dropout -> width -> 1``.

    The embeddings themselves are averaged by these weights and classified by one linear layer, so the score of an
    image is the weighted mean of its linear view log-odds. ``attention`` differs in being gated and in classifying the
    hidden layer that the weights come from.

    Reference: Ilse, Tomczak, Welling 2018 (arXiv 1802.04712), equation 8 on learned features.

    Args:
        width: width of the second layer.
    """

    name: ClassVar[str] = "attention_mlp"

    def __init__(self, dim: int, *, hidden: int, dropout: float, boxes: bool = False, width: int = 128) -> None:
        super().__init__(dim, hidden=hidden, dropout=dropout, boxes=boxes)
        self.width = width
        self.drop = FeatureDropout(dropout)
        first = (
            [nn.Linear(self.input_dim, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Dropout(dropout)] if hidden else []
        )
        self.attention = nn.Sequential(
            *first, nn.Linear(hidden or self.input_dim, width), nn.Tanh(), nn.Linear(width, 1)
        )
        self.classifier = last_layer(self.input_dim)

    def pool(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Aggregator.pool``."""
        h = self.drop(features)
        weights = masked_softmax(self.attention(h).squeeze(-1), mask)
        views = hide(self.classifier(h).squeeze(-1), mask)
        return (weights * views).sum(dim=-1), views, weights

    def set_prior(self, prevalence: float, *, views: int = 1) -> None:
        """See ``Aggregator.set_prior``."""
        set_bias(self.classifier, prevalence)

    def settings(self) -> dict[str, Any]:
        """See ``Aggregator.settings``."""
        return super().settings() | {"width": self.width}
