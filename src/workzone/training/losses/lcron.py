"""LCRON: which frames of a drive deserve the larger model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workzone.training.losses.base import Loss, LossInput, Need

_LEAST = 1e-6


class LCRON(Loss):
    """Survival of the roadwork frames of a drive through the top-q selections of a cascade.

    The items are the frames of one drive. Each stage sorts them softly (NeuralSort) and passes on the first q; a frame
    survives with at least the product of its probabilities of being passed on. Without stages the score is the only
    one. Only the order within a drive is trained: the score has no zero, and its calibration is what gives it one.
    Drives with one label have nothing to sort and count 0.

    Args:
        budget: share of a drive's frames that the last stage passes on; at least its roadwork frames are. The stages
            before pass on ``budget ** (m / M)``.
        tau: softness of the sort for each frame of the drive, above 0.
        items: ``group`` for the frames of one drive, ``batch`` for all images of a step as one request.
        stages: stages M that a weight is learned for.

    Reference: Wang et al. 2025, arXiv 2503.09492; NeuralSort: Grover et al. 2019, arXiv 1903.08850.
    """

    name = "lcron"

    def __init__(self, budget: float = 0.5, tau: float = 1.0, items: str = "group", stages: float = 2) -> None:
        super().__init__()
        if not 0.0 < budget <= 1.0 or tau <= 0.0 or items not in ("group", "batch") or stages < 1 or stages % 1:
            raise ValueError("budget must be in (0, 1], tau above 0, items group or batch, stages 1 or more")
        self.budget, self.tau, self.items, self.stages = budget, tau, items, int(stages)
        # Logarithms, so that the learned deviations stay above 0.
        self.log_deviation = nn.Parameter(torch.zeros(self.stages))

    @property
    def needs(self) -> frozenset[Need]:
        """The drive of each frame, unless the batch is the request."""
        return frozenset({"groups"} if self.items == "group" else ())

    def compute(self, batch: LossInput) -> Tensor:
        """See ``Loss.forward``."""
        scores = batch.logits[:, None] if batch.stage_logits is None else batch.stage_logits
        if scores.shape[1] > self.stages:
            raise ValueError(f"{scores.shape[1]} stages were given, lcron was made for {self.stages}")
        groups = torch.zeros_like(batch.labels, dtype=torch.int64) if self.items == "batch" else batch.groups
        assert groups is not None
        total, seen = scores.sum() * 0.0, 0
        parts = [total] * (1 + scores.shape[1])
        for code in sorted(set(groups.tolist())):
            rows = (groups == code).nonzero().squeeze(1)
            labels = batch.labels[rows]
            if not bool((labels > 0.5).any()) or bool((labels > 0.5).all()):
                continue
            weights = torch.ones_like(labels) if batch.weights is None else batch.weights[rows]
            log_passed = self.log_passed(scores[rows], int((labels > 0.5).sum()))
            ways = [log_passed.sum(dim=1), *log_passed.unbind(dim=1)]
            parts = [
                part + (weights * survival_entropy(way, labels)).sum() for part, way in zip(parts, ways, strict=True)
            ]
            seen += len(rows)
        if not seen:
            return total
        whole, *single = (part / seen for part in parts)
        if len(single) == 1:
            return whole
        for loss, deviation in zip(single, self.log_deviation, strict=False):
            whole = whole + 0.5 * (-2.0 * deviation).exp() * loss + deviation
        return whole

    def log_passed(self, scores: Tensor, positives: int) -> Tensor:
        """Logarithm (n, M) of the probability that each of n frames is among the first q of each of M stages."""
        n, stages = scores.shape
        columns = []
        for m in range(stages):
            share = self.budget ** ((m + 1) / stages)
            q = min(n, max(1, positives, round(share * n)))
            sort = neural_sort(scores[:, m], self.tau * n)
            # Columns of a row-stochastic matrix may sum to more than 1.
            passed = sort[:q].sum(dim=0) / sort.sum(dim=0).clamp_min(_LEAST)
            columns.append(passed.clamp(_LEAST, 1.0 - _LEAST).log())
        return torch.stack(columns, dim=1)

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"budget": self.budget, "tau": self.tau, "items": self.items, "stages": self.stages}


def neural_sort(scores: Tensor, tau: float) -> Tensor:
    """Matrix (n, n) whose row i says softly which of ``scores`` (n,) is the i-th largest; rows sum to 1."""
    n = len(scores)
    apart = (scores[:, None] - scores[None, :]).abs().sum(dim=1)
    rank = torch.arange(1, n + 1, device=scores.device, dtype=scores.dtype)
    return F.softmax(((n + 1 - 2 * rank)[:, None] * scores[None, :] - apart[None, :]) / tau, dim=1)


def survival_entropy(log_survival: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (n,) of labels with the probability ``exp(log_survival)``, finite at 0 and 1."""
    log_p = log_survival.clamp(max=-_LEAST)
    return -labels * log_p - (1.0 - labels) * torch.log(-torch.expm1(log_p))
