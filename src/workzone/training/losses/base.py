"""What every loss is: scores and labels of a batch in, one number out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

Need = Literal["embeddings", "groups", "stages"]


@dataclass(frozen=True, slots=True)
class LossInput:
    """One batch of B images as a loss sees it.

    Attributes:
        logits: (B,) log-odds of roadwork.
        labels: (B,) in [0, 1]; between 0 and 1 under MixUp only.
        embeddings: (B, D) representation that the score is made of.
        weights: (B,) weight of each image, None for 1.
        groups: (B,) int64 code of the drive of each image.
        stage_logits: (B, M) log-odds of the M stages of a cascade, cheapest first.
        epoch: epochs done before this one.
    """

    logits: Tensor
    labels: Tensor
    embeddings: Tensor | None = None
    weights: Tensor | None = None
    groups: Tensor | None = None
    stage_logits: Tensor | None = None
    epoch: int = 0


class Loss(nn.Module, ABC):
    """Base of the losses; numbers that a loss learns itself are its parameters.

    Attributes:
        name: name in the configuration.
        needs: parts of ``LossInput`` without which it cannot be computed.
        soft_labels: whether labels between 0 and 1 have a meaning for it.
        trains_logits: whether it moves the score at all; a loss of embeddings alone leaves the last layer as it was.
    """

    name: ClassVar[str]
    soft_labels: bool = False
    trains_logits: bool = True

    @property
    def needs(self) -> frozenset[Need]:
        """Parts of ``LossInput`` that must be there."""
        return frozenset()

    def forward(self, batch: LossInput) -> Tensor:
        """Mean over the batch, a scalar.

        Raises:
            ValueError: a part that it needs is missing.
        """
        given = {"embeddings": batch.embeddings, "groups": batch.groups, "stages": batch.stage_logits}
        if missing := sorted(need for need in self.needs if given[need] is None):
            raise ValueError(f"loss {self.name} needs {', '.join(missing)}")
        return self.compute(batch)

    @abstractmethod
    def compute(self, batch: LossInput) -> Tensor:
        """``forward`` on a batch that has what is needed."""

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {}


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of ``values`` (B,) times ``weights`` (B,); weights are not normalised, as in torch's losses."""
    return values.mean() if weights is None else (values * weights).mean()


def need(value: Tensor | None) -> Tensor:
    """``value``, which ``Loss.forward`` has checked to be there."""
    assert value is not None
    return value


def full_precision(values: Tensor) -> Tensor:
    """``values`` in at least float32."""
    return values if values.element_size() >= 4 else values.float()
