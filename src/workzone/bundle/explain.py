"""Which views and which places of a picture carried a decision, measured by occlusion, and whether to believe it.

A view counts by what the log-odds lose when it is left out, a place by what they lose when it is covered (occlusion:
Zeiler and Fergus, 2014, arXiv 1311.2901). Places are single cells of a grid and windows of cells, since where many
cones stand no single cell is missed. The map is then put to a test: covering places in the order of the map has to undo
the answer faster than covering them in random order, and uncovering them has to bring it back faster (deletion and
insertion: Petsiuk, Das and Saenko, 2018, arXiv 1806.07421). The weights of the aggregator are shown beside it but are
no explanation (Jain and Wallace, 2019, arXiv 1902.10186); their rank correlation with occlusion says how far they
agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workzone.bundle.answered import Answered, answered_by
from workzone.bundle.occlusion import MAX_CELLS, Fill, Occluder, Part, grid_of
from workzone.bundle.runtime import Decider
from workzone.decisions import Decision
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.vision import decode, needed_side
from workzone.vision.batch import Given, at_hand
from workzone.vision.decode import MAX_PIXELS

Verdict = Literal["faithful", "not_faithful", "nothing_to_explain", "not_checked"]
Box = tuple[float, float, float, float]
Array = NDArray[np.float64]

MIN_EFFECT = 0.05
"""Log-odds; where covering no window and not even all of it moves the answer this far, there is nothing to explain."""
NEEDED_SHARE = 0.9
"""Share of the random orders that the order of the map has to beat, in deletion and in insertion."""
AGREE = 0.5
"""Rank correlation from which weights and occlusion are said to agree."""
WINDOWS = ((1, 1), (2, 1), (3, 2))
"""Side and step, in cells, of the windows that are covered."""
_SHARES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 7 / 8, 1.0)


@dataclass(frozen=True, slots=True)
class ExplainedView:
    """One view: box as fractions of the picture, its own log-odds, its weight in the aggregator, and its contribution.

    ``contribution`` is log-odds of all views minus log-odds without this one; None where it is the only view.
    """

    box: Box
    log_odds: float
    weight: float
    contribution: float | None


@dataclass(frozen=True, slots=True)
class OrderTest:
    """Deletion and insertion; all log-odds are those of the answer that the picture leans to, areas are their means.

    Attributes:
        covered: (S,) share of cells covered, from 0 to 1.
        deletion: (S,) log-odds as cells are covered in the order of the map, most supporting first.
        insertion: (S,) the same, least supporting first; read from its end it is the insertion curve.
        random: (R, S) the same in random orders; a random order read backwards is a random order of insertion.
    """

    covered: Array
    deletion: Array
    insertion: Array
    random: Array

    @property
    def deletion_area(self) -> float:
        """Lower is better."""
        return _area(self.covered, self.deletion)

    @property
    def insertion_area(self) -> float:
        """Higher is better."""
        return _area(self.covered, self.insertion)

    @property
    def random_areas(self) -> Array:
        """(R,) areas of the random orders."""
        return np.array([_area(self.covered, curve) for curve in self.random])

    @property
    def beaten(self) -> tuple[int, int]:
        """How many random orders the map beats in deletion and in insertion."""
        areas = self.random_areas
        return int((self.deletion_area < areas).sum()), int((self.insertion_area > areas).sum())

    @property
    def passed(self) -> bool:
        """Whether the map beats the needed share of the random orders in both."""
        return min(self.beaten) >= NEEDED_SHARE * len(self.random)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        areas = self.random_areas
        return {
            "covered": self.covered.tolist(),
            "deletion": self.deletion.tolist(),
            "uncovered": (1.0 - self.covered[::-1]).tolist(),
            "insertion": self.insertion[::-1].tolist(),
            "deletion_area": self.deletion_area,
            "insertion_area": self.insertion_area,
            "random_area_mean": float(areas.mean()),
            "random_area_sd": float(areas.std(ddof=1)) if len(areas) > 1 else None,
            "random_orders": len(areas),
            "beaten_in_deletion": self.beaten[0],
            "beaten_in_insertion": self.beaten[1],
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """What carried one decision.

    Attributes:
        decision: the decision that is explained.
        certificate: the first sentence of the bundle's certificate, of a cascade that of the operating point in use.
        answered: of a cascade, the stage and the model that answered.
        towards: the answer the picture leans to, also where the policy abstained.
        views: one entry for each view that the model which answered looked at, global view first.
        heat: (rows, cols) log-odds of roadwork that a cell carries: what covering a window costs, divided by its cells,
            averaged over the windows of a size that hold the cell and over the sizes. Positive speaks for roadwork.
        alone: (rows, cols) what covering this cell alone costs.
        fill: what cells were covered with.
        log_odds_covered: log-odds of roadwork with all cells covered.
        weight_agreement: rank correlation of the weights with contributions or with their sizes, whichever is larger,
            since aggregators differ in what a weight means; None below three distinct values.
        test: the test of the map; None where it was not made.
        verdict: whether the map can be believed.
        embedded: views that were embedded for all this.
    """

    decision: Decision
    certificate: str
    answered: Answered | None
    towards: Literal["roadwork", "no_roadwork"]
    views: tuple[ExplainedView, ...]
    heat: Array
    alone: Array
    fill: Fill
    log_odds_covered: float
    weight_agreement: float | None
    test: OrderTest | None
    verdict: Verdict
    embedded: int

    def top_cells(self, count: int) -> list[tuple[int, int, float]]:
        """Row, column and heat of the cells that support ``towards`` most, strongest first."""
        support = self.heat if self.towards == "roadwork" else -self.heat
        order = np.argsort(-support, axis=None, kind="stable")[:count]
        rows, cols = np.unravel_index(order, self.heat.shape)
        return [(int(r), int(c), float(self.heat[r, c])) for r, c in zip(rows, cols, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        decision = self.decision.to_dict()
        del decision["views"]
        return {
            **decision,
            "certificate": self.certificate,
            "answered": self.answered.to_dict() if self.answered else None,
            "towards": self.towards,
            "faithful": self.verdict == "faithful" if self.verdict != "not_checked" else None,
            "verdict": self.verdict,
            "verdict_in_words": verdict_sentence(self),
            "views": [
                {"box": list(v.box), "log_odds": v.log_odds, "weight": v.weight, "contribution": v.contribution}
                for v in self.views
            ],
            "weight_agreement": self.weight_agreement,
            "weights_in_words": weights_sentence(self),
            "heat": self.heat.tolist(),
            "alone": self.alone.tolist(),
            "fill": self.fill,
            "log_odds_covered": self.log_odds_covered,
            "test": self.test.to_dict() if self.test else None,
            "views_embedded": self.embedded,
        }


def explain(
    detector: Decider,
    source: Given,
    *,
    cells: int = 8,
    fill: Fill = "mean",
    orders: int = 10,
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] | None = None,
    columns: Mapping[str, Any] | None = None,
) -> Explanation:
    """Explain the decision about one image, the one that ``detector`` gives.

    Of a cascade the stage that answered is explained: covered pictures are scored by the same models and views, also
    where they would have been passed on.

    Args:
        detector: an opened bundle; its engines do all the work, torch is not needed.
        source: path, content of a file, Pillow image, or address.
        cells: cells along a side of a square picture; other shapes get about as many, nearly square.
        fill: see ``Occluder``.
        orders: random orders that the map is compared with; 0 leaves the test out.
        seed: of the random orders.
        max_pixels: largest image that is decoded.
        progress: called with covered pictures scored so far and in all.
        columns: metadata that the calibrator needs, as for ``Decider.__call__``.

    Raises:
        ImageError: the image cannot be used.
        DataError: the calibrator needs a column that was not given.
        ValueError: ``cells`` or ``orders`` out of range.
    """
    if not 2 <= cells <= MAX_CELLS or orders < 0:
        raise ValueError(f"cells must be from 2 to {MAX_CELLS} and orders at least 0, not {cells} and {orders}")
    image = at_hand(source)
    decision, looked = detector.trace(image, max_pixels=max_pixels, columns=columns)
    parts = []
    for number, seen, _ in looked:
        model = detector.models[number]
        picture = decode(image, max_pixels=max_pixels, min_side=needed_side(model.preprocessing))
        parts.append(Part(model, picture, seen))
    grid = grid_of(picture.width, picture.height, cells)
    occluder = Occluder(parts, grid, fill)
    count = grid[0] * grid[1]
    steps = np.unique(np.round(np.array(_SHARES) * count).astype(np.int64))
    inner = len(steps) - 2
    windows = _windows(grid)
    total = sum(len(w) for w in windows) + 1 + (orders + 2) * inner * (orders > 0)
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        if progress:
            progress(done, total)

    everything = np.ones((1, *grid), dtype=np.bool_)
    losses = occluder.log_odds - occluder.covered(list(np.concatenate([*windows, everything])), advance)
    log_odds_covered = occluder.log_odds - float(losses[-1])
    heat, alone = _heat(windows, losses[:-1])
    towards: Literal["roadwork", "no_roadwork"] = "roadwork" if decision.probability >= 0.5 else "no_roadwork"
    sign = 1.0 if towards == "roadwork" else -1.0
    ends = sign * np.array([occluder.log_odds, log_odds_covered])
    nothing = float(np.abs(losses).max()) < MIN_EFFECT
    test = None
    if orders and not nothing:
        test = _order_test(occluder, sign * heat, steps, ends, sign, orders, np.random.default_rng(seed), advance)
    elif progress:
        progress(total, total)
    views = _views(decision, occluder)
    return Explanation(
        decision=decision,
        certificate=_promise(detector),
        answered=answered_by(detector, decision, looked),
        towards=towards,
        views=views,
        heat=heat,
        alone=alone,
        fill=fill,
        log_odds_covered=log_odds_covered,
        weight_agreement=_agreement(views),
        test=test,
        verdict=_verdict(nothing, test),
        embedded=occluder.embedded,
    )


def verdict_sentence(e: Explanation) -> str:
    """The verdict in words, with its numbers."""
    if e.verdict == "nothing_to_explain":
        return f"Nothing to explain: covering the picture moves the log-odds by less than {MIN_EFFECT}."
    if e.test is None:
        return "Faithful: not checked."
    t = e.test
    mean, r = float(t.random_areas.mean()), len(t.random)
    return (
        f"Faithful: {'yes' if t.passed else 'no, do not rely on this map'}. Mean log-odds of {e.towards} while cells "
        f"are covered, strongest first {t.deletion_area:+.2f}, weakest first {t.insertion_area:+.2f}, "
        f"in random orders {mean:+.2f} (beaten: {t.beaten[0]} and {t.beaten[1]} of {r})."
    )


def weights_sentence(e: Explanation) -> str:
    """Whether the weights of the aggregator rank the views as occlusion does, in words."""
    if e.weight_agreement is None:
        return "Weights and occlusion of the views cannot be compared: too few views that differ."
    rank = f"rank correlation {e.weight_agreement:+.2f} over {len(e.views)} views"
    if e.weight_agreement >= AGREE:
        return f"The weights of the views agree with occlusion ({rank})."
    return f"The weights of the views disagree with occlusion ({rank}): believe occlusion."


def _promise(detector: Decider) -> str:
    if isinstance(detector.policy, CascadePolicy):
        return detector.policy.promise(detector.policy.active).sentence()
    return detector.certificate.sentences()[0]


def _windows(grid: tuple[int, int]) -> list[NDArray[np.bool_]]:
    """Masks (M, rows, cols) of all windows of each size, single cells first, in the order of the cells."""
    found = []
    for side, step in WINDOWS:
        down, across = min(side, grid[0]), min(side, grid[1])
        tops = sorted({*range(0, grid[0] - down + 1, step), grid[0] - down})
        lefts = sorted({*range(0, grid[1] - across + 1, step), grid[1] - across})
        masks = np.zeros((len(tops) * len(lefts), *grid), dtype=np.bool_)
        for i, mask in enumerate(masks):
            top, left = tops[i // len(lefts)], lefts[i % len(lefts)]
            mask[top : top + down, left : left + across] = True
        found.append(masks)
    return found


def _heat(windows: Sequence[NDArray[np.bool_]], losses: Array) -> tuple[Array, Array]:
    """Heat and loss of single cells, both (rows, cols), from the loss of each window."""
    maps, start = [], 0
    for masks in windows:
        share = losses[start : start + len(masks)] / masks.sum(axis=(1, 2))
        maps.append(np.tensordot(share, masks.astype(np.float64), axes=1) / masks.sum(axis=0))
        start += len(masks)
    return np.asarray(np.mean(maps, axis=0)), maps[0]


def _order_test(
    occluder: Occluder,
    support: Array,
    steps: NDArray[np.int64],
    ends: Array,
    sign: float,
    orders: int,
    rng: np.random.Generator,
    advance: Callable[[int], None],
) -> OrderTest:
    best_first = np.argsort(-support, axis=None, kind="stable")
    ranks = [best_first, best_first[::-1], *(rng.permutation(support.size) for _ in range(orders))]
    masks = []
    for order in ranks:
        for k in steps[1:-1].tolist():
            mask = np.zeros(support.size, dtype=np.bool_)
            mask[order[:k]] = True
            masks.append(mask.reshape(support.shape))
    curves = np.empty((len(ranks), len(steps)))
    curves[:, 0], curves[:, -1] = ends
    curves[:, 1:-1] = sign * occluder.covered(masks, advance).reshape(len(ranks), -1)
    return OrderTest(steps / support.size, curves[0], curves[1], curves[2:])


def _views(decision: Decision, occluder: Occluder) -> tuple[ExplainedView, ...]:
    without = occluder.without_view()
    return tuple(
        ExplainedView(v.box, v.log_odds, v.weight, None if without is None else float(occluder.log_odds - without[i]))
        for i, v in enumerate(decision.views)
    )


def _verdict(nothing: bool, test: OrderTest | None) -> Verdict:
    if nothing:
        return "nothing_to_explain"
    if test is None:
        return "not_checked"
    return "faithful" if test.passed else "not_faithful"


def _area(x: Array, y: Array) -> float:
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


def _agreement(views: Sequence[ExplainedView]) -> float | None:
    # What differs by rounding only has no rank.
    weights = np.array([v.weight for v in views]).round(6)
    given = np.array([v.contribution for v in views if v.contribution is not None]).round(6)
    if len(given) != len(weights) or min(len(np.unique(weights)), len(np.unique(given))) < 3:
        return None
    sides = [given] if len(np.unique(np.abs(given))) < 3 else [given, np.abs(given)]
    return max(float(np.corrcoef(_ranks(weights), _ranks(values))[0, 1]) for values in sides)


def _ranks(values: Array) -> Array:
    """Ranks from 0, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts + 1) / 2)[inverse], dtype=np.float64)
