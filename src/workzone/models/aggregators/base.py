"""What every aggregator is: the embeddings of an image's views in, one score and its parts out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from workzone.models.standardise import Standardise

MASKED = -1.0e4
"""Log-odds of a view that does not exist; finite, so that no NaN can arise from it."""

BOX_FEATURES = 3


class Aggregator(nn.Module, ABC):
    """Base of the aggregators.

    Args:
        dim: width D of an embedding.
        hidden: width of the hidden layer of the view scorer, 0 for linear.
        dropout: share of features and hidden units dropped in training.
        boxes: whether centre and scale of a view's box are appended to its features.
    """

    name: ClassVar[str]

    def __init__(self, dim: int, *, hidden: int, dropout: float, boxes: bool = False) -> None:
        super().__init__()
        self.dim, self.hidden, self.dropout, self.boxes = dim, hidden, dropout, boxes
        self.standardise = Standardise(dim)
        self.input_dim = dim + (BOX_FEATURES if boxes else 0)

    def forward(self, embeddings: Tensor, boxes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of B images with up to V views.

        Args:
            embeddings: (B, V, D) float32.
            boxes: (B, V, 4) float32, x0 y0 x1 y1 as shares of width and height.
            mask: (B, V) bool, True where a view exists; at least one per image.

        Returns:
            log_odds (B,); view_log_odds (B, V), ``MASKED`` where there is no view; weights (B, V), 0 there.
        """
        return self.combine(self.standardise(embeddings), boxes, mask)

    def combine(self, features: Tensor, boxes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``forward`` on embeddings that are standardised already, as the training loop keeps them."""
        return self.pool(self.with_boxes(features, boxes), mask)

    def with_boxes(self, features: Tensor, boxes: Tensor) -> Tensor:
        """``features`` with centre and scale of the boxes appended, if this aggregator takes them."""
        return torch.cat([features, box_features(boxes)], dim=-1) if self.boxes else features

    @abstractmethod
    def pool(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``forward`` on standardised features (B, V, input_dim)."""

    def set_statistics(self, features: Tensor) -> None:
        """Standardise by the mean and deviation of training features (N, D), N over images and views."""
        self.standardise.fit(features)

    @abstractmethod
    def set_prior(self, prevalence: float, *, views: int = 1) -> None:
        """Start from the log-odds of ``prevalence`` at images with ``views`` views."""

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor, for the settings file beside the weights."""
        return {"dim": self.dim, "hidden": self.hidden, "dropout": self.dropout, "boxes": self.boxes}


def box_features(boxes: Tensor) -> Tensor:
    """Centre x, centre y and scale (B, V, 3) of boxes (B, V, 4), centred on the whole image's."""
    low, high = boxes[..., :2], boxes[..., 2:]
    size = (high - low).clamp_min(1e-6)
    scale = (size[..., :1] * size[..., 1:]).sqrt()
    return torch.cat([(low + high) - 1.0, 2.0 * (scale - 1.0)], dim=-1)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the views that exist; 0 elsewhere."""
    return torch.softmax(torch.where(mask, scores, MASKED), dim=-1) * mask.to(scores.dtype)


def hide(view_log_odds: Tensor, mask: Tensor) -> Tensor:
    """``view_log_odds`` with ``MASKED`` where there is no view."""
    return torch.where(mask, view_log_odds, MASKED)
