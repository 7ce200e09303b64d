"""The outcome of a simulation as JSON, as a picture and as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workzone.evaluation.report.style import Palette, Plot, printable
from workzone.files import write_atomic, write_json
from workzone.streetvision.challenges import Scored
from workzone.streetvision.simulate import Choice, Cost, Earning, Rule, Streams, candidates, costs, earn, mean_reward

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1
JSON, PNG = "simulation.json", "simulation.png"
_SHOWN = 14


@dataclass(frozen=True, slots=True)
class Simulation:
    """Everything that was found out about one bundle.

    Attributes:
        bundle: its name.
        scored: the images.
        challenges, runs, draws, seed: settings.
        sources: one sentence on the mix of sources.
        earnings: by rule; the first is the threshold 0.5 that always answers.
        costs: of levels and kinds under ``rule``.
        rule: which rule the costs are about.
        curve: mean reward on these images by threshold; it shows, it does not choose.
        choice: how the rule was chosen on other images, or None.
    """

    bundle: str
    scored: Scored
    challenges: int
    runs: int
    draws: int
    seed: int
    sources: str
    earnings: tuple[Earning, ...]
    costs: tuple[Cost, ...]
    rule: Rule
    curve: Mapping[float, float]
    choice: Choice | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, None where a figure is undefined."""
        labels = self.scored.pictures.labels
        return {
            "schema_version": SCHEMA_VERSION,
            "bundle": self.bundle,
            "protocol": self.scored.protocol.name,
            "n": len(labels),
            "n_positive": int(labels.sum()),
            "n_groups": len(set(self.scored.pictures.groups.tolist())),
            "challenges": self.challenges,
            "runs": self.runs,
            "draws": self.draws,
            "seed": self.seed,
            "sources": self.sources,
            "interval": "95 %, over runs whose groups of images were drawn again",
            "earnings": [
                {
                    **_rule(e.rule),
                    "reward": e.reward.to_dict(),
                    **{
                        name: _number(getattr(e, name))
                        for name in ("sd_step", "sd_run", "score", "sd_score", "tpr", "tnr", "answered")
                    },
                }
                for e in self.earnings
            ],
            "costs": {
                "rule": _rule(self.rule),
                "rows": [
                    {
                        "column": c.column,
                        "kind": c.kind,
                        "n": c.images,
                        "cost": c.cost.to_dict(),
                        **{name: _number(getattr(c, name)) for name in ("share", "tpr", "tnr", "answered")},
                    }
                    for c in self.costs
                ],
            },
            "curve": [{"threshold": t, "reward": r} for t, r in sorted(self.curve.items())],
            "choice": None
            if self.choice is None
            else {
                "rule": _rule(self.choice.rule),
                "always": _rule(self.choice.always),
                "n": self.choice.images,
                "reward_where_chosen": self.choice.reward,
                "curve": [{"threshold": t, "reward": r} for t, r in sorted(self.choice.curve.items())],
            },
        }

    def sentence(self) -> str:
        """What is earned at 0.5 and by the chosen rule, for a terminal and for those who cannot see the picture."""
        n, roadwork = len(self.scored.pictures), int(self.scored.pictures.labels.sum())
        chosen = next((e for e in self.earnings[1:] if self.choice and e.rule == self.choice.rule), None)
        told = [self.earnings[0], *([] if chosen is None else [chosen])]
        words = "; ".join(f"{_earned(e)} with the rule '{e.rule.words()}'" for e in told)
        return f"Protocol {self.scored.protocol.name}: mean reward {words} ({n} images, {roadwork} with roadwork)."


def _earned(e: Earning) -> str:
    return f"{e.reward.value:.3f} [{e.reward.low:.3f}, {e.reward.high:.3f}]"


def _rule(rule: Rule) -> dict[str, Any]:
    return {"threshold": rule.threshold, "width": rule.width, "by_policy": rule.by_policy}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def simulate(
    bundle: str,
    scored: Scored,
    streams: Streams,
    *,
    challenges: int,
    runs: int,
    draws: int,
    seed: int,
    choice: Choice | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Simulation:
    """Earnings of 0.5, of the bundle's policy, and of the rules in ``choice``; costs under the best rule chosen.

    ``choice`` must come from other images (``require_disjoint``).
    """
    rules = [Rule(), Rule(by_policy=True)]
    if choice is not None:
        rules += [rule for rule in dict.fromkeys((choice.always, choice.rule)) if rule not in rules]
    earnings = []
    for rule in rules:
        earnings.append(earn(scored, streams, rule))
        progress(len(earnings), len(rules) + 2)
    used = rules[0] if choice is None else choice.rule
    found = costs(scored, streams, used)
    progress(len(rules) + 1, len(rules) + 2)
    curve = {float(t): mean_reward(scored, streams.given, Rule(float(t))) for t in candidates(scored)}
    progress(len(rules) + 2, len(rules) + 2)
    return Simulation(
        bundle,
        scored,
        challenges,
        runs,
        draws,
        seed,
        streams.sources,
        tuple(earnings),
        tuple(found),
        used,
        curve,
        choice,
    )


def write_simulation(found: Simulation, folder: Path) -> None:
    """Write ``simulation.json`` and ``simulation.png`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    png, _ = plot(found).render()
    write_atomic(folder / PNG, png)
    write_json(folder / JSON, found.to_dict())


def plot(found: Simulation) -> Plot:
    """Reward by threshold, and what levels and kinds cost."""
    shown = found.costs[:_SHOWN]

    def draw(figure: Figure, c: Palette) -> None:
        left, right = figure.subplots(1, 2)
        points = sorted(found.curve.items())
        left.plot(*zip(*points, strict=True), "-", color=c.clear, label="these images")
        if found.choice is not None:
            left.plot(
                *zip(*sorted(found.choice.curve.items()), strict=True), "--", color=c.muted, label="images that chose"
            )
            left.axvline(found.choice.always.threshold, color=c.roadwork, linewidth=1, label="chosen, always answering")
        left.axvline(0.5, color=c.muted, linewidth=0.8, linestyle=":", label="threshold 0.5")
        left.set(title="Mean reward by threshold", xlabel="threshold", ylabel="mean reward", xlim=(0, 1), ylim=(0, 1))
        left.legend(loc="best")
        at = list(range(len(shown)))[::-1]
        values = [k.cost.value for k in shown]
        # The ends are quantiles of runs with other images, and may lie on one side of the value.
        ends = [
            [max(0.0, k.cost.value - k.cost.low) for k in shown],
            [max(0.0, k.cost.high - k.cost.value) for k in shown],
        ]
        right.barh(at, values, color=c.wrong, height=0.6)
        right.errorbar(values, at, xerr=ends, fmt="none", ecolor=c.ink, linewidth=0.8, capsize=2)
        right.set_yticks(at, [printable(f"{k.column.replace('_', ' ')}: {k.kind} (n {k.images})", 36) for k in shown])
        right.set(title="Mean reward lost by mistakes on", xlabel="reward, interval over runs; n images")

    return Plot("simulation", draw, (9.0, 0.9 + max(2.6, 0.26 * len(shown))), found.sentence())
