"""Drift tests by name: each compares a window with a reference and gives a p-value."""

from __future__ import annotations

from collections.abc import Mapping

from workzone.monitoring.drift.base import DriftTest, Kind, Result
from workzone.monitoring.drift.chi_square import ChiSquare
from workzone.monitoring.drift.ks import Ks
from workzone.monitoring.drift.mean_shift import MeanShift
from workzone.monitoring.drift.mmd import Mmd
from workzone.monitoring.drift.psi import Psi
from workzone.monitoring.drift.sliced_wasserstein import SlicedWasserstein

DRIFT_TESTS: Mapping[str, DriftTest] = {
    t.name: t for t in (Psi(), Ks(), ChiSquare(), Mmd(), SlicedWasserstein(), MeanShift())
}

__all__ = ["DRIFT_TESTS", "DriftTest", "Kind", "Result", "members_of"]


def members_of(kind: Kind) -> list[DriftTest]:
    """Tests that compare samples of this kind."""
    return [t for t in DRIFT_TESTS.values() if t.kind == kind]
