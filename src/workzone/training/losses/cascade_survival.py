"""Loss of a cascade whose stages may stop an image early."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workzone.training.losses.base import Loss, LossInput, Need, need, weighted_mean
from workzone.training.losses.lcron import survival_entropy


class CascadeSurvival(Loss):
    """A roadwork image must pass every stage; a stage may stop it with "no roadwork".

    ``pass_m = sigmoid((z_m - threshold_m) / temperature)``, survival is the product of all passes and of the last
    stage's probability. The loss is its cross-entropy with the label, the mean cross-entropy of the stages, and
    ``cost`` times the expected share of the cost, each stage costing ten times the one before. Thresholds are learned,
    as initial values only: the ones that decide come from calibration images. It takes the product of stages from LCRON
    (arXiv 2503.09492) and is no ranking loss.

    Args:
        temperature: of the passes, above 0, in log-odds.
        cost: weight of the expected cost, 0 or more.
        stages: stages M, 2 or more.
    """

    name = "cascade_survival"

    def __init__(self, temperature: float = 1.0, cost: float = 0.0, stages: float = 2) -> None:
        super().__init__()
        if temperature <= 0.0 or cost < 0.0 or stages < 2 or stages % 1:
            raise ValueError("temperature must be above 0, cost 0 or more, stages 2 or more")
        self.temperature, self.cost, self.stages = temperature, cost, int(stages)
        self.threshold = nn.Parameter(torch.zeros(self.stages - 1))

    @property
    def needs(self) -> frozenset[Need]:
        """Scores of the stages."""
        return frozenset({"stages"})

    def compute(self, batch: LossInput) -> Tensor:
        """See ``Loss.forward``."""
        scores = need(batch.stage_logits)
        if scores.shape[1] != self.stages:
            raise ValueError(f"{scores.shape[1]} stages were given, cascade_survival was made for {self.stages}")
        log_pass = F.logsigmoid((scores[:, :-1] - self.threshold) / self.temperature)
        each = survival_entropy(log_pass.sum(dim=1) + F.logsigmoid(scores[:, -1]), batch.labels)
        labels = batch.labels[:, None].expand_as(scores)
        each = each + F.binary_cross_entropy_with_logits(scores, labels, reduction="none").mean(dim=1)
        if self.cost:
            reach = torch.cat([torch.zeros_like(log_pass[:, :1]), log_pass.cumsum(dim=1)], dim=1).exp()
            price = 10.0 ** torch.arange(self.stages, device=scores.device, dtype=scores.dtype)
            each = each + self.cost * (reach * price).sum(dim=1) / price.sum()
        return weighted_mean(each, batch.weights)

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"temperature": self.temperature, "cost": self.cost, "stages": self.stages}
