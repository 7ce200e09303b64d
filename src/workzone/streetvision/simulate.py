"""What a bundle would earn: mean, spread and interval of the reward, the rule of answering, and what costs most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.decisions.types import Code
from workzone.errors import LeakageError
from workzone.predictions import FloatArray, logit
from workzone.streetvision.challenges import Scored, Stream, source_weights, stream
from workzone.streetvision.reward import MCC_WINDOW, NO_ANSWER, ema, rewards

SETTLED = 2 * MCC_WINDOW
"""Steps after which the moving average no longer remembers its start."""
WIDTHS = (0.0, 0.25, 0.5, 1.0, 2.0)
_CANDIDATES = 41
_MIN_OF_KIND = 5
_MOST_OF_ALL = 0.9
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Rule:
    """How a probability becomes an answer: roadwork above ``threshold``, else none.

    Attributes:
        threshold: in (0, 1).
        width: -1 is answered where the log-odds lie nearer to those of the threshold than this; 0 always answers.
        by_policy: -1 is answered where the policy of the bundle abstains.
    """

    threshold: float = 0.5
    width: float = 0.0
    by_policy: bool = False

    def answers(self, probability: FloatArray, codes: NDArray[np.int8]) -> NDArray[np.int8]:
        """1, 0 or -1 for each probability, of the same shape; NaN gives -1."""
        silent = np.isnan(probability)
        if self.width:
            distance = np.abs(logit(probability) - logit(np.array(self.threshold)))
            silent |= distance < self.width
        if self.by_policy:
            silent |= codes == Code.ABSTAIN
        return np.where(silent, int(NO_ANSWER), probability > self.threshold).astype(np.int8)

    def words(self) -> str:
        """For people."""
        silence = "always answers"
        if self.by_policy:
            silence = "silent where the policy abstains"
        elif self.width:
            silence = f"silent within {self.width:g} log-odds"
        return f"above {self.threshold:.3f}, {silence}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with an interval at 95 % over runs whose images were drawn again."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain values."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Cost:
    """What the mistakes and silences on one kind of challenge cost.

    Attributes:
        column: "level", or the column that makes the kind.
        kind: value in it.
        images: pictures of this kind.
        share: of the challenges.
        tpr, tnr: over answered challenges of this kind; NaN where there are none.
        answered: share of its challenges that is answered.
        cost: mean reward if every challenge of this kind were answered rightly, minus the mean reward as it is.
    """

    column: str
    kind: str
    images: int
    share: float
    tpr: float
    tnr: float
    answered: float
    cost: Estimate


@dataclass(frozen=True, slots=True)
class Earning:
    """What one rule earns.

    Attributes:
        rule: the rule.
        reward: mean over runs and steps; the interval holds chance of challenges and of images.
        sd_step: standard deviation of the reward of a step.
        sd_run: standard deviation of the mean of a run, images as given.
        score: mean of the moving average once it has settled; NaN in runs too short for that.
        sd_score: its standard deviation.
        tpr, tnr: over answered challenges.
        answered: share of challenges.
    """

    rule: Rule
    reward: Estimate
    sd_step: float
    sd_run: float
    score: float
    sd_score: float
    tpr: float
    tnr: float
    answered: float


@dataclass(frozen=True, slots=True)
class Streams:
    """The same challenges for every rule, so that rules differ by what they answer only.

    Attributes:
        given: images as given.
        drawn_again: images drawn again in each run.
        sources: one sentence on the mix of sources.
    """

    given: Stream
    drawn_again: Stream
    sources: str


def make_streams(scored: Scored, *, challenges: int, runs: int, seed: int) -> Streams:
    """Challenges of ``runs`` runs of ``challenges`` steps, once with the images as given and once drawn again."""
    weights, sentence = source_weights(scored.pictures, scored.protocol)
    given, again = (
        stream(scored, challenges=challenges, runs=runs, seed=seed, weights=weights, resample=resample)
        for resample in (False, True)
    )
    return Streams(given, again, sentence)


def earn(scored: Scored, streams: Streams, rule: Rule) -> Earning:
    """What ``rule`` earns on ``streams``."""
    said = rule.answers(scored.probability, scored.codes)
    answers, labels = streams.given.pick(said), streams.given.labels
    earned = rewards(answers, labels)
    again = rewards(streams.drawn_again.pick(said), streams.drawn_again.labels).mean(axis=-1)
    scores = ema(earned)[:, SETTLED:]
    tpr, tnr, answered = _rates(answers, labels)
    return Earning(
        rule,
        _estimate(float(earned.mean()), again),
        float(earned.std()),
        float(earned.mean(axis=-1).std(ddof=1)) if len(earned) > 1 else float("nan"),
        float(scores.mean()) if scores.size else float("nan"),
        float(scores.std()) if scores.size else float("nan"),
        tpr,
        tnr,
        answered,
    )


def _estimate(value: float, of_runs: FloatArray) -> Estimate:
    low, high = np.quantile(of_runs, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def _rates(answers: NDArray[Any], labels: NDArray[Any]) -> tuple[float, float, float]:
    answered = answers != NO_ANSWER
    positive, negative = answered & (labels == 1), answered & (labels == 0)

    def share(hits: NDArray[Any], of: NDArray[Any]) -> float:
        return float(hits.sum() / of.sum()) if of.any() else float("nan")

    return (
        share(positive & (answers == 1), positive),
        share(negative & (answers == 0), negative),
        float(answered.mean()),
    )


def costs(scored: Scored, streams: Streams, rule: Rule) -> list[Cost]:
    """What each level and each kind of image costs, dearest first.

    Each row asks alone what perfect answers on its kind would add; kinds overlap, so rows do not add up.
    """
    said = rule.answers(scored.probability, scored.codes)
    pictures = scored.pictures
    kinds: list[tuple[str, str, NDArray[np.bool_]]] = []
    for name, values in pictures.columns.items():
        names, counts = np.unique(values, return_counts=True)
        if len(names) > 1:
            # What nearly all images are is no kind.
            most = _MOST_OF_ALL * len(values)
            kinds += [
                (name, str(v), values == v) for v, n in zip(names, counts, strict=True) if _MIN_OF_KIND <= n <= most
            ]
    both = (streams.given, streams.drawn_again)
    base = [rewards(s.pick(said), s.labels) for s in both]
    found = []
    levels = [level for level, p in enumerate(scored.protocol.levels) if p > 0]
    for column, kind, rows in [("level", str(level), None) for level in levels] + [(*k[:2], k[2]) for k in kinds]:
        inside = [s.level == int(kind) if rows is None else rows[s.image] for s in both]
        means = []
        for s, here, before in zip(both, inside, base, strict=True):
            better = np.where(here, s.labels, s.pick(said))
            means.append(rewards(better, s.labels).mean(axis=-1) - before.mean(axis=-1))
        mine = inside[0]
        tpr, tnr, answered = _rates(streams.given.pick(said)[mine], streams.given.labels[mine])
        images = len(pictures) if rows is None else int(rows.sum())
        gain = _estimate(float(means[0].mean()), means[1])
        found.append(Cost(column, kind, images, float(mine.mean()), tpr, tnr, answered, gain))
    return sorted(found, key=lambda c: -c.cost.value)


@dataclass(frozen=True, slots=True)
class Choice:
    """The rule that earned most on the images kept for the choice.

    Attributes:
        rule: the best of thresholds and silences.
        always: the best that always answers.
        curve: mean reward there by threshold, always answering.
        images: how many images chose.
        reward: mean reward of ``rule`` on the images that chose it, which flatters it.
    """

    rule: Rule
    always: Rule
    curve: Mapping[float, float]
    images: int
    reward: float


def candidates(scored: Scored) -> FloatArray:
    """Thresholds worth trying: quantiles of the scores in between, and 0.5."""
    p = scored.probability[np.isfinite(scored.probability)]
    found = np.quantile(p, np.linspace(0, 1, _CANDIDATES))
    return np.unique(np.r_[np.clip(found, 1e-6, 1 - 1e-6), 0.5])


def mean_reward(scored: Scored, challenges: Stream, rule: Rule) -> float:
    """Mean reward of ``rule`` on ``challenges``."""
    said = rule.answers(scored.probability, scored.codes)
    return float(rewards(challenges.pick(said), challenges.labels).mean())


def choose(
    scored: Scored,
    *,
    challenges: int,
    runs: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Choice:
    """Threshold and silence with the highest mean reward on ``scored``, which must not be what is reported on.

    Ties go to the rule that answers more, then to the threshold nearer to 0.5.
    """
    weights, _ = source_weights(scored.pictures, scored.protocol)
    # One stream for all rules: differences between them are not blurred by other challenges.
    same = stream(scored, challenges=challenges, runs=runs, seed=seed, weights=weights)
    thresholds = candidates(scored).tolist()
    rules = [Rule(t, w) for w in WIDTHS for t in thresholds] + [Rule(t, by_policy=True) for t in thresholds]
    means = []
    for rule in rules:
        means.append(mean_reward(scored, same, rule))
        progress(len(means), len(rules))

    def best(among: list[int]) -> int:
        def order(i: int) -> tuple[float, bool, float, float]:
            return means[i], not rules[i].by_policy, -rules[i].width, -abs(rules[i].threshold - 0.5)

        return max(among, key=order)

    always = best([i for i, rule in enumerate(rules) if not rule.width and not rule.by_policy])
    winner = best(list(range(len(rules))))
    curve = {rules[i].threshold: means[i] for i in range(len(thresholds))}
    return Choice(rules[winner], rules[always], curve, len(scored.pictures), means[winner])


def require_disjoint(chosen_on: Scored, reported_on: Scored) -> None:
    """Raise LeakageError where an image both chooses the rule and reports on it."""
    a, b = chosen_on.pictures, reported_on.pictures
    same = np.intersect1d(a.hashes, b.hashes)
    if len(same):
        raise LeakageError(
            f"{len(same)} images both choose the rule and report on it",
            where=f"files with SHA-256 {same[0][:12]} and {len(same) - 1} more",
            fix="give --calib images that are not among the data, such as the role val_calib",
        )
