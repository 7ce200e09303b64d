"""Population stability index with a p-value."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from workzone.monitoring.drift.base import DriftTest, Kind, Result
from workzone.predictions import FloatArray

BINS = 10
SMOOTHING = 0.5
MODERATE, LARGE = 0.1, 0.2
"""Customary names of sizes, from credit scoring with thousands of cases; no test: without drift 100 images against 700
exceed 0.1 in about half of the days."""


class Psi(DriftTest):
    """``sum (q - p) ln(q / p)`` over tenths of the reference, half an image added to each bin.

    Without drift ``PSI / (1/n + 1/m)`` is about chi-square with one degree of freedom less than bins (Yurdakul and
    Naranjo 2020, Journal of Risk Model Validation 14).
    """

    name: ClassVar[str] = "psi"
    kind: ClassVar[Kind] = "scores"
    title: ClassVar[str] = "population stability index"
    source: ClassVar[str] = "Yurdakul and Naranjo 2020"

    def _compare(self, reference: NDArray[Any], new: NDArray[Any], rng: np.random.Generator) -> Result:
        from scipy.stats import chi2

        edges = bin_edges(reference)
        p, q = _shares(reference, edges), _shares(new, edges)
        value = float(((q - p) * np.log(q / p)).sum())
        scale = 1 / len(reference) + 1 / len(new)
        return Result(value, float(chi2.sf(value / scale, len(edges))), len(reference), len(new))


def bin_edges(reference: FloatArray) -> FloatArray:
    """Upper ends of all bins but the last; a value that fills a tenth or more gets a bin of its own."""
    edges, count = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]), return_counts=True)
    repeated = edges[count > 1]
    if not len(repeated) and len(edges) < 2:
        repeated = edges
    return np.asarray(np.unique(np.concatenate([edges, np.nextafter(repeated, -np.inf)])), dtype=np.float64)


def _shares(sample: FloatArray, edges: FloatArray) -> FloatArray:
    counts = np.bincount(np.searchsorted(edges, sample), minlength=len(edges) + 1) + SMOOTHING
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def size_word(value: float) -> str:
    """``small``, ``moderate`` (from 0.1) or ``large`` (from 0.2)."""
    return "large" if value >= LARGE else "moderate" if value >= MODERATE else "small"
