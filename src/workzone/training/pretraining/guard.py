"""Watches that features stay different from each other, and stops a training whose features do not."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from workzone.errors import CheckFailedError

_STD_SHARE = 0.3
_RANK_SHARE = 0.1
_UNIFORM = 0.97
_ONE_OUTPUT = 0.05


class CollapseError(CheckFailedError):
    """Features or outputs no longer tell images apart."""


def spread(embeddings: Tensor) -> dict[str, float]:
    """How different the rows of ``embeddings`` (B, D) are.

    ``std`` is the mean deviation of unit-length features times the root of D: about 1 for features in all directions,
    0 when all are equal. ``rank`` is the effective rank (exponential of the entropy of the singular values, Roy and
    Vetterli 2007) of the centred rows.
    """
    x = F.normalize(embeddings.float(), dim=-1)
    centred = x - x.mean(dim=0)
    values = torch.linalg.svdvals(centred)
    share = values / values.sum().clamp_min(1e-12)
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    deviation = centred.pow(2).mean(dim=0).sqrt().mean() * math.sqrt(x.shape[1])
    return {"std": float(deviation), "rank": float(entropy.exp()) if float(values.sum()) > 1e-6 else 0.0}


class CollapseGuard:
    """Stops when one sign of collapse is seen in ``patience`` steps on end, after ``grace`` steps.

    Args:
        patience: steps.
        grace: steps at the start in which outputs are still unsharpened and only looked at.
    """

    def __init__(self, patience: int, grace: int) -> None:
        self.patience, self.grace = patience, grace
        self.seen = 0
        self.start: dict[str, float] = {}
        self.streaks: dict[str, int] = {}

    def look(self, embeddings: Tensor, signs: dict[str, float]) -> dict[str, float]:
        """Figures of one step.

        Raises:
            CollapseError: with what was seen, since when, and what to change.
        """
        found = spread(embeddings) | signs
        if not self.start:
            self.start = {k: found[k] for k in ("std", "rank")}
        self.seen += 1
        for name, text in self._faults(found).items():
            self.streaks[name] = self.streaks.get(name, 0) + 1 if text else 0
            if self.streaks[name] >= self.patience and self.seen > self.grace:
                raise CollapseError(
                    f"the features have collapsed: {text}, in {self.streaks[name]} steps on end",
                    where=f"phase pretrain, step {self.seen}",
                    fix="take a lower pretrain.lr, a larger pretrain.batch_size, lower teacher temperatures, or a term "
                    "that spreads features (pretrain.ssl.koleo); nothing of this pretraining is used",
                )
        return found

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"seen": self.seen, "start": dict(self.start), "streaks": dict(self.streaks)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.seen, self.start, self.streaks = state["seen"], dict(state["start"]), dict(state["streaks"])

    def _faults(self, found: dict[str, float]) -> dict[str, str]:
        start = self.start
        output, marginal = found.get("output_entropy", 0.0), found.get("marginal_entropy", 1.0)
        same = found["std"] < _STD_SHARE * start["std"] or not math.isfinite(found["std"])
        flat = found["rank"] < _RANK_SHARE * start["rank"]
        texts = {
            "std": f"the features of different images differ by {found['std']:.3g} ({start['std']:.3g} at first)",
            "rank": f"they span {found['rank']:.2g} directions ({start['rank']:.3g} at first)",
            "uniform": f"the teacher's outputs are nearly uniform (entropy {output:.3f} of 1)",
            "one": f"nearly all images get one output (entropy of the mean output {marginal:.3f} of 1)",
        }
        faults = {"std": same, "rank": flat, "uniform": output > _UNIFORM, "one": marginal < _ONE_OUTPUT}
        return {name: text if faults[name] else "" for name, text in texts.items()}
