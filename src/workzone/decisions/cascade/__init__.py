"""A cascade looks once, and spends further views only where the answer may still change; numpy only.

``fit_plan`` finds the path of operating points on the calibrator's part of ``val_calib``;
``workzone.decisions.policies.cascade`` certifies it on the other part.
"""

from __future__ import annotations

from workzone.decisions.cascade.chain import Model
from workzone.decisions.cascade.focus import focus_order
from workzone.decisions.cascade.order import greedy_order
from workzone.decisions.cascade.plan import Band, Plan, Point, stage_names
from workzone.decisions.cascade.search import fit_plan, starting_threshold

__all__ = [
    "Band",
    "Model",
    "Plan",
    "Point",
    "fit_plan",
    "focus_order",
    "greedy_order",
    "stage_names",
    "starting_threshold",
]
