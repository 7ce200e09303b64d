"""The views of an image, looked at stage by stage, and no further than the cascade needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workzone.bundle.embedding import ViewEmbeddings
from workzone.bundle.engines import Engine, Scores
from workzone.bundle.parallel import embed_views
from workzone.decisions import Policy
from workzone.decisions.cascade import Band, Plan
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.errors import BundleError, ConfigError
from workzone.predictions import FloatArray
from workzone.vision import Preprocessing
from workzone.vision.views import Boxes, Cutter


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of one image.

    Attributes:
        scores: of the stage where the image stopped, over the views seen.
        boxes: (K, 4) of the views seen.
        stages: log-odds (1,) of the earlier stages by name, NaN where a stage was not reached.
    """

    scores: Scores
    boxes: Boxes
    stages: Mapping[str, FloatArray]


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
    return [
        f"{place}: {point.cost:.0%} of the views are looked at on average, as measured when it was planned.",
        policy.promise(policy.active).sentence(),
    ]


def look(
    image: Image.Image, pre: Preprocessing, engine: Engine, policy: CascadePolicy, *, side_by_side: bool = False
) -> Look:
    """Look at a decoded picture until the policy's operating point stops.

    Args:
        image: RGB, as ``decode`` gives it.
        pre: from picture to views.
        engine: opened engine.
        policy: fitted cascade.
        side_by_side: see ``embed_views``.

    Raises:
        BundleError: the picture has another number of views than the cascade was made for.
    """
    plan, cutter = policy.plan, Cutter(image, pre)
    _require_views(plan, len(cutter.boxes))
    bands = (*plan.points[policy.active].bands, None)
    embeddings = np.zeros((len(cutter.boxes), engine.embedding_dim), dtype=np.float32)
    seen: list[int] = []
    measured = {name: np.full(1, np.nan) for name in plan.names}
    for stage, band in enumerate(bands, start=1):
        if band == Band():
            continue  # nobody stops here, so its views join those of the next stage
        new = [view for view in plan.views(stage) if view not in seen]
        embeddings[new] = embed_views(engine, cutter.cut(new), side_by_side=side_by_side)
        seen = sorted([*seen, *new])
        mask = np.ones((1, len(seen)), dtype=np.bool_)
        scores = engine.aggregate(embeddings[None, seen], cutter.boxes[None, seen], mask)
        if band is not None:
            measured[plan.names[stage - 1]] = scores.log_odds
        if plan.stops(policy.active, stage, scores.log_odds)[0]:
            break
    return Look(scores, cutter.boxes[seen], measured)


def stage_log_odds(engine: Engine, views: ViewEmbeddings, plan: Plan) -> dict[str, FloatArray]:
    """Log-odds (N,) of all stages but the last, by name, of images whose views were all embedded.

    Raises:
        BundleError: an image has another number of views than the cascade was made for.
    """
    counts: NDArray[np.int64] = views.mask.sum(axis=1)
    for count in np.unique(counts).tolist():
        _require_views(plan, count)
    found = {}
    for stage, name in enumerate(plan.names, start=1):
        seen = sorted(plan.views(stage))
        found[name] = engine.aggregate(views.embeddings[:, seen], views.boxes[:, seen], views.mask[:, seen]).log_odds
    return found


def _require_views(plan: Plan, count: int) -> None:
    if count != len(plan.order):
        raise BundleError(
            f"the cascade was made for {len(plan.order)} views of an image, and this one has {count}",
            fix="export the run again",
        )
