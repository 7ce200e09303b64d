"""The cascade of a run: its order of views, stages and operating points, from the calibrator's part of val_calib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from workzone.bundle.cascade import chain_log_odds, look_at, stage_log_odds
from workzone.bundle.embedding import ViewEmbeddings
from workzone.bundle.engines import Engine
from workzone.calibration import Calibrator, create
from workzone.calibration.select import select
from workzone.config import RunConfig
from workzone.config.views import ViewSpec
from workzone.data.roles import CalibData
from workzone.decisions.cascade import Band, Model, Plan, Point, fit_plan, greedy_order, starting_threshold
from workzone.decisions.cascade.search import POINTS
from workzone.errors import ConfigError
from workzone.predictions import FloatArray, IntArray

_SIMPLE = ("temperature", "platt", "beta")
_ORDERED_BY = 1000
"""Most images that the order of views is found with: it takes hundreds of scores of each."""
_FOCUSED, _MUCH = 0.08, 0.3
_SHARES = (0.2, 0.4)
"""Measured with ``benchmarks/cascade.py``: an earlier first exit saves less than it costs in ranking."""


def auto_stages(views: int, focus: int = 0) -> tuple[int, ...]:
    """Two views in ten, four in ten, and all; at least one, and fewer stages where these coincide.

    With a focus: all views before it, about one in twelve of those behind it, and all; and first four in ten of those
    before it where these are much of the whole.
    """
    if focus:
        further = max(1, round(_FOCUSED * (views - focus)))
        early = {max(1, round(_SHARES[1] * focus))} if focus > _MUCH * views else set()
        return tuple(sorted({views, focus, min(focus + further, views), *early}))
    return tuple(sorted({views, *(max(1, round(share * views)) for share in _SHARES)}))


def first_grid(views: ViewSpec) -> int:
    """Number of views up to the first grid of a pyramid; 0 without one, and where mirrors follow the finer grids."""
    if not views.pyramid or views.flip:
        return 0
    return len(views.scales) + views.rows * views.cols


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

    grid = first_grid(config.views) if config.decide.focus else 0
    stages = config.decide.stages or auto_stages(count, grid)
    focus = grid if grid in stages[:-1] else 0
    order = _order(engine, views, data.labels, stages, focus)
    bare = _bare(order, stages, focus=focus)
    fitted: list[Calibrator] = []
    columns: list[FloatArray] = []
    for z in stage_log_odds(engine, views, bare).values():
        part = replace(data, log_odds=z)
        fitted.append(_calibrator(part, config))
        columns.append(fitted[-1].apply(part))
    p = calibrator.apply(data)
    start = _start(config, data)
    return fit_plan(order, stages, fitted, np.column_stack([*columns, p]), start=start, points=points, focus=focus)


def plan_chain(
    config: RunConfig,
    parts: Sequence[tuple[Engine, ViewEmbeddings]],
    data: CalibData,
    looks: Sequence[Sequence[int]],
    costs: Sequence[float],
    *,
    mean: bool,
    points: int = POINTS,
    focus: int = 0,
) -> tuple[Plan, Calibrator]:
    """The plan of a cascade over several models, and the calibrator of its last stage; ``data`` fits all of it.

    Args:
        config: ``decide``, ``calibrate`` and ``seed`` are read.
        parts: opened engine of each model, and the embeddings of its views of the images of ``data``.
        data: the calibrators' part of ``val_calib``.
        looks: views seen by each stage of each model, rising; the last one of the last model sees all.
        costs: of one look by each model.
        mean: whether later models add to the score of earlier ones instead of replacing it.
        points: most operating points.
        focus: of one model, see ``Plan``.

    Raises:
        ConfigError: looks that are no stages of these models.
    """
    order: list[int] = []
    stages: list[int] = []
    models: list[Model] = []
    for (engine, views), seen, cost in zip(parts, looks, costs, strict=True):
        count = int(views.mask.shape[1])
        _require_looks(seen, count, last=len(models) + 1 == len(parts))
        stages += [len(order) + number for number in seen]
        order += _order(engine, views, data.labels, seen, focus)[: seen[-1]]
        models.append(Model(count, seen[-1], cost))
    several = tuple(models) if len(models) > 1 else ()
    mean = mean and bool(several)
    bare = _bare(order, stages, several, mean, focus)
    between, final = chain_log_odds(parts, bare)
    scored = [replace(data, log_odds=z) for z in (*between.values(), final)]
    fitted = [_calibrator(part, config) for part in scored]
    probability = np.column_stack([c.apply(part) for c, part in zip(fitted, scored, strict=True)])
    start = _start(config, data)
    plan = fit_plan(
        order, stages, fitted[:-1], probability, start=start, points=points, models=several, mean=mean, focus=focus
    )
    return plan, fitted[-1]


def _start(config: RunConfig, data: CalibData) -> Callable[[FloatArray], float]:
    """Gives the threshold at which a point with certain answers is first tested."""
    d = config.decide
    return lambda answer: starting_threshold(data, answer, d.target_fnr, d.delta, d.unit)


def _bare(
    order: Sequence[int], stages: Sequence[int], models: Sequence[Model] = (), mean: bool = False, focus: int = 0
) -> Plan:
    """A plan without calibrators that everybody goes through."""
    exits = len(stages) - 1
    everyone = Point((Band(),) * exits, 1.0)
    return Plan(tuple(order), tuple(stages), (create("none"),) * exits, (everyone,), tuple(models), mean, focus)


def _order(
    engine: Engine, views: ViewEmbeddings, labels: IntArray, stages: Sequence[int], focus: int
) -> tuple[int, ...]:
    """Order of the views, by use as far as a stage ends before all of them are seen; with a focus those before it."""
    every = int(views.mask.shape[1])
    count = focus or every
    drawn = np.random.default_rng(0).permutation(len(labels))[:_ORDERED_BY]
    some = views.take(drawn)
    first = max((seen for seen in stages if seen < count), default=1)
    known = greedy_order(lambda seen: look_at(engine, some, seen).log_odds, labels[drawn], count, first=first)
    return (*known, *range(count, every))


def _require_looks(seen: Sequence[int], views: int, *, last: bool) -> None:
    rising = all(a < b for a, b in pairwise(seen))
    if not seen or not rising or seen[0] < 1 or seen[-1] > views or (last and seen[-1] != views):
        raise ConfigError(
            f"a model with {views} views cannot have the stages {', '.join(map(str, seen)) or 'none'}",
            where="stages",
            fix=f"name rising numbers from 1 to {views}; the last model ends with {views}",
        )


def _calibrator(part: CalibData, config: RunConfig) -> Calibrator:
    """Calibrator of one stage, chosen as that of all views among those that read the score alone."""
    settings = config.calibrate
    names = settings.candidates if settings.method == "auto" else (settings.method,)
    simple = [name for name in names if not create(name).needs] or _SIMPLE
    return select(part, simple, folds=settings.folds, seed=config.seed).best
