"""Figures of a cascade: who stops where, what it costs, and whether hard images are the ones that go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.metrics.bootstrap import Interval, bootstrap
from workzone.metrics.registry import Metric
from workzone.metrics.sample import FloatArray, as_labels, as_scores


@dataclass(frozen=True, slots=True)
class Stage:
    """Images that stopped at one stage.

    Attributes:
        stage: number of the stage.
        n: images that stopped there.
        share: of all images.
        accuracy: right among them. Later stages get the harder images, so it is expected to fall.
        mean_cost: mean cost of those images.
    """

    stage: int
    n: int
    share: Interval
    accuracy: Interval
    mean_cost: float


@dataclass(frozen=True, slots=True)
class CascadeFigures:
    """The whole cascade and each stage; intervals by group where groups were given."""

    n: int
    mean_cost: Interval
    accuracy: Interval
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Deferral:
    """How well a score finds the images that the small model gets wrong.

    Attributes:
        n: images.
        small_wrong: share that the small model gets wrong.
        auroc: chance that a wrong image has a higher score than a right one; NaN where all or none are wrong.
        accuracy: share of images deferred where wrong and kept where right, or None without decisions.
        deferred: share deferred, or None.
    """

    n: int
    small_wrong: Interval
    auroc: Interval
    accuracy: Interval | None
    deferred: Interval | None


@dataclass(frozen=True, slots=True)
class DeferralCurve:
    """Accuracy against mean cost as more images are deferred, from none to all.

    Attributes:
        deferred: (T,) share deferred; images of equal score are deferred together.
        cost: (T,) mean cost.
        accuracy: (T,) joint accuracy.
        random_accuracy: (T,) expected accuracy at the same share deferred at random.
        oracle_deferred: (N + 1,) share deferred by one who knows which images gain.
        oracle_cost: (N + 1,) its mean cost.
        oracle_accuracy: (N + 1,) its accuracy, the most that any score can reach at that share.
        quality: area between the score and random as a share of the area between oracle and random: 1 is the oracle,
            0 is chance; NaN where deferring changes nothing.
    """

    deferred: FloatArray
    cost: FloatArray
    accuracy: FloatArray
    random_accuracy: FloatArray
    oracle_deferred: FloatArray
    oracle_cost: FloatArray
    oracle_accuracy: FloatArray
    quality: float


def _share(events: NDArray[Any], groups: Any, options: dict[str, Any]) -> Interval:
    hit = np.asarray(events, dtype=np.int64)
    sure = np.ones(len(hit))
    return bootstrap(["accuracy"], hit, sure, sure.astype(np.int64), groups=groups, **options)["accuracy"]


def cascade_figures(
    stage: Any,
    cost: Any,
    correct: Any,
    *,
    groups: Any = None,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 42,
) -> CascadeFigures:
    """Stage shares, mean cost, and accuracy of each stage and of the whole.

    Args:
        stage: (N,) stage at which each image stopped, integers.
        cost: (N,) cost of each image over all stages it went through, any unit, finite and not negative.
        correct: (N,) whether the final answer is right.
        groups: (N,) drive or place; whole groups are drawn.
        level: confidence of intervals.
        n_resamples: B.
        seed: of the draws.

    Raises:
        ValueError: no images, unequal lengths, or values out of range.
    """
    right = as_labels(np.asarray(correct).astype(np.int64), "correct")
    n = len(right)
    spent = as_scores(cost, n, name="cost", probability=False)
    reached = np.asarray(stage)
    if n == 0 or reached.shape != (n,) or not np.issubdtype(reached.dtype, np.integer) or spent.min() < 0:
        raise ValueError("stage must hold one integer per image, cost be at least 0, and there must be images")
    drive = None if groups is None else np.asarray(groups)
    options: dict[str, Any] = {"level": level, "n_resamples": n_resamples, "seed": seed}
    mean_cost = Metric(
        "mean_cost", "cascade", (0, float("inf")), False, "mean cost per image", (),
        lambda rows: rows.mean(spent[rows.sample.order]),
    )  # fmt: skip
    whole = bootstrap({"mean_cost": mean_cost}, right, np.ones(n), groups=drive, **options)["mean_cost"]
    stages = []
    for number in np.unique(reached).tolist():
        here = reached == number
        own = None if drive is None else drive[here]
        stages.append(
            Stage(
                number,
                int(here.sum()),
                _share(here, drive, options),
                _share(right[here], own, options),
                float(spent[here].mean()),
            )
        )
    return CascadeFigures(n, whole, _share(right, drive, options), tuple(stages))


def deferral_figures(
    small_correct: Any,
    score: Any,
    deferred: Any = None,
    *,
    groups: Any = None,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 42,
) -> Deferral:
    """AUROC of a deferral score against "the small model is wrong", and the accuracy of the deferrals made.

    Args:
        small_correct: (N,) whether the small model alone is right.
        score: (N,) finite; higher is deferred first, for example 1 - max probability.
        deferred: (N,) what was deferred, or None.
        groups: (N,) drive or place.
        level: confidence of intervals.
        n_resamples: B.
        seed: of the draws.

    Raises:
        ValueError: no images, unequal lengths, or values out of range.
    """
    wrong = 1 - as_labels(np.asarray(small_correct).astype(np.int64), "small_correct")
    values = as_scores(score, len(wrong), name="score", probability=False)
    options: dict[str, Any] = {"level": level, "n_resamples": n_resamples, "seed": seed}
    # Only the order matters to an AUROC; ranks fit the range of a probability.
    ranks = np.unique(values, return_inverse=True)[1].astype(np.float64)
    auroc = bootstrap(["auroc"], wrong, ranks / max(float(ranks.max(initial=0)), 1.0), groups=groups, **options)
    accuracy = share = None
    if deferred is not None:
        sent = as_labels(np.asarray(deferred).astype(np.int64), "deferred")
        if len(sent) != len(wrong):
            raise ValueError("deferred must hold one value per image")
        accuracy, share = _share(sent == wrong, groups, options), _share(sent, groups, options)
    return Deferral(len(wrong), _share(wrong, groups, options), auroc["auroc"], accuracy, share)


def deferral_curve(
    small_correct: Any, large_correct: Any, score: Any, *, small_cost: Any = 1.0, large_cost: Any = 10.0
) -> DeferralCurve:
    """Accuracy against cost over every threshold of ``score``, with random and oracle deferral.

    Every image pays for the small model; a deferred one pays for the large model as well.

    Args:
        small_correct: (N,) whether the small model alone is right.
        large_correct: (N,) whether the large model alone is right.
        score: (N,) finite; higher is deferred first.
        small_cost: number or (N,).
        large_cost: number or (N,), added for deferred images.

    Raises:
        ValueError: no images, unequal lengths, or values out of range.
    """
    small = as_labels(np.asarray(small_correct).astype(np.int64), "small_correct")
    large = as_labels(np.asarray(large_correct).astype(np.int64), "large_correct")
    n = len(small)
    if n == 0 or len(large) != n:
        raise ValueError("small_correct and large_correct must hold one value per image, at least one")
    values = as_scores(score, n, name="score", probability=False)
    base = float(np.broadcast_to(np.asarray(small_cost, dtype=np.float64), (n,)).mean())
    extra = np.broadcast_to(np.asarray(large_cost, dtype=np.float64), (n,))
    if not np.isfinite(extra).all() or not np.isfinite(base) or extra.min() < 0 or base < 0:
        raise ValueError("costs must be finite and not negative")
    gain = (large - small).astype(np.float64)

    def path(order: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        accuracy = (small.sum() + np.r_[0.0, np.cumsum(gain[order])]) / n
        return base + np.r_[0.0, np.cumsum(extra[order])] / n, accuracy

    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    ends = np.r_[0, np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True]) + 1]
    cost, accuracy = (v[ends] for v in path(order))
    # Among images that gain alike, the oracle takes the cheaper ones first.
    best_cost, best = path(np.lexsort((extra, -gain)))
    share, all_shares = ends / n, np.arange(n + 1) / n
    chance = accuracy[0] + share * (accuracy[-1] - accuracy[0])
    flat = (accuracy[0] + accuracy[-1]) / 2
    room = float(np.trapezoid(best, all_shares)) - flat
    quality = (float(np.trapezoid(accuracy, share)) - flat) / room if room > 1e-12 else float("nan")
    return DeferralCurve(share, cost, accuracy, chance, all_shares, best_cost, best, quality)
