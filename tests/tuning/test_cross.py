"""Figures across data sets: who is trained on, who is held out, and what is told of it."""

from __future__ import annotations

import numpy as np
import pytest

from workzone.data.roles import Role
from workzone.predictions import Predictions
from workzone.tuning.cross import ALL_OTHERS, CrossPlan, _figures, _one, _others, _Pool, heat_map
from workzone.tuning.folds import HELD_OUT

SETS = ("far", "near", "small")


@pytest.fixture
def pool() -> _Pool:
    """Three sets of 40 images in units of 2; one unit holds images of far and of near."""
    ids = [f"{s}{i}" for s in SETS for i in range(40)]
    units = [f"{s}-{i // 2}" for s in SETS for i in range(40)]
    units[ids.index("near0")] = units[ids.index("far0")]
    labels = np.array([i % 4 < 2 for _ in SETS for i in range(40)], dtype=np.int64)
    sets = np.repeat(SETS, 40).astype(np.str_)
    return _Pool(ids, labels, sets, np.array(units, dtype=np.str_), {})


def roles_of(splits) -> dict[str, set[Role]]:
    found: dict[str, set[Role]] = {}
    for image, role in splits.assignment.items():
        found.setdefault(splits.units[image], set()).add(role)
    return found


def test_no_unit_lies_on_both_sides(pool: _Pool) -> None:
    for splits in (_one(pool, "far", CrossPlan(), 1), _others(pool, "far", CrossPlan(), 1)):
        assert all(len(roles) == 1 for roles in roles_of(splits).values())
        assert set(splits.assignment) == set(pool.ids)


def test_trained_on_one_set_and_its_partners_in_a_unit(pool: _Pool) -> None:
    splits = _one(pool, "far", CrossPlan(held=0.3), 1)
    trained = {i for i, r in splits.assignment.items() if r is not HELD_OUT}
    assert trained <= {i for i in pool.ids if i.startswith("far")} | {"near0"}
    held = [i for i in splits.ids(HELD_OUT) if i.startswith("far")]
    assert 8 <= len(held) <= 16
    assert {"near7", "small3"} <= set(splits.ids(HELD_OUT))


def test_a_set_that_is_left_out_is_not_seen_in_any_unit(pool: _Pool) -> None:
    splits = _others(pool, "far", CrossPlan(), 1)
    assert splits.assignment["near0"] is HELD_OUT, "it shares a unit with far"
    assert all(r is HELD_OUT for i, r in splits.assignment.items() if i.startswith("far"))
    assert sum(r is Role.TRAIN for r in splits.assignment.values()) > 50


def rows(pool: _Pool, trained: str, splits, groups=None) -> list[dict]:
    held = [i for i, r in splits.assignment.items() if r is HELD_OUT]
    at = [pool.ids.index(i) for i in held]
    scores = Predictions(
        ids=np.array(held),
        labels=pool.labels[at],
        log_odds=np.where(pool.labels[at] == 1, 1.0, -1.0) + np.random.default_rng(0).normal(0, 1, len(at)),
        columns={"source": pool.sets[at], "group": pool.units[at] if groups is None else np.array(groups * len(at))},
    )
    return _figures(trained, scores, splits, CrossPlan(resamples=200), 0, 1.0)


def test_figures_of_every_set_or_of_the_one_left_out(pool: _Pool) -> None:
    found = rows(pool, "far", _one(pool, "far", CrossPlan(), 1))
    assert [r["tested"] for r in found] == ["far", "near", "small"]
    assert all(r["low"] <= r["value"] <= r["high"] for r in found)
    assert [r["n"] for r in found][1:] == [39, 40]
    out = rows(pool, "not far", _others(pool, "far", CrossPlan(), 1))
    assert [(r["trained"], r["tested"], r["n"]) for r in out] == [(ALL_OTHERS, "far", 40)]


def test_one_group_has_no_interval(pool: _Pool) -> None:
    found = rows(pool, "not far", _others(pool, "far", CrossPlan(), 1), groups=["same"])
    assert found[0]["n_groups"] == 1
    assert found[0]["value"] is not None
    assert (found[0]["low"], found[0]["high"]) == (None, None)


def test_the_heat_map_tells_intervals_and_counts(pool: _Pool) -> None:
    found = rows(pool, "far", _one(pool, "far", CrossPlan(), 1))
    found += rows(pool, "not near", _others(pool, "near", CrossPlan(), 1), groups=["same"])
    plot = heat_map({"by": "source", "sets": ["far"], "rows": found})
    png, svg = plot.render()
    assert png.startswith(b"\x89PNG")
    assert svg
    drawn: list[str] = []

    class Axes:
        def __getattr__(self, name: str):
            def call(*args, **kwargs):
                if name == "text":
                    drawn.append(args[2])
                if name == "set_xticks":
                    drawn.extend(args[1])

            return call

    class Figure:
        def subplots(self) -> Axes:
            return Axes()

        def suptitle(self, text: str, **kwargs: object) -> None:
            drawn.append(text)

    from workzone.evaluation.report.style import LIGHT

    plot.draw(Figure(), LIGHT)
    assert f"{found[1]['value']:.2f}\n{found[1]['low']:.2f} to {found[1]['high']:.2f}" in drawn
    assert any(text.endswith("1 group") for text in drawn)
    assert "near\n20 of 40" in drawn
    assert any(text.startswith("AUROC with 95% interval") for text in drawn)


def test_a_data_set_that_cannot_be_judged_says_why() -> None:
    from workzone.tuning.cross import _why_not

    assert _why_not(np.array([5, 0])) == "5 images, all without roadwork"
    assert _why_not(np.array([0, 4])) == "4 images, all with roadwork"
    assert _why_not(np.array([105, 2])) == "2 of 107 images with roadwork, fewer than 3 of one class"
