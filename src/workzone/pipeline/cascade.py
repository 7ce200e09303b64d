"""The cascade of a run: its order of views, stages and operating points, from the calibrator's part of val_calib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from workzone.bundle.embedding import ViewEmbeddings
from workzone.bundle.engines import Engine
from workzone.calibration import Calibrator, create
from workzone.calibration.select import select
from workzone.config import RunConfig
from workzone.data.roles import CalibData
from workzone.decisions.cascade import Plan, fit_plan, greedy_order, starting_threshold
from workzone.decisions.cascade.search import POINTS
from workzone.predictions import FloatArray

_SIMPLE = ("temperature", "platt", "beta")
_SHARES = (0.2, 0.4)
"""Measured with ``benchmarks/cascade.py``: an earlier first exit saves less than it costs in ranking."""


def auto_stages(views: int) -> tuple[int, ...]:
    """Two views in ten, four in ten, and all; at least one, and fewer stages where these coincide."""
    return tuple(sorted({views, *(max(1, round(share * views)) for share in _SHARES)}))


def plan_cascade(
    config: RunConfig,
    engine: Engine,
    data: CalibData,
    views: ViewEmbeddings,
    calibrator: Calibrator,
    *,
    points: int = POINTS,
) -> Plan:
    """The plan of a cascade over the views of one exported engine.

    Everything here comes from the part of ``val_calib`` that also fitted ``calibrator``; the certificate rests on the
    other part. The order of views is the greedy one on these images, which the network was not trained on.

    Args:
        config: of the run; ``decide`` and ``calibrate`` are read.
        engine: opened engine.
        data: the calibrator's part, scored with all views.
        views: embeddings of its images, in the same order.
        calibrator: of the score of all views.
        points: most operating points.
    """
    count = int(views.mask.shape[1])

    def score(seen: Sequence[int]) -> FloatArray:
        rows = sorted(seen)
        return engine.aggregate(views.embeddings[:, rows], views.boxes[:, rows], views.mask[:, rows]).log_odds

    order = greedy_order(score, data.labels, count)
    stages = config.decide.stages or auto_stages(count)
    fitted: list[Calibrator] = []
    columns: list[FloatArray] = []
    for seen in stages[:-1]:
        part = replace(data, log_odds=score(order[:seen]))
        fitted.append(_calibrator(part, config))
        columns.append(fitted[-1].apply(part))
    p = calibrator.apply(data)
    decide = config.decide

    def start(answer: FloatArray) -> float:
        return starting_threshold(data, answer, decide.target_fnr, decide.delta, decide.unit)

    return fit_plan(order, stages, fitted, np.column_stack([*columns, p]), start=start, points=points)


def _calibrator(part: CalibData, config: RunConfig) -> Calibrator:
    """Calibrator of one stage, chosen as that of all views among those that read the score alone."""
    settings = config.calibrate
    names = settings.candidates if settings.method == "auto" else (settings.method,)
    simple = [name for name in names if not create(name).needs] or _SIMPLE
    return select(part, simple, folds=settings.folds, seed=config.seed).best
