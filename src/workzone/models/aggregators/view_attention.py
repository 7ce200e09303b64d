"""Self-attention among views that knows where in the image each one lies."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workzone.errors import ConfigError
from workzone.models.aggregators.base import Aggregator, hide, masked_softmax
from workzone.models.aggregators.logsumexp import inverse_softplus, log_mean_exp
from workzone.models.aggregators.spatial import Spatial, make_spatial
from workzone.models.heads import FeatureDropout, last_layer, set_bias

Backend = Literal["sdpa", "flex"]


class ViewAttention(Aggregator):
    """One block of multi-head self-attention over the views, scores by a linear layer, pooled by log-sum-exp.

    Each head adds a bias by position to its attention scores (``spatial``): ``proximity`` is
    ``-softplus(lambda_h) |c_q - c_k|^2`` on the centres c of the boxes, ``learned`` a small network of the offset,
    ``none`` nothing. The whole image lies at distance 0 from every view. Weights are the derivatives of the score by
    the view scores after attention, so they say which context-aware view counted, not which pixels.

    References: Vaswani et al. 2017 (arXiv 1706.03762) for the block; Ilse, Tomczak, Welling 2018 (arXiv 1802.04712)
    for bags of any size; Dong et al. 2024 (arXiv 2412.05496) for FlexAttention.

    Args:
        heads: attention heads; they divide ``hidden``, or the embedding's width where hidden is 0.
        spatial: the bias by position.
        backend: ``sdpa`` runs anywhere; ``flex`` computes the same through FlexAttention and trains on CUDA only. An
            exported network is that of ``sdpa``.
    """

    name: ClassVar[str] = "view_attention"

    def __init__(
        self,
        dim: int,
        *,
        hidden: int,
        dropout: float,
        boxes: bool = False,
        heads: int = 4,
        spatial: Spatial = "proximity",
        backend: Backend = "sdpa",
    ) -> None:
        super().__init__(dim, hidden=hidden, dropout=dropout, boxes=boxes)
        inner = hidden or self.input_dim
        if heads < 1 or inner % heads:
            raise ConfigError(
                f"{heads} heads do not divide the width {inner}",
                where="fuse.heads",
                fix="take a divisor of fuse.hidden",
            )
        if backend not in ("sdpa", "flex"):
            raise ConfigError(f"unknown backend {backend!r}", where="fuse.backend", fix="take sdpa or flex")
        self.heads, self.spatial, self.backend = heads, spatial, backend
        self.drop = FeatureDropout(dropout)
        self.embed = nn.Linear(self.input_dim, hidden) if hidden else nn.Identity()
        self.before = nn.LayerNorm(inner)
        # A bias of the keys shifts all scores of a query alike and would never learn.
        self.query, self.key = nn.Linear(inner, inner), nn.Linear(inner, inner, bias=False)
        self.value = nn.Linear(inner, inner)
        self.out = nn.Linear(inner, inner)
        self.after = nn.LayerNorm(inner)
        self.late = nn.Dropout(dropout)
        self.classifier = last_layer(inner)
        self.bias = make_spatial(spatial, heads)
        self.raw_sharpness = nn.Parameter(torch.tensor(inverse_softplus(1.0)))

    def combine(self, features: Tensor, boxes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Aggregator.combine``.

        Raises:
            ConfigError: backend flex was asked for a gradient on a CPU.
        """
        h = self.embed(self.drop(self.with_boxes(features, boxes)))
        h = h + self.out(self._attend(self.before(h), boxes, mask))
        views = hide(self.classifier(self.late(F.relu(self.after(h)))).squeeze(-1), mask)
        r = F.softplus(self.raw_sharpness) + 1e-3
        return log_mean_exp(views, mask, r), views, masked_softmax(r * views, mask)

    def pool(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Not offered: attention with positions needs the boxes, see ``combine``."""
        raise TypeError("view_attention needs the boxes of the views; call it or combine()")

    def _attend(self, h: Tensor, boxes: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (self._split(layer(h)) for layer in (self.query, self.key, self.value))
        # torch.onnx and torch.export know the operator of SDPA only, and both backends give the same numbers.
        if self.backend == "flex" and not torch.compiler.is_exporting():
            mixed = self._flex(q, k, v, boxes, mask)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias.dense(boxes, mask))
        return mixed.transpose(1, 2).reshape(h.shape)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, x.shape[2] // self.heads).transpose(1, 2)

    def _flex(self, q: Tensor, k: Tensor, v: Tensor, boxes: Tensor, mask: Tensor) -> Tensor:
        from torch.nn.attention.flex_attention import flex_attention

        if q.device.type != "cuda" and torch.is_grad_enabled() and q.requires_grad:
            raise flex_error(q.device.type)
        result = flex_attention(q, k, v, score_mod=self.bias.score_mod(boxes, mask))
        assert isinstance(result, Tensor)
        return result

    def set_prior(self, prevalence: float, *, views: int = 1) -> None:
        """See ``Aggregator.set_prior``."""
        set_bias(self.classifier, prevalence)

    def settings(self) -> dict[str, Any]:
        """See ``Aggregator.settings``."""
        return super().settings() | {"heads": self.heads, "spatial": self.spatial, "backend": self.backend}


def flex_error(device: str) -> ConfigError:
    """What to say of a training with backend flex on ``device``."""
    return ConfigError(
        f"FlexAttention has no backward pass on {device}",
        where="fuse.backend",
        fix="train with backend sdpa, which gives the same numbers, or on CUDA",
    )
