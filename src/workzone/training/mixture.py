"""What data sets do to the training of a head: drawing by weight, shares that follow losses, and the adversary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from workzone.errors import ConfigError, DataError
from workzone.training.domain import DomainTerm, balance, ramp
from workzone.training.losses.hidden import score_layer
from workzone.training.weighted import adapt_shares, set_weights

if TYPE_CHECKING:
    from workzone.models.aggregators import Aggregator
    from workzone.training.loop import LoopSettings, TensorFeatures


@dataclass(frozen=True, slots=True)
class Adversary:
    """The domain-adversarial term with what it needs of all N images.

    Attributes:
        term: head behind the reversed gradient.
        sets: (N,) code of the data set.
        weights: (N,) balance of sets and classes.
        weight: of the term in the loss.
    """

    term: DomainTerm
    sets: Tensor
    weights: Tensor
    weight: float

    def __call__(self, hidden: Tensor, rows: Tensor, progress: float) -> Tensor:
        """The weighed term for ``hidden`` (B, H) of the images ``rows``, at the share ``progress`` of the training."""
        value: Tensor = self.weight * self.term(hidden, self.sets[rows], self.weights[rows], ramp(progress))
        return value


def make_adversary(model: Aggregator, train: TensorFeatures, settings: LoopSettings) -> Adversary | None:
    """The adversary of ``settings``, None without one.

    Raises:
        ConfigError: the head has no hidden layer that could forget anything.
        DataError: fewer than two data sets with both classes.
    """
    if not settings.dann:
        return None
    layer = score_layer(model)
    if layer is None:
        raise ConfigError(
            "domain-adversarial training needs a head with a hidden layer",
            where="fuse.dann",
            fix="set fuse.hidden above 0 and another aggregator than attention_mlp",
        )
    if train.sets is None or bool((train.sets == train.sets[0]).all()):
        raise DataError("domain-adversarial training needs two data sets or more", where="fuse.dann")
    weights = balance(train.labels, train.sets)
    usable = train.sets[weights > 0]
    if not len(usable) or bool((usable == usable[0]).all()):
        raise DataError(
            "fewer than two data sets hold both classes, and to hide a set with one class would hide the class",
            where="fuse.dann",
        )
    term = DomainTerm(layer.in_features, int(train.sets.max()) + 1).to(train.labels.device)
    return Adversary(term, train.sets, weights, settings.dann)


def first_shares(train: TensorFeatures, settings: LoopSettings) -> Tensor | None:
    """(K,) shares of the data sets in the first epochs, None where they are never moved."""
    if not settings.adapt_every:
        return None
    if train.draw is None or train.sets is None:
        raise ValueError("adaptive shares need rates of drawing and data sets")
    sums = torch.zeros(int(train.sets.max()) + 1, dtype=torch.float64).index_add_(0, train.sets.cpu(), train.draw)
    return sums / sums.sum()


def adapt(train: TensorFeatures, shares: Tensor, scores: Tensor) -> tuple[TensorFeatures, Tensor]:
    """``train`` drawn by new shares of its data sets, from their mean cross-entropy under ``scores`` (N,)."""
    if train.draw is None or train.sets is None:
        raise ValueError("adaptive shares need rates of drawing and data sets")
    each = F.binary_cross_entropy_with_logits(scores, train.labels, reduction="none").cpu().double()
    sets = train.sets.cpu()
    # Within a set the mean is the one that training sees, so a set with few hard images is judged by its draws.
    weighed = torch.zeros(len(shares), dtype=torch.float64).index_add_(0, sets, each * train.draw)
    totals = torch.zeros(len(shares), dtype=torch.float64).index_add_(0, sets, train.draw)
    new = adapt_shares(shares, weighed / totals)
    return replace(train, draw=set_weights(train.draw, sets, new) * len(sets)), new
