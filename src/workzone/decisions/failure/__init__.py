"""Models of mistakes on uncertainty measures, and their comparison with the plain probability; numpy only."""

from __future__ import annotations

from workzone.decisions.failure.comparison import FEWEST, Comparison, compare, out_of_fold
from workzone.decisions.failure.logistic import PENALTY, FailureModel
from workzone.decisions.failure.mlp import MLP
from workzone.decisions.failure.model import FitMistakes, MistakeModel
from workzone.decisions.failure.table import compare_measures

__all__ = [
    "FEWEST",
    "MLP",
    "PENALTY",
    "Comparison",
    "FailureModel",
    "FitMistakes",
    "MistakeModel",
    "compare",
    "compare_measures",
    "out_of_fold",
]
