"""Conformal prediction sets for K classes; ``workzone.decisions.POLICIES`` holds what is meaningful for two."""

from __future__ import annotations

from collections.abc import Mapping

from workzone.decisions.conformal.aps import Aps
from workzone.decisions.conformal.base import ConformalSets, binary
from workzone.decisions.conformal.lac import Lac
from workzone.decisions.conformal.mondrian import Mondrian
from workzone.decisions.conformal.quantile import conformal_quantile, conformal_rank, n_needed
from workzone.decisions.conformal.raps import Raps
from workzone.decisions.conformal.summary import SetSummary, summarise_sets

CONFORMAL: Mapping[str, type[ConformalSets]] = {cls.name: cls for cls in (Lac, Mondrian, Aps, Raps)}

__all__ = [
    "CONFORMAL",
    "Aps",
    "ConformalSets",
    "Lac",
    "Mondrian",
    "Raps",
    "SetSummary",
    "binary",
    "conformal_quantile",
    "conformal_rank",
    "n_needed",
    "summarise_sets",
]
