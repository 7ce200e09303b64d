"""The views of an image, looked at stage by stage, and no further than the cascade needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workzone.bundle.embedding import ViewEmbeddings
from workzone.bundle.engines import Engine, Scores
from workzone.bundle.parallel import embed_views
from workzone.decisions import Policy
from workzone.decisions.cascade import Band, Plan, focus_order
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.errors import BundleError, ConfigError
from workzone.predictions import FloatArray, IntArray
from workzone.vision import Preprocessing
from workzone.vision.views import Boxes, Cutter


class Looked(NamedTuple):
    """A model whose score is part of an answer: its number, the numbers of the views it saw, and its own log-odds."""

    model: int
    views: tuple[int, ...]
    log_odds: float


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of one image.

    Attributes:
        scores: of the stage where the image stopped, over the views that its model saw.
        boxes: (K, 4) of these views.
        stages: log-odds (1,) of the earlier stages by name, NaN where a stage was not reached; None without stages.
        looked: the models whose scores are joined in that of ``scores``, the one that answered last.
    """

    scores: Scores
    boxes: Boxes
    stages: Mapping[str, FloatArray] | None
    looked: tuple[Looked, ...]


def early_exits(policy: Policy) -> CascadePolicy | None:
    """``policy`` if it may stop before it has seen all views."""
    return policy if isinstance(policy, CascadePolicy) and policy.needs else None


def with_budget(policy: Policy, budget: float) -> CascadePolicy:
    """``policy`` at the operating point for ``budget``, see ``CascadePolicy.at``.

    Raises:
        ConfigError: the policy is no cascade, or the budget is out of range.
    """
    if not isinstance(policy, CascadePolicy):
        raise ConfigError(
            "this bundle looks at all views of every image, so there is no budget to choose",
            where=f"policy {policy.name!r}",
            fix="leave the budget out, or make a bundle with decide.policy=cascade",
        )
    return policy.at(budget)


def budget_sentences(policy: Policy) -> list[str]:
    """What the chosen operating point costs and what is promised there, in plain words; nothing without a cascade."""
    if not isinstance(policy, CascadePolicy):
        return []
    point = policy.plan.points[policy.active]
    place = f"Operating point {policy.active + 1} of {len(policy.plan.points)}"
    spent = f"{point.cost:.0%} of the views are looked at on average, as measured when it was planned."
    if policy.plan.models:
        spent = f"{point.cost:.0%} of the cost of the dearest one is spent on average, as measured when it was planned."
    return [
        f"{place}: {spent}",
        policy.promise(policy.active).sentence(),
    ]


def look(
    image: Image.Image, pre: Preprocessing, engine: Engine, policy: CascadePolicy, *, side_by_side: bool = False
) -> Look:
    """Look at a decoded picture with one model, see ``look_through``."""
    return look_through(lambda _: image, [(pre, engine)], policy, side_by_side=side_by_side)


def look_through(
    picture: Callable[[Preprocessing], Image.Image],
    parts: Sequence[tuple[Preprocessing, Engine]],
    policy: CascadePolicy,
    *,
    side_by_side: bool = False,
) -> Look:
    """Look at a picture, model by model and view by view, until the policy's operating point stops.

    Args:
        picture: the RGB picture, as ``decode`` gives it for a preprocessing; asked for once by each model that is used.
        parts: preprocessing, from picture to views, and opened engine of each model.
        policy: fitted cascade.
        side_by_side: see ``embed_views``.

    Raises:
        BundleError: the picture has another number of views than the cascade was made for.
    """
    plan = policy.plan
    exits = plan.points[policy.active].bands
    bands, used = (*exits, None), plan.used(exits)
    measured = {name: np.full(1, np.nan) for name in plan.names}
    earlier: list[Looked] = []
    for model, (pre, engine) in enumerate(parts):
        if not used[model]:
            continue
        cutter = Cutter(picture(pre), pre)
        _require_views(plan, model, len(cutter.boxes))
        embeddings = np.zeros((len(cutter.boxes), engine.embedding_dim), dtype=np.float32)
        seen: list[int] = []
        final = plan.last_stage(model)
        order: Sequence[int] = ()
        for stage in (s for s in range(1, final + 1) if plan.model(s) == model):
            # Each image's own order matters to the stages behind the focus at which somebody stops.
            focused = plan.focus == plan.stages[stage - 1] and any(band != Band() for band in exits[stage:])
            if bands[stage - 1] == Band() and not (stage == final and plan.mean) and not focused:
                continue  # nobody stops here, so its views join those of the next stage
            wanted = order[: plan.stages[stage - 1]] or plan.views(stage)
            new = [view for view in wanted if view not in seen]
            embeddings[new] = embed_views(engine, cutter.cut(new), side_by_side=side_by_side)
            seen = sorted([*seen, *new])
            mask = np.ones((1, len(seen)), dtype=np.bool_)
            scores = engine.aggregate(embeddings[None, seen], cutter.boxes[None, seen], mask)
            if focused:
                order = focused_order(plan, cutter.boxes, seen, scores.view_log_odds)[0].tolist()
            own = Looked(model, tuple(seen), float(scores.log_odds[0]))
            z = joined(scores.log_odds, [np.array([other.log_odds]) for other in earlier])
            if stage <= len(plan.names):
                measured[plan.names[stage - 1]] = z
            if plan.stops(policy.active, stage, z)[0]:
                return Look(replace(scores, log_odds=z), cutter.boxes[seen], measured, (*earlier, own))
        if plan.mean and seen:
            earlier.append(own)
    raise ValueError("the last stage of a cascade passes nobody on")


