"""A cascade at run time looks at no view that it does not need, and decides as if it had been given all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from workzone.bundle.cascade import (
    chain_log_odds,
    early_exits,
    look,
    look_through,
    stage_log_odds,
    with_budget,
)
from workzone.bundle.embedding import pad_views
from workzone.bundle.engines.base import Engine, Scores
from workzone.bundle.parallel import embed_views
from workzone.bundle.runtime import Detector
from workzone.calibration import create as create_calibrator
from workzone.config.views import ViewSpec
from workzone.data.roles import CalibData
from workzone.decisions import apply_policy, create
from workzone.decisions.cascade import Band, Model, Plan, Point
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.errors import BundleError, ConfigError
from workzone.predictions import logit, sigmoid
from workzone.vision import Preprocessing, make_views
from workzone.vision.views import Cutter

NONE = create_calibrator("none")
SIDE = 32
PRE = Preprocessing(image_size=SIDE, views=ViewSpec(rows=2, cols=2))
ORDER = (0, 3, 1, 4, 2)


class Brightness(Engine):
    """Embeds a view as its mean brightness; the score of an image is the mean over the views it is given."""

    name = "brightness"
    precision = "fp32"
    embedding_dim = 1
    image_size = SIDE
    threads = 1
    views_per_pass = 2

    def __init__(self) -> None:
        self.passes: list[int] = []

    @classmethod
    def open(cls, folder: Path, **_: Any) -> Any:
        raise NotImplementedError

    def embed(self, pixels: Any) -> Any:
        self.passes.append(len(pixels))
        return pixels.reshape(len(pixels), -1).mean(axis=1, dtype=np.float64)[:, None].astype(np.float32) / 32 - 4

    def aggregate(self, embeddings: Any, boxes: Any, mask: Any) -> Scores:
        assert boxes.shape == (*mask.shape, 4)
        views = embeddings[..., 0].astype(np.float64)
        return Scores(views.mean(axis=1), views, np.full(views.shape, 1 / views.shape[1]))


def policy(bands: tuple[Band, Band] = (Band(0.2, 0.8), Band(0.3, 0.7))) -> CascadePolicy:
    full = Point((Band(), Band()), 1.0, 0.1)
    plan = Plan(ORDER, (1, 3, 5), (NONE, NONE), (full, Point(bands, 0.4, 0.1)))
    n = 400
    y = (np.arange(n) % 2).astype(int)
    p = np.where(y == 1, 0.9, 0.05)
    stages = {"stage_1": logit(p), "stage_2": logit(p)}
    return CascadePolicy(plan=plan, budget=0.4).fit(CalibData.from_arrays(y, logit(p)), p, stages)


def picture(*brightness: int) -> Image.Image:
    """Quarters of these brightnesses, row by row."""
    array = np.zeros((64, 64, 3), dtype=np.uint8)
    for i, value in enumerate(brightness):
        array[i // 2 * 32 : i // 2 * 32 + 32, i % 2 * 32 : i % 2 * 32 + 32] = value
    return Image.fromarray(array)


DARK, MIXED, NEAR = picture(0, 0, 0, 0), picture(128, 128, 128, 128), picture(255, 0, 0, 255)


def test_a_clear_image_is_looked_at_once_and_a_doubtful_one_in_full() -> None:
    for image, seen, passes in ((DARK, 1, [1]), (MIXED, 5, [1, 2, 2])):
        engine = Brightness()
        looked = look(image, PRE, engine, policy())
        assert engine.passes == passes
        assert looked.boxes.shape == (seen, 4)
        assert looked.scores.view_log_odds.shape == (1, seen)
        assert np.isnan(looked.stages["stage_2"][0]) == (seen == 1)


def test_views_are_looked_at_in_the_order_of_the_plan() -> None:
    engine = Brightness()
    narrow = policy((Band(0.01, 0.99), Band(0.5, 0.5)))
    looked = look(MIXED, PRE, engine, narrow)
    _, boxes = make_views(MIXED, PRE)
    assert np.array_equal(looked.boxes, boxes[[0, 1, 3]])


def test_a_stage_where_nobody_stops_is_not_a_pass_of_its_own() -> None:
    engine = Brightness()
    look(MIXED, PRE, engine, policy((Band(), Band(0.3, 0.7))))
    assert engine.passes == [2, 1, 2]


@pytest.mark.parametrize("image", [DARK, MIXED, NEAR, picture(200, 90, 40, 140)])
def test_looking_step_by_step_decides_as_all_views_do(image: Image.Image) -> None:
    engine, rule = Brightness(), policy()
    pixels, boxes = make_views(image, PRE)
    views = pad_views([(embed_views(engine, pixels), boxes)])
    full = engine.aggregate(views.embeddings, views.boxes, views.mask)
    whole = apply_policy(rule, sigmoid(full.log_odds), full.view_log_odds, stage_log_odds(engine, views, rule.plan))
    looked = look(image, PRE, engine, rule)
    lazy = apply_policy(rule, sigmoid(looked.scores.log_odds), looked.scores.view_log_odds, looked.stages)
    assert lazy.codes == whole.codes
    assert lazy.probability == pytest.approx(whole.probability)
    assert lazy.stage == whole.stage


def test_an_image_with_other_views_is_refused() -> None:
    other = PRE.model_copy(update={"views": ViewSpec(rows=1, cols=2)})
    with pytest.raises(BundleError, match="5 views"):
        look(MIXED, other, Brightness(), policy())
    pixels, boxes = make_views(MIXED, other)
    engine = Brightness()
    with pytest.raises(BundleError, match="this one has 3"):
        stage_log_odds(engine, pad_views([(embed_views(engine, pixels), boxes)]), policy().plan)


@pytest.mark.parametrize(
    "spec", [ViewSpec(), ViewSpec(flip=True, scales=(1.0, 1.5, 0.8)), ViewSpec(layout="global", flip=True)]
)
def test_views_cut_one_by_one_are_those_cut_together(spec: ViewSpec) -> None:
    pre = PRE.model_copy(update={"views": spec})
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))
    together, boxes = make_views(image, pre)
    cutter = Cutter(image, pre)
    assert np.array_equal(cutter.boxes, boxes)
    for view in np.random.default_rng(1).permutation(len(boxes)).tolist():
        assert np.array_equal(cutter.cut([view])[0], together[view])
    if spec.flip:
        half = len(boxes) // 2
        assert np.array_equal(together[half:], together[:half, :, ::-1])
    with pytest.raises(ValueError, match="no view"):
        cutter.cut([len(boxes)])


def detector(rule: Any) -> Detector:
    parts: Any = {"folder": Path(), "manifest": None, "preprocessing": PRE, "certificate": None}
    return Detector(**parts, engine=Brightness(), calibrator=NONE, policy=rule)


def test_the_detector_reports_stage_and_cost() -> None:
    found = [d for _, d in detector(policy()).predict([DARK, MIXED], workers=1)]
    assert [(d.stage, d.cost, len(d.views)) for d in found] == [(1, 0.2, 1), (3, 1.0, 5)]
    assert found[0].label == "no_roadwork"
    assert found[0].reason.endswith("after stage 1 of 3")
    assert found[0].to_dict()["stage"] == 1
    assert detector(policy())(MIXED).stage == 3


def test_a_budget_changes_how_far_the_detector_looks() -> None:
    one = detector(policy())
    full = one.at_budget(1.0)
    assert full(DARK).cost == 1.0
    assert len(full(DARK).views) == 5
    assert one.at_budget(2.0)(DARK).cost == 0.2, "two views are 0.4 of five"
    with pytest.raises(ConfigError, match="less than one look"):
        one.at_budget(0.1)


def test_without_a_cascade_there_is_no_budget() -> None:
    n = 400
    y = (np.arange(n) % 2).astype(int)
    plain = create("threshold").fit(CalibData.from_arrays(y, np.zeros(n)), np.where(y == 1, 0.9, 0.05))
    assert early_exits(plain) is None
    with pytest.raises(ConfigError, match="no budget to choose"):
        with_budget(plain, 0.5)
    found = detector(plain)(DARK)
    assert found.stage is None
    assert "stage" not in found.to_dict()


class Darkness(Brightness):
    """Another model: smaller views, and a score of its own."""

    image_size = 16

    def aggregate(self, embeddings: Any, boxes: Any, mask: Any) -> Scores:
        found = super().aggregate(embeddings, boxes, mask)
        return Scores(found.log_odds * 0.5 + 1.0, found.view_log_odds, found.weights)


SMALL = PRE.model_copy(update={"image_size": 16})
CLEAR, WIDE = Band(0.2, 0.8), Band(0.05, 0.95)


def chain_policy(mean: bool, bands: tuple[Band, ...]) -> CascadePolicy:
    models = (Model(5, 3, 1.0), Model(5, 5, 4.0))
    points = [Point((Band(),) * 3, 1.0, 0.1)] + ([Point(bands, 0.4, 0.1)] if bands != (Band(),) * 3 else [])
    plan = Plan((0, 3, 1, *ORDER), (1, 3, 5, 8), (NONE,) * 3, tuple(points), models, mean)
    n = 400
    y = (np.arange(n) % 2).astype(int)
    p = np.where(y == 1, 0.9, 0.05)
    stages = {f"stage_{s}": logit(p) for s in (1, 2, 3)}
    return CascadePolicy(plan=plan, budget=points[-1].cost).fit(CalibData.from_arrays(y, logit(p)), p, stages)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize(
    "bands",
    [(CLEAR, CLEAR, CLEAR), (WIDE, CLEAR, Band()), (CLEAR, Band(), CLEAR), (Band(), Band(), CLEAR), (Band(),) * 3],
)
@pytest.mark.parametrize("image", [DARK, MIXED, NEAR, picture(200, 90, 40, 140)])
def test_models_asked_one_by_one_decide_as_all_views_of_all_models_do(
    image: Image.Image, bands: tuple[Band, ...], mean: bool
) -> None:
    rule = chain_policy(mean, bands)
    pairs = [(SMALL, Darkness()), (PRE, Brightness())]
    parts: list[Any] = []
    for pre, engine in pairs:
        pixels, boxes = make_views(image, pre)
        parts.append((engine, pad_views([(embed_views(engine, pixels), boxes)])))
        engine.passes.clear()
    stages, final = chain_log_odds(parts, rule.plan)
    whole = apply_policy(rule, sigmoid(final), None, stages)
    looked = look_through(lambda _: image, pairs, rule)
    lazy = apply_policy(rule, sigmoid(looked.scores.log_odds), looked.scores.view_log_odds, looked.stages)
    assert lazy.stage == whole.stage
    assert lazy.cost == whole.cost
    assert lazy.probability == pytest.approx(whole.probability)
    spent = sum(pairs[0][1].passes) * 1.0 + sum(pairs[1][1].passes) * 4.0
    assert spent == pytest.approx(float(whole.cost[0]) * (23.0 if mean else 20.0)), "what is said is what is looked at"
    assert looked.boxes.shape[0] == looked.scores.view_log_odds.shape[1]


def test_the_mean_adds_to_the_scores_of_earlier_models() -> None:
    rule = chain_policy(True, (Band(),) * 3)
    parts: list[Any] = []
    for pre, engine in ((SMALL, Darkness()), (PRE, Brightness())):
        pixels, boxes = make_views(NEAR, pre)
        parts.append((engine, pad_views([(embed_views(engine, pixels), boxes)])))
    stages, final = chain_log_odds(parts, rule.plan)
    (small, views), (large, more) = parts
    seen = small.aggregate(views.embeddings[:, [0, 1, 3]], views.boxes[:, [0, 1, 3]], views.mask[:, [0, 1, 3]]).log_odds
    assert stages["stage_2"] == pytest.approx(seen)
    assert final == pytest.approx((seen + large.aggregate(more.embeddings, more.boxes, more.mask).log_odds) / 2)


def test_no_stage_is_scored_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[tuple[int, int]] = []

    def counted(self: Engine, embeddings: Any, boxes: Any, mask: Any) -> Scores:
        passes.append(mask.shape)
        views = embeddings[..., 0].astype(np.float64)
        return Scores(views.mean(axis=1), views, np.full(views.shape, 1 / views.shape[1]))

    monkeypatch.setattr(Brightness, "aggregate", counted)
    parts: list[Any] = []
    for pre, engine in ((SMALL, Darkness()), (PRE, Brightness())):
        pixels, boxes = make_views(NEAR, pre)
        parts.append((engine, pad_views([(embed_views(engine, pixels), boxes)])))
    chain_log_odds(parts, chain_policy(True, (Band(),) * 3).plan)
    assert passes == [(1, 1), (1, 3), (1, 2), (1, 5)], "each stage once, though later ones add the first model"
    passes.clear()
    focused = Plan(ORDER, (2, 3, 4, 5), (NONE,) * 3, (Point((Band(),) * 3, 1.0),), focus=2)
    assert list(stage_log_odds(*parts[1], focused)) == ["stage_1", "stage_2", "stage_3"]
    assert passes == [(1, 2), (1, 3), (1, 4)], "the views before the focus once, and the last stage not at all"
