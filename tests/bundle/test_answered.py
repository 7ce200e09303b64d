"""Explanations of cascades: the answer that ``predict`` gives is the one that is explained, and who gave it is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.orange import orange_bundle, orange_chain, orange_scene
from workzone.bundle import CascadeDetector, Detector, open_bundle
from workzone.bundle.explain import Explanation, explain
from workzone.bundle.illustrate import caption, illustrate
from workzone.bundle.occlusion import Occluder, Part, enlarge
from workzone.calibration.identity import IdentityCalibrator
from workzone.data.roles import CalibData
from workzone.decisions.cascade import Band, Plan, Point
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.vision import make_views

pytest.importorskip("onnx")
NOTHING, LARGE, SMALL = None, (90, 40, 130, 80), (100, 50, 120, 70)
"""Scenes that are answered by the first stage, by the second and by the dear model."""
GRID = (6, 10)
Open = Callable[[bool], CascadeDetector]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Open:
    made: dict[bool, CascadeDetector] = {}

    def opened(mean: bool) -> CascadeDetector:
        if mean not in made:
            folder = orange_chain(tmp_path_factory.mktemp("chain") / "both", mean=mean)
            found = open_bundle(folder, threads=1)
            assert isinstance(found, CascadeDetector)
            made[mean] = found
        return made[mean]

    return opened


def words(e: Explanation) -> str:
    assert e.answered is not None
    assert e.to_dict()["answered"]["in_words"] == " ".join(e.answered.sentences())
    assert set(e.answered.sentences()) <= set(caption(e))
    return " ".join(e.answered.sentences())


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize(
    ("square", "stage", "model", "views"), [(NOTHING, 1, 1, [0]), (LARGE, 2, 1, [0, 4]), (SMALL, 3, 2, [0, 1, 2, 3, 4])]
)
def test_the_answer_of_predict_is_explained(
    chain: Open, mean: bool, square: tuple[int, int, int, int] | None, stage: int, model: int, views: list[int]
) -> None:
    detector, image = chain(mean), orange_scene(square=square)
    e = explain(detector, image, orders=0)
    ((_, predicted),) = detector.predict([image])
    assert e.decision == predicted
    assert e.answered is not None
    assert (e.answered.stage, e.answered.model, e.answered.views) == (stage, model, len(views))
    boxes = make_views(image, detector.preprocessing)[1][views]
    assert np.array_equal(np.array([v.box for v in e.views], dtype=np.float32), boxes)
    assert e.certificate == detector.certificate.guarantees[0].sentence()
    assert e.answered.calibrator == "none"


@pytest.mark.parametrize("mean", [True, False])
def test_covered_pictures_are_scored_by_the_models_of_the_answer(chain: Open, mean: bool) -> None:
    detector, image = chain(mean), orange_scene(square=SMALL)
    _, looked = detector.trace(image)
    assert [part.model for part in looked] == ([0, 1] if mean else [1])
    occluder = Occluder([Part(detector.models[m], image, views) for m, views, _ in looked], GRID, "grey")
    assert occluder.log_odds == pytest.approx(detector(image).log_odds, abs=1e-5)
    rng = np.random.default_rng(1)
    masks = [rng.random(GRID) < share for share in (0.02, 0.2, 0.5, 0.9)]
    ticks: list[int] = []
    found = occluder.covered(masks, ticks.append)
    assert sum(ticks) == len(masks), "each mask once, however many models"
    for mask, score in zip(masks, found, strict=True):
        pixels = np.asarray(image).copy()
        pixels[enlarge(mask, image.size)] = 128
        cheap, dear = detector.members
        covered, boxes = make_views(Image.fromarray(pixels), dear.preprocessing)
        whole = np.ones((1, 5), dtype=np.bool_)
        own = dear.engine.aggregate(dear.engine.embed(covered)[None], boxes[None], whole).log_odds[0]
        some = cheap.engine.embed(covered[[0, 4]])[None]
        first = cheap.engine.aggregate(some, boxes[None, [0, 4]], whole[:, :2]).log_odds[0]
        assert score == pytest.approx((own + first) / 2 if mean else own, abs=1e-4)


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("square", [LARGE, SMALL])
def test_the_map_lies_on_the_object_and_is_faithful(
    chain: Open, mean: bool, square: tuple[int, int, int, int]
) -> None:
    e = explain(chain(mean), orange_scene(square=square))
    assert e.verdict == "faithful"
    assert e.test is not None
    assert e.test.beaten == (10, 10)
    row, col, value = e.top_cells(1)[0]
    inside = np.zeros(GRID, dtype=np.bool_)
    inside[row, col] = True
    x0, y0, x1, y1 = square
    assert enlarge(inside, (160, 96))[y0:y1, x0:x1].any()
    far = e.heat[:3, :5]
    assert np.abs(far).max() < value / 10


def test_a_wrong_map_of_a_cascade_is_not_faithful(chain: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from workzone.bundle import explain as module

    honest = module._heat
    monkeypatch.setattr(module, "_heat", lambda windows, losses: tuple(-part for part in honest(windows, losses)))
    assert explain(chain(True), orange_scene(square=SMALL)).verdict == "not_faithful"


def test_words_name_the_model_and_those_that_passed_it_on(chain: Open, tmp_path: Path) -> None:
    dear = words(explain(chain(True), orange_scene(square=SMALL), orders=0))
    assert dear.startswith(
        "Answered by model 2 of 2, orange (orange, onnxruntime-fp32), at stage 3 of 3, from all its 5 views. "
        "Model 1 looked before and passed it on. The log-odds are the mean of model 1 +1.45, model 2 +10.07."
    )
    assert "the stage answers whatever reaches it" in dear
    alone = words(explain(chain(False), orange_scene(square=SMALL), orders=0))
    assert "passed it on. P(roadwork)" in alone, "a score of its own is no mean"
    cheap = words(explain(chain(False), orange_scene(square=LARGE), orders=0))
    assert "from 2 of its 5 views. No dearer model was asked." in cheap
    assert "the stage answers below 0.200 and from 0.900 on, and passes the rest on." in cheap
    policy = chain(False).policy
    assert isinstance(policy, CascadePolicy)
    assert f"From {policy.t_high:.3f} on the answer is roadwork, below" in cheap
    everyone = words(explain(chain(False).at_budget(1.0), orange_scene(square=LARGE), orders=0))
    assert "At this budget no model is asked before it." in everyone
    e = explain(chain(True), orange_scene(square=SMALL), orders=0)
    assert e.answered is not None
    withheld = replace(e.answered, t_low=None, passes=(None, 0.8))
    assert "answers from 0.800 on" in withheld.sentences()[1]
    assert "any other is left open" in withheld.sentences()[1]
    plain, named = illustrate(replace(e, answered=None), orange_scene()), illustrate(e, orange_scene())
    assert named.height > plain.height + 40, "the two sentences are on the picture"


def test_a_cascade_over_the_views_of_one_model_says_its_stage(tmp_path: Path) -> None:
    one = Detector.load(orange_bundle(tmp_path / "one"), threads=1)
    labels = np.arange(400) % 2
    p = np.where(labels == 1, 0.9, 0.05)
    z = np.log(p / (1 - p))
    points = (Point((Band(),), 1.0, 0.1), Point((Band(0.2, 0.9),), 0.4, 0.1))
    plan = Plan((0, 4, 1, 2, 3), (2, 5), (IdentityCalibrator(),), points)
    policy = CascadePolicy(plan=plan, budget=0.4).fit(CalibData.from_arrays(labels, z), p, {"stage_1": z})
    detector = replace(one, policy=policy)
    image = orange_scene(square=LARGE)
    e = explain(detector, image, orders=0)
    assert e.decision == detector(image)
    assert len(e.views) == 2
    assert words(e).startswith("Answered at stage 1 of 2, from 2 of the 5 views. P(roadwork)")
    full = explain(detector.at_budget(1.0), image, orders=0)
    assert words(full).startswith("Answered at stage 2 of 2, from all the 5 views. ")
    assert explain(one, image, orders=0).answered is None
