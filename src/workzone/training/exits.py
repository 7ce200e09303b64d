"""Early exits in the training of a head: its scores of images that were seen through some of their views only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workzone.errors import ConfigError
from workzone.models.aggregators import Aggregator
from workzone.training.losses import Loss, LossInput, create_loss, require
from workzone.training.losses.cascade_survival import CascadeSurvival
from workzone.training.losses.lcron import LCRON

if TYPE_CHECKING:
    from workzone.training.loop import LoopSettings


@dataclass(frozen=True, slots=True)
class Exits:
    """The stages of a cascade before its last one, as a head is trained for them.

    The order in which a cascade looks at tiles is chosen later, on other images; here it is drawn anew at each step for
    each image, and the whole picture is always first.

    Attributes:
        stages: views seen by each early stage, rising.
        loss: loss of the score of each early stage, None where only the loss of the image reads the stages.
        weight: of the mean of ``loss`` over the early stages.
    """

    stages: tuple[int, ...]
    loss: Loss | None = None
    weight: float = 1.0

    def log_odds(self, model: Aggregator, embeddings: Tensor, boxes: Tensor, mask: Tensor) -> list[Tensor]:
        """Log-odds (B,) of each early stage, of images (B, V, D) with the views in ``mask`` (B, V)."""
        draw = torch.rand(mask.shape, device=mask.device)
        draw[:, 0] = -1.0
        order = draw.masked_fill(~mask, 2.0).argsort(dim=1)
        rows = torch.arange(len(mask), device=mask.device)[:, None]
        # Views that a stage does not see are not scored for it either.
        parts = [(rows, order[:, :seen]) for seen in self.stages]
        return [model.combine(embeddings[part], boxes[part], mask[part])[0] for part in parts]

    def value(self, early: list[Tensor], batch: LossInput) -> Tensor:
        """Mean over the early stages of ``loss`` on their scores, times ``weight``; 0 without ``loss``."""
        if self.loss is None:
            return batch.logits.new_zeros(())
        each = [self.loss(replace(batch, logits=z, embeddings=None, stage_logits=None)) for z in early]
        return self.weight * torch.stack(each).mean()


def make_exits(settings: LoopSettings, views: int, loss: Loss) -> Exits | None:
    """The exits of ``settings`` for images of up to ``views`` views; None where nothing asks for them.

    Raises:
        ConfigError: stages that do not rise or leave no view for the last one, a loss of the exits that reads more than
            scores and labels, or a loss of the image that was made for another number of stages.
    """
    stages, where = settings.stages, settings.where
    if not stages and settings.exit_loss is None:
        return None
    stages = stages or (1,)
    rising = all(a < b for a, b in pairwise(stages))
    if not rising or stages[0] < 1 or stages[-1] >= views:
        raise ConfigError(
            f"the early stages see {', '.join(map(str, stages))} views, and an image has {views}",
            where=f"{where}.stages",
            fix="name rising numbers from 1 to less than all views; the last stage always sees all",
        )
    for part in loss.modules():
        fits = part.stages == len(stages) + 1 if isinstance(part, CascadeSurvival) else True
        if isinstance(part, LCRON):
            fits = part.stages > len(stages)
        if not fits:
            raise ConfigError(
                f"there are {len(stages)} early stages and the last one, and the loss was made for another number",
                where=f"{where}.loss",
                fix=f"write {part.name}(stages={len(stages) + 1})",
            )
    own = None
    if settings.exit_loss is not None:
        own = create_loss(settings.exit_loss, where=f"{where}.exit_loss")
        require(own, (), soft_labels=bool(settings.mixup), where=f"{where}.exit_loss")
    return Exits(stages, own, settings.exit_weight)
