"""At which stage of a cascade an answer was given, by which of its models, and by which thresholds; in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from workzone.bundle.cascade import Looked
from workzone.bundle.runtime import Decider
from workzone.decisions import Decision
from workzone.decisions.policies.cascade import CascadePolicy


@dataclass(frozen=True, slots=True)
class Answered:
    """Where the answer of a cascade was given.

    Attributes:
        stage: number of the stage, from 1.
        stages: how many there are.
        model: number of the model that answered, from 1.
        names: of all models, the cheapest first.
        views: views that this model looked at.
        views_of_model: views that it has.
        passed_on: numbers of the models that looked before and passed the image on.
        joined: number and own log-odds of every model whose score is in the mean, one alone where it is not a mean.
        calibrator: name of the calibrator of the stage.
        passes: probabilities from the first to below the second are passed on, None at an end without limit; None as a
            whole where everything is answered that reaches the stage.
        t_low: below it the answer is no_roadwork; None where that is never said.
        t_high: from it on the answer is roadwork.
    """

    stage: int
    stages: int
    model: int
    names: tuple[str, ...]
    views: int
    views_of_model: int
    passed_on: tuple[int, ...]
    joined: tuple[tuple[int, float], ...]
    calibrator: str
    passes: tuple[float | None, float | None] | None
    t_low: float | None
    t_high: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        joined = [{"model": model, "log_odds": value} for model, value in self.joined]
        return {**asdict(self), "joined": joined, "in_words": " ".join(self.sentences())}

    def sentences(self) -> tuple[str, str]:
        """Who answered and after whom; and by which calibrator and thresholds."""
        share = "all" if self.views == self.views_of_model else f"{self.views} of"
        whose = "the" if len(self.names) == 1 else "its"
        where = f"at stage {self.stage} of {self.stages}, from {share} {whose} {self.views_of_model} views."
        if len(self.names) == 1:
            return f"Answered {where}", self._rule()
        who = f"Answered by model {self.model} of {len(self.names)}, {self.names[self.model - 1]}, {where}"
        return f"{who} {self._before()}", self._rule()

    def _before(self) -> str:
        told = []
        if self.passed_on:
            plural = "s" if len(self.passed_on) > 1 else ""
            told.append(f"Model{plural} {' and '.join(map(str, self.passed_on))} looked before and passed it on.")
        elif self.model > 1:
            told.append("At this budget no model is asked before it.")
        if self.model < len(self.names):
            told.append("No dearer model was asked.")
        if len(self.joined) > 1:
            parts = ", ".join(f"model {model} {value:+.2f}" for model, value in self.joined)
            told.append(f"The log-odds are the mean of {parts}.")
        return " ".join(told)

    def _rule(self) -> str:
        stop = "answers whatever reaches it"
        if self.passes is not None:
            words = zip(("below {:.3f}", "from {:.3f} on"), self.passes, strict=True)
            ends = [word.format(limit) for word, limit in words if limit is not None]
            stop = f"answers {' and '.join(ends)}, and passes the rest on"
        below = "any other is left open"
        if self.t_low is not None:
            below = f"below {self.t_low:.3f} it is no_roadwork"
        return (
            f"P(roadwork) is that of the calibrator of this stage ({self.calibrator}); the stage {stop}. "
            f"From {self.t_high:.3f} on the answer is roadwork, {below}."
        )


def answered_by(detector: Decider, decision: Decision, looked: Sequence[Looked]) -> Answered | None:
    """Where ``detector`` gave ``decision``, which rests on ``looked``; None unless its policy is a cascade."""
    policy = detector.policy
    if not isinstance(policy, CascadePolicy) or len(policy.plan.stages) == 1 or decision.stage is None:
        return None
    plan, stage = policy.plan, decision.stage
    bands, model = plan.points[policy.active].bands, plan.model(stage)
    used = plan.used(bands)
    last = stage == len(plan.stages)
    band = None if last or bands[stage - 1].low == bands[stage - 1].high else bands[stage - 1]
    calibrator = detector.calibrator if last else plan.calibrators[stage - 1]
    return Answered(
        stage=stage,
        stages=len(plan.stages),
        model=model + 1,
        names=tuple(m.title for m in detector.models),
        views=len(looked[-1].views),
        views_of_model=plan.models[model].views if plan.models else len(plan.order),
        passed_on=tuple(m + 1 for m in range(model) if used[m]),
        joined=tuple((part.model + 1, part.log_odds) for part in looked),
        calibrator=calibrator.name,
        passes=None if band is None else (band.low, band.high),
        t_low=policy.results[policy.active].threshold,
        t_high=policy.t_high,
    )
