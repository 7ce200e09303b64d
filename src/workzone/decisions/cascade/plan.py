"""What a cascade is: an order of views, stages, a calibrator for each, and a path of operating points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from workzone import calibration
from workzone.calibration import Calibrator
from workzone.calibration.base import as_number, read_float
from workzone.decisions.cascade.chain import MAX_MODELS, Model, chain_problem
from workzone.errors import BundleError, ConfigError, DataError
from workzone.predictions import FloatArray, IntArray

MAX_POINTS = 64
MAX_VIEWS = 256
_PREFIX = "stage_"


def stage_names(stages: int) -> tuple[str, ...]:
    """Names under which a policy is given the log-odds of all stages but the last."""
    return tuple(f"{_PREFIX}{s}" for s in range(1, stages))


@dataclass(frozen=True, slots=True)
class Band:
    """Calibrated probabilities at which a stage passes an image on: low <= p < high. None at an end has no limit."""

    low: float | None = None
    high: float | None = None

    def stops(self, probability: FloatArray) -> NDArray[np.bool_]:
        """(N,) True where an image with this probability is answered here."""
        low = -np.inf if self.low is None else self.low
        high = np.inf if self.high is None else self.high
        return np.asarray((probability < low) | (probability >= high))

    def inside(self, other: Band) -> bool:
        """Whether every image that this band passes on is passed on by ``other`` too."""
        empty = self.low is not None and self.low == self.high
        above = other.low is None or (self.low is not None and self.low >= other.low)
        return empty or (above and (other.high is None or (self.high is not None and self.high <= other.high)))


@dataclass(frozen=True, slots=True)
class Point:
    """One operating point: a band for each stage but the last.

    Attributes:
        bands: where each stage passes on.
        cost: mean cost, as a share of what it takes to pass every image on, on the images the plan was fitted on.
        start: probability below which an image is answered no_roadwork when the point is tested; needed where there is
            more than one point.
    """

    bands: tuple[Band, ...]
    cost: float
    start: float | None = None


@dataclass(frozen=True)
class Plan:
    """A cascade of S stages over images with V views, of one model or of several.

    With several models the looks of one follow those of the other, so a stage belongs to the model of its last look.
    Its score is that model's for its own views; with ``mean`` it is the mean with the last scores of all models before.

    Attributes:
        order: (V,) the order in which views are looked at; view 0, the whole picture, is first. Of several models: the
            looks of each, numbered as its own views.
        stages: number of looks taken by each stage, rising, the last one V.
        calibrators: log-odds to probability for each stage but the last, whose calibrator is that of the bundle.
        points: from the dearest, which passes on every image, to the cheapest. The bands are nested, so whatever is
            passed on at a point is passed on at every dearer one.
        models: what each model looks at, the cheapest first; empty for one model.
        mean: whether later models add to the score of earlier ones instead of replacing it.
        focus: number of looks, one of the stages, after which each image has an order of its own: the places first that
            the views before call suspicious (``focus_order``). 0 where all images have one order.
    """

    order: tuple[int, ...]
    stages: tuple[int, ...]
    calibrators: tuple[Calibrator, ...]
    points: tuple[Point, ...]
    models: tuple[Model, ...] = ()
    mean: bool = False
    focus: int = 0

    def __post_init__(self) -> None:
        if problem := self.problem():
            raise ValueError(problem)

    def problem(self) -> str:
        """Why these parts are no cascade, empty where they are."""
        views, exits = len(self.order), len(self.stages) - 1
        if not 1 <= views <= MAX_VIEWS:
            return f"a cascade has 1 to {MAX_VIEWS} looks"
        if self.models:
            if problem := chain_problem(self.models, self.order, self.stages, MAX_VIEWS):
                return problem
        elif sorted(self.order) != list(range(views)) or self.order[0] != 0 or self.mean:
            return "the order of views is not a permutation that starts with the whole picture"
        if not self.stages or self.stages[0] < 1 or self.stages[-1] != views:
            return "the stages do not end with all views"
        if any(a >= b for a, b in pairwise(self.stages)):
            return "the stages do not rise"
        if self.focus and (self.models or self.focus not in self.stages[:-1]):
            return "each image has an order of its own only behind a stage of one model"
        if len(self.calibrators) != exits or any(c.needs for c in self.calibrators):
            return "each stage but the last needs a calibrator of its log-odds alone"
        if not 1 <= len(self.points) <= MAX_POINTS or any(len(p.bands) != exits for p in self.points):
            return "a point does not have one band for each stage but the last"
        if any(b != Band() for b in self.points[0].bands):
            return "the first point must pass on every image"
        for dear, cheap in pairwise(self.points):
            nested = all(b.inside(a) for a, b in zip(dear.bands, cheap.bands, strict=True))
            if not nested or cheap.cost > dear.cost:
                return "the points are not nested from dear to cheap"
        if len(self.points) > 1 and any(p.start is None for p in self.points):
            return "the threshold at which a point is tested is missing"
        return ""

    @classmethod
    def single(cls, views: int = 1) -> Self:
        """The cascade of one stage: all views, always."""
        return cls(tuple(range(views)), (views,), (), (Point((), 1.0),))

    @property
    def shares(self) -> FloatArray:
        """(S,) cost of all looks up to each stage, as a share of what it takes to pass every image on.

        Of one model: the share of its views. Of several: an image that went through all of them may cost more than 1,
        since who is passed on by everyone is not looked at by the models before the last, unless they add to its score.
        """
        if not self.models:
            return np.asarray(self.stages, dtype=np.float64) / len(self.order)
        paid = np.cumsum(np.concatenate([np.full(m.looks, m.cost) for m in self.models]))
        last = self.models[-1]
        whole = paid[-1] if self.mean else last.cost * last.looks
        return np.asarray(paid[np.asarray(self.stages) - 1] / whole, dtype=np.float64)

    def model(self, stage: int) -> int:
        """Number of the model, from 0, that stage ``stage`` (1 to S) belongs to."""
        ends = np.cumsum([m.looks for m in self.models])
        return int(np.searchsorted(ends, self.stages[stage - 1])) if self.models else 0

    def last_stage(self, model: int) -> int:
        """The stage (1 to S) by which model number ``model`` has taken all its looks."""
        ends = np.cumsum([m.looks for m in self.models] or [len(self.order)])
        return self.stages.index(int(ends[model])) + 1

    def used(self, bands: Sequence[Band]) -> tuple[bool, ...]:
        """Which models are looked through: all with ``mean``, else those where somebody stops, and the last."""
        count = max(len(self.models), 1)
        if self.mean:
            return (True,) * count
        open_ = {self.model(s) for s, band in enumerate(bands, start=1) if band != Band()}
        return tuple(m in open_ or m == count - 1 for m in range(count))

    def stage_costs(self, bands: Sequence[Band]) -> FloatArray:
        """(S,) cost of an image that stops at each stage where exits have these ``bands``.

        Of a model that passed an image on, the looks up to its last exit are paid, or all of them with ``mean``.
        """
        shares, costs = self.shares, []
        before = base = taken = 0.0
        for stage in range(1, len(self.stages) + 1):
            own, ends = float(shares[stage - 1]) - base, stage == self.last_stage(self.model(stage))
            costs.append(before + own)
            if stage < len(self.stages) and (bands[stage - 1] != Band() or (ends and self.mean)):
                taken = own
            if ends:
                before, base, taken = before + taken, float(shares[stage - 1]), 0.0
        return np.asarray(costs, dtype=np.float64)

    @property
    def names(self) -> tuple[str, ...]:
        """Measures that the cascade reads, see ``stage_names``."""
        return stage_names(len(self.stages))

    def views(self, stage: int) -> tuple[int, ...]:
        """Views that the model of ``stage`` (1 to S) has seen by then, in the order in which they are looked at."""
        before = sum(m.looks for m in self.models[: self.model(stage)])
        return self.order[before : self.stages[stage - 1]]

    def nearest(self, budget: float) -> int:
        """Number of the dearest point with a mean cost of at most ``budget``; -1 where there is none."""
        return next((i for i, p in enumerate(self.points) if p.cost <= budget + 1e-9), -1)

    def point_within(self, budget: float) -> int:
        """Number of the dearest point that ``budget`` pays for: a share of the cost, or above 1 a number of views.

        Raises:
            ConfigError: even one look costs more, or the budget is neither.
        """
        # Views of several models have no common number.
        views = 1 if self.models else len(self.order)
        where = "policy 'cascade'"
        if not 0.0 < budget <= max(views, 1):
            if self.models:
                raise ConfigError(
                    f"a budget of {budget:g} is no share of the cost of the last model",
                    where=where,
                    fix="give a number in (0, 1]; views of several models cannot be counted together",
                )
            raise ConfigError(
                f"a budget of {budget:g} is neither a share of the cost of all views nor a number of views",
                where=where,
                fix=f"give a number in (0, 1], or of views up to {views}",
            )
        share = budget / views if budget > 1.0 else budget
        found = self.nearest(share)
        if found < 0:
            least = self.points[-1].cost
            raise ConfigError(
                f"a budget of {budget:g} is less than one look costs",
                where=where,
                fix=f"give at least {least:.3g}, the share of one look",
            )
        return found

    def stops(self, point: int, stage: int, log_odds: FloatArray) -> NDArray[np.bool_]:
        """(N,) True where images with these uncalibrated ``log_odds`` at ``stage`` (1 to S) are answered there."""
        if stage == len(self.stages):
            return np.ones(len(log_odds), dtype=np.bool_)
        return self.points[point].bands[stage - 1].stops(self.calibrators[stage - 1](log_odds))

    def walk(
        self, point: int, probability: FloatArray, measures: Mapping[str, FloatArray] | None
    ) -> tuple[FloatArray, IntArray]:
        """Calibrated probability (N,) at the stage where each image stops, and that stage (N,), 1 to S.

        Args:
            point: number of the operating point.
            probability: (N,) calibrated probability of all views; not read where an image stops earlier.
            measures: (N,) log-odds of the stages by ``names``; not read behind the stage where an image stops.

        Raises:
            DataError: the log-odds of a stage that an image reaches are missing.
        """
        n = len(probability)
        answer, stop = np.array(probability, dtype=np.float64), np.full(n, len(self.stages), dtype=np.int64)
        going = np.ones(n, dtype=np.bool_)
        for stage, name in enumerate(self.names, start=1):
            if self.points[point].bands[stage - 1] == Band():
                continue  # nobody stops here, so nobody asks
            if measures is None or name not in measures:
                raise DataError(
                    f"a cascade needs the log-odds after its stage {stage}, which were not given",
                    where=f"measure {name!r}",
                    fix="score the stages with workzone.bundle.cascade.stage_log_odds",
                )
            scores = np.asarray(measures[name], dtype=np.float64)
            if scores.shape != (n,):
                raise ValueError(f"measure {name!r} must have shape ({n},), got {scores.shape}")
            if np.isnan(scores[going]).any():
                raise DataError(f"the log-odds after stage {stage} are not a number", where=f"measure {name!r}")
            q = self.calibrators[stage - 1](scores)
            here = going & self.points[point].bands[stage - 1].stops(q)
            answer[here], stop[here] = q[here], stage
            going &= ~here
        return answer, stop

    def cost(self, stop: IntArray, point: int) -> FloatArray:
        """(N,) what each image cost that stopped at ``stop`` (N,) at operating point ``point``, see ``shares``."""
        return self.stage_costs(self.points[point].bands)[np.asarray(stop) - 1]

    def with_points(self, points: Sequence[Point]) -> Plan:
        """The same stages with another path."""
        return replace(self, points=tuple(points))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        several = {"models": [m.to_dict() for m in self.models], "mean": self.mean} if self.models else {}
        own = {"focus": self.focus} if self.focus else {}
        return several | own | {
            "order": list(self.order),
            "stages": list(self.stages),
            "calibrators": [c.to_dict() for c in self.calibrators],
            "points": [
                {"bands": [[b.low, b.high] for b in p.bands], "cost": p.cost, "start": p.start} for p in self.points
            ],
        }

    @classmethod
    def from_dict(cls, stored: object) -> Self:
        """Read what ``to_dict`` wrote.

        Raises:
            BundleError: missing, unknown or contradictory values.
        """
        keys = ("order", "stages", "calibrators", "points")
        if not isinstance(stored, Mapping) or set(stored) not in (
            set(keys), {*keys, "focus"}, {*keys, "models", "mean"}
        ):  # fmt: skip
            raise BundleError(f"a stored cascade must hold exactly {', '.join(keys)}, of several also models, mean")
        if type(stored.get("focus", 1)) is not int or stored.get("focus", 1) < 1:
            raise BundleError("the stored focus of a cascade is no number of looks")
        several = "models" in stored
        if several and (type(stored["mean"]) is not bool or not stored["models"]):
            raise BundleError("a stored cascade of several models lacks them, or does not say how scores are joined")
        parts: dict[str, list[Any]] = {"models": []}
        sizes = dict.fromkeys(keys, MAX_VIEWS) | {"points": MAX_POINTS} | ({"models": MAX_MODELS} if several else {})
        for key, most in sizes.items():
            if not isinstance(stored[key], list) or len(stored[key]) > most:
                raise BundleError(f"stored {key} of the cascade must be a list of at most {most}")
            parts[key] = stored[key]
        if any(type(v) is not int for v in (*parts["order"], *parts["stages"])):
            raise BundleError("stored views and stages of a cascade must be whole numbers")
        if any(not isinstance(c, Mapping) for c in parts["calibrators"]):
            raise BundleError("a stored calibrator of a cascade is not an object")
        try:
            return cls(
                tuple(parts["order"]),
                tuple(parts["stages"]),
                tuple(calibration.from_dict(c) for c in parts["calibrators"]),
                tuple(_point(p) for p in parts["points"]),
                tuple(Model.from_dict(m) for m in parts["models"]),
                bool(stored.get("mean", False)),
                int(stored.get("focus", 0)),
            )
        except ValueError as error:
            raise BundleError(f"the stored cascade is impossible: {error}") from error


def _point(stored: object) -> Point:
    keys = {"bands", "cost", "start"}
    if not isinstance(stored, Mapping) or set(stored) != keys or not isinstance(stored["bands"], list):
        raise BundleError("a stored point of a cascade must hold exactly bands, cost and start")
    cost = as_number(stored["cost"])
    if not 0.0 < cost <= 1.0:
        raise BundleError(f"the stored cost of a point is {stored['cost']!r}, expected a number in (0, 1]")
    start = None if stored["start"] is None else read_float(stored, "start", low=0.0, high=1.0)
    return Point(tuple(_band(b) for b in stored["bands"]), cost, start)


def _band(stored: object) -> Band:
    if not isinstance(stored, list) or len(stored) != 2:
        raise BundleError("a stored band of a cascade must hold two ends")
    ends = [None if v is None else as_number(v) for v in stored]
    if any(v is not None and not 0.0 <= v <= 1.0 for v in ends):
        raise BundleError("an end of a stored band is not a number in [0, 1]")
    low, high = ends
    if low is not None and high is not None and low > high:
        raise BundleError("a stored band has its ends in the wrong order")
    return Band(low, high)
