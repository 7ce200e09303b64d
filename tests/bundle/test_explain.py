from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.orange import orange_bundle, orange_scene
from workzone.bundle import Detector
from workzone.bundle.explain import (
    WINDOWS,
    Explanation,
    OrderTest,
    _heat,
    _ranks,
    _windows,
    explain,
    verdict_sentence,
    weights_sentence,
)
from workzone.bundle.illustrate import caption, explain_image, illustrate, shown_views
from workzone.bundle.occlusion import FILLS, Occluder, Part, enlarge, grid_of
from workzone.config.views import ViewSpec
from workzone.errors import ImageError
from workzone.vision import make_views

pytest.importorskip("onnx")
SQUARE = (100, 50, 120, 70)
Make = Callable[..., Detector]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    def made(**options: Any) -> Detector:
        return Detector.load(orange_bundle(tmp_path_factory.mktemp("orange") / "bundle", **options), threads=1)

    return made


@pytest.fixture(scope="module")
def orange(make: Make) -> Detector:
    return make()


@pytest.fixture(scope="module")
def found(orange: Detector) -> Explanation:
    return explain(orange, orange_scene())


def occluder_of(detector: Detector, picture: Image.Image, fill: Any) -> Occluder:
    views = range(len(make_views(picture, detector.preprocessing)[1]))
    return Occluder([Part(detector, picture, views)], (6, 10), fill)


def overlaps(row: int, col: int, grid: tuple[int, int], size: tuple[int, int], square: tuple[int, ...]) -> bool:
    mask = np.zeros(grid, dtype=np.bool_)
    mask[row, col] = True
    x0, y0, x1, y1 = square
    return bool(enlarge(mask, size)[y0:y1, x0:x1].any())


@pytest.mark.parametrize("square", [SQUARE, (5, 5, 25, 25), (135, 70, 155, 90)])
def test_the_strongest_cells_lie_on_the_object(orange: Detector, square: tuple[int, int, int, int]) -> None:
    image = orange_scene(square=square)
    e = explain(orange, image)
    assert e.decision == orange(image)
    assert e.decision.label == e.towards == "roadwork"
    assert e.heat.shape == e.alone.shape == (6, 10)
    row, col, value = e.top_cells(1)[0]
    assert overlaps(row, col, e.heat.shape, image.size, square)
    assert value == e.heat.max() > 0.5
    far = [e.heat[r, c] for r, c in np.ndindex(e.heat.shape) if not overlaps(r, c, (6, 10), image.size, square)]
    assert np.mean(far) < value / 10


def test_the_map_of_an_object_is_faithful(found: Explanation) -> None:
    assert found.verdict == "faithful"
    assert found.test is not None
    assert found.test.deletion_area < found.test.random_areas.mean() < found.test.insertion_area
    assert found.test.beaten == (10, 10)
    assert found.test.deletion[0] == found.test.insertion[0] == pytest.approx(found.decision.log_odds, abs=1e-4)
    assert found.test.deletion[-1] == pytest.approx(-2.0, abs=1e-4), "no orange is left"
    assert "Faithful: yes" in verdict_sentence(found)


@pytest.mark.parametrize("wrong", ["reversed", "shuffled"])
def test_a_wrong_map_is_not_faithful(orange: Detector, found: Explanation, wrong: str) -> None:
    from workzone.bundle.explain import _order_test

    assert found.test is not None
    heat = (
        -found.heat if wrong == "reversed" else np.random.default_rng(3).permutation(found.heat.ravel()).reshape(6, 10)
    )
    occluder = occluder_of(orange, orange_scene(), "mean")
    steps = np.round(found.test.covered * 60).astype(np.int64)
    ends = found.test.deletion[[0, -1]]
    t = _order_test(occluder, heat, steps, ends, 1.0, 10, np.random.default_rng(0), lambda more: None)
    assert not t.passed
    e = replace(found, test=t, verdict="not_faithful")
    assert "do not rely on this map" in verdict_sentence(e)
    assert e.to_dict()["faithful"] is False