def focused_order(plan: Plan, boxes: Boxes, seen: Sequence[int], view_log_odds: NDArray[np.floating]) -> IntArray:
    """Order (N, V) of the views of N images: those looked at until the focus of ``plan``, then each image's own.

    Args:
        plan: with a focus.
        boxes: (V, 4) of all views.
        seen: numbers of the views looked at until then, in the order of ``view_log_odds``.
        view_log_odds: (N, F) of these views.
    """
    first = np.asarray(plan.order[: plan.focus], dtype=np.int64)
    rest = np.asarray(sorted(plan.order[plan.focus :]), dtype=np.int64)
    own = focus_order(boxes, np.asarray(seen, dtype=np.int64), view_log_odds, rest)
    return np.concatenate([np.broadcast_to(first, (len(own), len(first))), own], axis=1)


def joined(own: FloatArray, earlier: Sequence[FloatArray]) -> FloatArray:
    """Mean (N,) of the log-odds of a model and of those before it."""
    return np.asarray(np.mean([*earlier, own], axis=0), dtype=np.float64)


def stage_log_odds(engine: Engine, views: ViewEmbeddings, plan: Plan) -> dict[str, FloatArray]:
    """Log-odds (N,) of all stages but the last of a cascade of one model, by name; raises as ``chain_log_odds``."""
    return dict(zip(plan.names, _stages_to(len(plan.names), [(engine, views)], plan), strict=True))


def chain_log_odds(
    parts: Sequence[tuple[Engine, ViewEmbeddings]], plan: Plan
) -> tuple[dict[str, FloatArray], FloatArray]:
    """Log-odds (N,) of all stages but the last, by name, and of the last one.

    Args:
        parts: engine of each model and the embeddings of all its views of the same N images.
        plan: of the cascade.

    Raises:
        BundleError: an image has another number of views than the cascade was made for, or a cascade with a focus
            other views than the first image.
    """
    *between, final = _stages_to(len(plan.stages), parts, plan)
    return dict(zip(plan.names, between, strict=True)), final


def _stages_to(last: int, parts: Sequence[tuple[Engine, ViewEmbeddings]], plan: Plan) -> list[FloatArray]:
    """Log-odds (N,) of the stages 1 to ``last``, for the views seen by then."""
    for model, (_, views) in enumerate(parts):
        counts: NDArray[np.int64] = views.mask.sum(axis=1)
        for count in np.unique(counts).tolist():
            _require_views(plan, model, count)
    found: list[FloatArray] = []
    earlier: list[FloatArray] = []
    order: IntArray | None = None
    for stage in range(1, last + 1):
        model, taken = plan.model(stage), plan.stages[stage - 1]
        engine, views = parts[model]
        if order is not None and taken < len(plan.order):
            scores = _look_each(engine, views, order[:, :taken])
        else:
            scores = look_at(engine, views, plan.views(stage))
        if taken == plan.focus and plan.stages[stage] < len(plan.order):
            order = focused_order(plan, _one_layout(views), sorted(plan.views(stage)), scores.view_log_odds)
        found.append(joined(scores.log_odds, earlier))
        if plan.mean and stage == plan.last_stage(model):
            earlier.append(scores.log_odds)
    return found


def _look_each(engine: Engine, views: ViewEmbeddings, numbers: IntArray) -> Scores:
    """Scores of N images by the views (N, K) of each, taken in rising order."""
    seen = np.sort(numbers, axis=1)
    embeddings, boxes = (np.take_along_axis(part, seen[..., None], axis=1) for part in (views.embeddings, views.boxes))
    return engine.aggregate(embeddings, boxes, np.take_along_axis(views.mask, seen, axis=1))


def look_at(engine: Engine, views: ViewEmbeddings, numbers: Sequence[int]) -> Scores:
    """Scores of N images by the views of these ``numbers``, taken in rising order."""
    seen = sorted(numbers)
    return engine.aggregate(views.embeddings[:, seen], views.boxes[:, seen], views.mask[:, seen])


def _one_layout(views: ViewEmbeddings) -> Boxes:
    """Boxes (V, 4) of the views, which are the same in all images."""
    if len(views.boxes) and not (views.boxes == views.boxes[0]).all():
        raise BundleError("a cascade with a focus needs the same views of every image", fix="export the run again")
    return views.boxes[0] if len(views.boxes) else np.zeros((views.boxes.shape[1], 4), dtype=np.float32)


def _require_views(plan: Plan, model: int, count: int) -> None:
    wanted = plan.models[model].views if plan.models else len(plan.order)
    if count != wanted:
        raise BundleError(
            f"the cascade was made for {wanted} views of an image, and this one has {count}",
            fix="export the run again",
        )
