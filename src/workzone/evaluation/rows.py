"""One figure of two models on the same images: which is better, and how to say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from workzone.evaluation.figures import plain
from workzone.metrics.comparison import Difference
from workzone.metrics.differences import holm

TITLES = {
    "mcc": "MCC", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "f1": "F1", "f0.5": "F0.5",
    "fnr": "roadwork missed", "fpr": "false alarms", "auroc": "AUROC", "average_precision": "average precision",
    "brier": "Brier score", "nll": "NLL", "augrc": "AUGRC", "ece": "ECE", "decided": "decided (coverage)",
    "decided_wrong": "wrong among decided", "decided_missed": "roadwork decided no_roadwork",
    "decided_alarms": "no_roadwork decided roadwork",
}  # fmt: skip

Winner = Literal["A", "B", "none", "undefined"]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of both models; ``p_holm`` is adjusted among the figures that are not primary."""

    name: str
    title: str
    higher_is_better: bool
    difference: Difference
    p_holm: float | None

    @property
    def winner(self) -> Winner:
        """Which model is better beyond chance."""
        d = self.difference
        if not np.isfinite(d.p):
            return "undefined"
        told = d.told and (self.p_holm is None or self.p_holm <= 1 - d.difference.level)
        if not told:
            return "none"
        return "B" if (d.difference.value > 0) == self.higher_is_better else "A"

    def to_dict(self) -> dict[str, Any]:
        """Everything but the name, fit for JSON; what is not defined is null."""
        return {
            "title": self.title,
            "higher_is_better": self.higher_is_better,
            "a": plain(self.difference.a),
            "b": plain(self.difference.b),
            "difference": plain(self.difference.difference),
            "p": plain(self.difference.p),
            "p_holm": plain(self.p_holm),
            "better": self.winner,
        }


def row_sentence(row: Row, first: str, second: str) -> str:
    """One sentence about a figure of two models by their names, that needs no statistics."""
    a, b, gap = row.difference.a, row.difference.b, row.difference.difference
    if row.winner == "undefined":
        return f"Nothing can be said: {row.title} is not defined on these images."
    direction = "" if row.higher_is_better else " (lower is better)"
    if row.winner == "none":
        if gap.value == gap.low == gap.high == 0:
            return f"No difference can be told: {row.title} is {a.value:.3f} for both on these images."
        return (
            f"No difference can be told: {row.title}{direction} {b.value:.3f} for {second} against {a.value:.3f} for "
            f"{first}, difference {gap:.3f}."
        )
    better, worse = (b, a) if row.winner == "B" else (a, b)
    sign = 1 if row.winner == "B" else -1
    low, high = sorted((sign * gap.low, sign * gap.high))
    name = second if row.winner == "B" else first
    return (
        f"{name[0].upper()}{name[1:]} is better: {row.title}{direction} {better.value:.3f} against {worse.value:.3f}, "
        f"difference {sign * gap.value:.3f} [{low:.3f}, {high:.3f}]."
    )


def undefined(d: Difference) -> Difference:
    """The difference without a p-value: nothing can be said."""
    return Difference(d.a, d.b, d.difference, float("nan"))


def adjusted(p: Sequence[float]) -> list[float]:
    """p-values after Holm's correction among those that are defined."""
    values = np.array(p)
    known = ~np.isnan(values)
    values[known] = holm(values[known])
    return [float(v) for v in values]