def test_a_constant_network_has_nothing_to_explain(make: Make) -> None:
    steps: list[tuple[int, int]] = []
    e = explain(make(gain=0.0), orange_scene(), progress=lambda done, total: steps.append((done, total)))
    assert (e.verdict, e.test, e.towards) == ("nothing_to_explain", None, "no_roadwork")
    assert e.to_dict()["faithful"] is False
    assert np.abs(e.heat).max() == pytest.approx(0, abs=1e-6)
    assert "Nothing to explain" in verdict_sentence(e)
    assert e.weight_agreement is None
    assert "cannot be compared" in weights_sentence(e)
    assert steps[-1][0] == steps[-1][1], "a bar that ends"
    assert illustrate(e, orange_scene()).width > 500
    faint = illustrate(replace(e, heat=np.full_like(e.heat, 0.002)), orange_scene())
    red, green, blue = faint.getpixel((round(0.75 * faint.width), 150))
    assert red == green == blue, "chance is not stretched to full colour"


def test_views_count_by_what_is_lost_without_them(orange: Detector, found: Explanation) -> None:
    occluder = occluder_of(orange, orange_scene(), "mean")
    (part,), kept = occluder.parts, [0, 1, 2, 3]
    without = part._score(part.embeddings[None][:, kept], part.boxes[None][:, kept])[0]
    assert found.views[4].contribution == pytest.approx(found.decision.log_odds - without, abs=1e-5)
    assert max(found.views, key=lambda v: v.contribution or 0) is found.views[4], "the tile with the square"
    assert [v.log_odds for v in found.views] == [v.log_odds for v in found.decision.views]
    assert found.weight_agreement is not None
    assert found.weight_agreement > 0.9
    assert "agree with" in weights_sentence(found)
    assert "believe occlusion" in weights_sentence(replace(found, weight_agreement=0.1))


def test_a_single_view_has_no_contribution(make: Make) -> None:
    e = explain(make(views=ViewSpec(layout="global")), orange_scene(), orders=0)
    assert [v.contribution for v in e.views] == [None]
    assert (e.verdict, e.weight_agreement) == ("not_checked", None)
    assert e.to_dict()["faithful"] is None
    assert "only one view" in caption(e)[1]
    assert shown_views(e) == []
    assert illustrate(e, orange_scene()).height > 300


def test_cached_views_give_the_score_of_the_covered_picture(orange: Detector) -> None:
    image = orange_scene()
    occluder = occluder_of(orange, image, "grey")
    rng = np.random.default_rng(1)
    masks = [rng.random((6, 10)) < share for share in (0.02, 0.2, 0.5, 0.9)]
    ticks: list[int] = []
    scores = occluder.covered(masks, ticks.append)
    assert sum(ticks) == 4
    for mask, score in zip(masks, scores, strict=True):
        pixels = np.asarray(image).copy()
        pixels[enlarge(mask, image.size)] = 128
        assert score == pytest.approx(orange(Image.fromarray(pixels)).log_odds, abs=1e-4)


def test_views_that_a_cell_does_not_touch_are_not_embedded_again(orange: Detector) -> None:
    occluder = occluder_of(orange, orange_scene(), "mean")
    assert occluder.embedded == 5
    corner = np.zeros((6, 10), dtype=np.bool_)
    corner[0, 0] = True
    occluder.covered([corner], lambda more: None)
    assert occluder.embedded == 7, "the whole picture and one tile of four"
    occluder.covered([np.zeros((6, 10), dtype=np.bool_)], lambda more: None)
    assert occluder.embedded == 7


@pytest.mark.parametrize("fill", FILLS)
def test_every_fill_finds_the_object(orange: Detector, fill: Any) -> None:
    e = explain(orange, orange_scene(), fill=fill, orders=0)
    row, col, _ = e.top_cells(1)[0]
    assert overlaps(row, col, e.heat.shape, (160, 96), SQUARE)


def test_windows_reveal_what_is_there_twice(make: Make) -> None:
    # Two squares side by side and a network that is sure of either: no single cell is missed, both together are.
    detector = make(gain=4000.0)
    image = orange_scene(square=(64, 48, 80, 64))
    image.paste((255, 120, 0), (80, 48, 96, 64))
    e = explain(detector, image)
    tops = {(r, c) for r, c, _ in e.top_cells(2)}
    assert tops == {(3, 4), (3, 5)}
    assert e.verdict == "faithful"


def test_heat_averages_windows() -> None:
    windows = _windows((4, 5))
    assert len(windows) == len(WINDOWS)
    assert [len(w) for w in windows] == [20, 12, 4]
    assert (windows[2].sum(axis=(1, 2)) == 9).all()
    assert all(w.any(axis=0).all() for w in windows), "every size covers every cell"
    # Where a cell costs what it costs whatever else is covered, the map is a smoothed form of that cost.
    cost = np.zeros((4, 5))
    cost[1, 2] = 1.0
    losses = np.concatenate([(w * cost).sum(axis=(1, 2)) for w in windows])
    heat, alone = _heat(windows, losses)
    assert (alone == cost).all()
    assert np.unravel_index(heat.argmax(), heat.shape) == (1, 2)
    assert heat[3, 0] == pytest.approx(1 / 9 / 3), "one 3 x 3 window holds both"
    assert [len(w) for w in _windows((1, 2))] == [2, 1, 1], "a grid smaller than a window"


