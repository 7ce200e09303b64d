"""Losses by name; a member is one class that follows ``Loss``, and ``create_loss`` makes sums of them from a text."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from workzone.config.terms import Term, parse_loss
from workzone.errors import ConfigError
from workzone.training.losses.base import Loss, LossInput, Need
from workzone.training.losses.cascade_survival import CascadeSurvival
from workzone.training.losses.cross_entropy import CrossEntropy
from workzone.training.losses.evidential import Evidential
from workzone.training.losses.focal import Focal
from workzone.training.losses.gatekeeper import Gatekeeper
from workzone.training.losses.koleo import KoLeo
from workzone.training.losses.label_smoothing import LabelSmoothing
from workzone.training.losses.lcron import LCRON
from workzone.training.losses.supcon import SupCon
from workzone.training.losses.weighted_sum import WeightedSum

LOSSES: Mapping[str, type[Loss]] = {
    member.name: member
    for member in (
        CrossEntropy,
        Focal,
        LabelSmoothing,
        SupCon,
        KoLeo,
        Evidential,
        Gatekeeper,
        LCRON,
        CascadeSurvival,
    )
}

__all__ = ["LOSSES", "Loss", "LossInput", "Need", "WeightedSum", "create_loss", "require"]

_WHAT = {
    "embeddings": "an embedding that is trained (hidden above 0, and an aggregator whose scorer has a hidden layer)",
    "groups": "the drive of each image (phase fuse; or items=batch)",
    "stages": "the scores of two stages (phase fuse with more than one view)",
}

_FIX = {
    "embeddings": "set {section}.hidden above 0, or take a loss of scores such as cross_entropy",
    "groups": "write lcron(items=batch), give it to fuse.loss, or take cross_entropy",
    "stages": "give it to fuse.loss with views.layout=grid, or take cross_entropy",
}


def create_loss(
    text: str, *, dim: int | None = None, pos_weight: float | None = None, where: str = "fuse.loss"
) -> Loss:
    """The loss that ``text`` names, see ``workzone.config.terms``.

    Args:
        text: such as ``focal``, ``focal(gamma=1)`` or ``0.9*lcron+0.1*koleo``.
        dim: width of the embeddings, for losses with a layer of their own.
        pos_weight: weight of a roadwork image in its term cross_entropy, None for 1.
        where: configuration key that the text came from.

    Raises:
        ConfigError: unknown name or argument, an argument out of range, or a loss that leaves the score untrained.
    """
    try:
        terms = parse_loss(text)
        losses = [_create(term, dim, pos_weight) for term in terms]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{text!r} is no loss: {error}", where=where) from error
    if pos_weight is not None and not any(term.name == "cross_entropy" for term in terms):
        raise ConfigError("a weight of roadwork images goes with cross_entropy only", where=where)
    if len(losses) == 1 and terms[0].weight == 1.0:
        return losses[0]
    return WeightedSum(losses, [term.weight for term in terms])


def require(loss: Loss, given: Collection[Need], *, soft_labels: bool = False, where: str = "fuse.loss") -> None:
    """Raise ConfigError where ``loss`` needs what is not ``given``, or cannot take soft labels that will come."""
    for need in sorted(loss.needs - set(given)):
        raise ConfigError(
            f"the loss needs {_WHAT[need]}, which is not there",
            where=where,
            fix=_FIX[need].format(section=where.partition(".")[0]),
        )
    if soft_labels and not loss.soft_labels:
        raise ConfigError(
            "the loss has no meaning for mixed labels", where=where, fix="leave MixUp off, or take cross_entropy"
        )


def _create(term: Term, dim: int | None, pos_weight: float | None) -> Loss:
    member = LOSSES[term.name]
    options: dict[str, Any] = dict(term.options)
    known = inspect.signature(member).parameters
    if unknown := sorted(set(options) - (set(known) - {"dim"})):
        raise ValueError(
            f"{term.name} has no argument {unknown[0]!r}, it has {', '.join(k for k in known if k != 'dim')}"
        )
    for key, value in options.items():
        if isinstance(value, str) != (known[key].annotation == "str"):
            raise ValueError(f"{term.name}: {key} cannot be {value!r}")
    if "dim" in known:
        options["dim"] = dim
        if dim is None:
            raise ValueError(f"{term.name} needs an embedding")
    if "pos_weight" in known and pos_weight is not None:
        options.setdefault("pos_weight", pos_weight)
    return member(**options)
