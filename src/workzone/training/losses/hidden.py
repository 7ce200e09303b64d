"""The representation that an aggregator's score is made of, for losses of embeddings."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from workzone.errors import ConfigError


def score_layer(model: nn.Module) -> nn.Linear | None:
    """The layer that turns hidden units of a view into its log-odds, None where there is none."""
    layer = getattr(model, "classifier", None)
    scorer = getattr(model, "scorer", None)
    if layer is None and isinstance(scorer, nn.Sequential):
        layer = scorer[-1]
    return layer if isinstance(layer, nn.Linear) and layer.out_features == 1 else None


class Hidden:
    """Records the hidden units of the views while ``model`` is called inside a ``with`` block.

    Raises:
        ConfigError: the score is made of the cached features directly, which no loss can move.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layer = score_layer(model)
        self._seen: Tensor | None = None
        self._handle: Any = None

    def __enter__(self) -> Hidden:
        if self.layer is None:
            raise self._error()
        self._handle = self.layer.register_forward_pre_hook(self._record)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._handle.remove()

    def pooled(self, weights: Tensor) -> Tensor:
        """Hidden units (B, H) of images: those of their views, weighted by ``weights`` (B, V) as in the score."""
        if self._seen is None or not self._seen.requires_grad:
            raise self._error()
        return torch.einsum("bv,bvh->bh", weights, self._seen)

    def _record(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen = inputs[0]

    @staticmethod
    def _error() -> ConfigError:
        return ConfigError(
            "the loss works on an embedding, and the score is made of the cached features directly",
            where="loss",
            fix="give the head a hidden layer (hidden above 0), and take another aggregator than attention_mlp",
        )