def test_orders_are_the_same_each_time(orange: Detector, found: Explanation) -> None:
    again = explain(orange, orange_scene())
    assert again.to_dict() == found.to_dict()
    other = explain(orange, orange_scene(), seed=1)
    assert found.test is not None
    assert other.test is not None
    assert not (other.test.random == found.test.random).all()


def test_no_roadwork_is_explained_by_what_speaks_for_it(make: Make) -> None:
    e = explain(make(gain=-200.0, bias=2.0, views=ViewSpec(layout="global")), orange_scene())
    assert e.towards == "no_roadwork"
    row, col, value = e.top_cells(1)[0]
    assert value == e.heat.min() < 0
    assert overlaps(row, col, e.heat.shape, (160, 96), SQUARE)


def test_areas_and_ranks() -> None:
    x = np.array([0.0, 0.5, 1.0])
    t = OrderTest(x, np.array([2.0, 0.0, 0.0]), np.array([2.0, 2.0, 0.0]), np.array([[2.0, 1.0, 0.0], [2.0, 2.0, 0.0]]))
    assert (t.deletion_area, t.insertion_area, t.random_areas.tolist()) == (0.5, 1.5, [1.0, 1.5])
    assert t.beaten == (2, 1), "a tie beats nothing"
    assert not t.passed
    assert t.to_dict()["insertion"] == [0.0, 2.0, 2.0]
    assert _ranks(np.array([5.0, 1.0, 5.0, 7.0])).tolist() == [1.5, 0.0, 1.5, 3.0]


def test_grid_follows_the_shape() -> None:
    assert grid_of(100, 100, 8) == (8, 8)
    assert grid_of(640, 480, 8) == (7, 9)
    assert grid_of(4900, 100, 8) == (1, 32)
    mask = np.eye(3, dtype=np.bool_)
    assert enlarge(mask, (10, 7)).shape == (7, 10)
    assert enlarge(np.ones((3, 3), dtype=np.bool_), (10, 7)).all()


def test_numbers_are_fit_for_json(found: Explanation) -> None:
    stored = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert np.array(stored["heat"]).shape == (6, 10)
    assert stored["faithful"] is True
    assert len(stored["test"]["uncovered"]) == len(stored["test"]["insertion"])
    assert stored["test"]["uncovered"] == sorted(stored["test"]["uncovered"])


def test_the_picture(found: Explanation) -> None:
    drawn = illustrate(found, orange_scene(), side=300)
    assert drawn.mode == "RGB"
    assert drawn.width == 645
    lines = caption(found)
    assert lines[0].startswith("roadwork: P(roadwork) 1.00")
    assert verdict_sentence(found) in lines
    assert [v.box for v in shown_views(found)] == [found.views[4].box]
    assert not (np.asarray(drawn)[:, :320] == np.asarray(drawn)[:, -320:]).all()


def test_for_a_gallery(orange: Detector, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    orange_scene().save(path)
    e, picture = explain_image(orange, path, side=120)
    assert e.verdict == "not_checked"
    assert picture.size == (120, 72)
    pixels = np.asarray(picture).astype(int)
    brightest = np.unravel_index(pixels.sum(axis=2).argmax(), pixels.shape[:2])
    assert abs(brightest[0] - 45) < 12
    assert abs(brightest[1] - 82) < 12


@pytest.mark.parametrize("options", [{"cells": 1}, {"cells": 33}, {"orders": -1}])
def test_wrong_arguments(orange: Detector, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        explain(orange, orange_scene(), **options)  # type: ignore[arg-type]


def test_an_unusable_image(orange: Detector) -> None:
    with pytest.raises(ImageError):
        explain(orange, b"")


def test_scores_of_the_start_are_those_of_the_detector(orange: Detector) -> None:
    occluder = occluder_of(orange, orange_scene(), "blur")
    assert occluder.log_odds == pytest.approx(orange(orange_scene()).log_odds, abs=1e-5)
    assert (occluder.parts[0].pixels == make_views(orange_scene(), orange.preprocessing)[0]).all()
