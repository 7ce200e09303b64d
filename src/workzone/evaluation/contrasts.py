"""Two ways to answer the same test images, side by side: is one better, beyond chance?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from workzone.decisions.types import Code
from workzone.evaluation.figures import Draws, plain
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.rows import TITLES, Row, adjusted, row_sentence, undefined
from workzone.evaluation.selective import as_probability
from workzone.metrics import METRICS
from workzone.metrics.comparison import DeLong, Difference, McNemar, delong, mcnemar, paired_bootstrap
from workzone.predictions import FloatArray, IntArray

MODEL_FIGURES = ("mcc", "auroc", "fnr", "fpr", "brier", "nll", "augrc")
CALIBRATION_FIGURES = ("nll", "brier", "mcc", "fnr", "fpr")
SCORE_FIGURES = ("augrc", "aurc", "auroc_f")
_NEEDS_BOTH = ("mcc", "auroc")
_POLICY_TITLES = {
    "wrong_of_all": "answered wrongly, of all images",
    "missed": "roadwork answered 'no roadwork'",
    "alarms": "others answered 'roadwork'",
    "wrong_of_answered": "answered wrongly, of those the policy answers",
}


Side = tuple[str, FloatArray]
"""One way to answer: its name in a sentence, and probabilities (N,)."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """What is said about a pair.

    Attributes:
        key: short name.
        title: heading.
        first: name of A.
        second: name of B.
        rows: figures of both and their difference B - A; the first decides.
        mcnemar: of the answers, or None where both answer alike by construction.
        delong: of the probabilities, or None likewise.
        more: sentences after the verdict.
    """

    key: str
    title: str
    first: str
    second: str
    rows: tuple[Row, ...]
    mcnemar: McNemar | None = None
    delong: DeLong | None = None
    more: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The verdict, which needs no statistics."""
        return _fewer(self.rows[0]) if self.key == "policy" else row_sentence(self.rows[0], self.first, self.second)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {
            "key": self.key,
            "title": self.title,
            "a": self.first,
            "b": self.second,
            "verdict": self.sentence,
            "better": self.rows[0].winner,
            "more": list(self.more),
            "rows": [{"name": r.name, **r.to_dict()} for r in self.rows],
            "mcnemar": None if self.mcnemar is None else plain(asdict(self.mcnemar)),
            "delong": None if self.delong is None else plain(asdict(self.delong)),
        }


def contrasts(e: Evaluated, draws: Draws) -> tuple[Contrast, ...]:
    """Every pair that the evaluation holds; p-values of their first figures are adjusted among each other (Holm)."""
    units = draws.units(e.groups)
    found = []
    if not np.array_equal(e.decisions.codes, e.argmax):
        found.append(_policy(e, draws, units))
    if e.confidence is not None:
        found.append(_scores(e, e.confidence, draws, units))
    if e.one_view is not None:
        sides = ("one view", e.one_view.probability), ("all views", e.probability)
        found.append(_models("views", "All views against one view", *sides, e.labels, draws, units))
    main = str(e.meta.get("engine", "this engine"))
    for name, probability in e.others.items():
        sides = (name, probability), (main, e.probability)
        found.append(_models(f"engine {name}", f"{main} against {name}", *sides, e.labels, draws, units))
    pair = None
    if e.recalibrated is not None:
        pair = (e.probability, *e.recalibrated)
    elif e.before is not None:
        name = next((str(row["name"]) for row in e.calibrators if row.get("chosen")), "the calibrator in use")
        pair = (e.before, name, e.probability)
    if pair is not None:
        given, name, probability = pair
        sides = ("the probabilities as given", given), (name, probability)
        title = f"Probabilities as given against {name}"
        found.append(_models("calibration", title, *sides, e.labels, draws, units, figures=CALIBRATION_FIGURES))
    first = adjusted([c.rows[0].difference.p for c in found])
    return tuple(
        replace(c, rows=(replace(c.rows[0], p_holm=p), *c.rows[1:])) for c, p in zip(found, first, strict=True)
    )


def resamples_needed(pairs: int, draws: Draws) -> int | None:
    """Resamples below which no difference among ``pairs`` comparisons can be told, where these are fewer."""
    needed = int(np.ceil(2 * max(pairs, 1) / (1 - draws.level)))
    return needed if draws.resamples < needed else None


def _models(
    key: str,
    title: str,
    a: Side,
    b: Side,
    y: IntArray,
    draws: Draws,
    units: Any,
    *,
    figures: Sequence[str] = MODEL_FIGURES,
) -> Contrast:
    found = _bootstrap(figures, y, a[1], b[1], draws, units)
    if len(np.unique(y)) < 2:
        found = {k: undefined(d) if k in _NEEDS_BOTH else d for k, d in found.items()}
    answers = [side[1] >= 0.5 for side in (a, b)]
    return Contrast(
        key, title, a[0], b[0], _rows(found), mcnemar(answers[0] == y, answers[1] == y),
        delong(y, a[1], b[1]) if "auroc" in figures else None,
    )  # fmt: skip


def _scores(e: Evaluated, score: tuple[str, FloatArray], draws: Draws, units: Any) -> Contrast:
    name, confidence = score
    right = (e.argmax == e.labels).astype(np.int64)
    plain_score = as_probability(np.maximum(e.probability, 1.0 - e.probability))
    every = np.ones(len(right), dtype=np.int64)
    found = _bootstrap(SCORE_FIGURES, every, plain_score, as_probability(confidence), draws, units, right)
    title = "The policy's own score against the probability"
    return Contrast("score", title, "max(p, 1 - p)", name, _rows(found))


def _policy(e: Evaluated, draws: Draws, units: Any) -> Contrast:
    y, codes, half = e.labels, e.decisions.codes, e.argmax
    every, given = np.ones(len(y)), codes != Code.ABSTAIN
    wrong, wrong_half = given & (codes != y), half != y
    shares = {
        "wrong_of_all": ((wrong_half, every), (wrong, every)),
        "missed": (((half == 0) & (y == 1), y == 1), ((codes == Code.NO_ROADWORK) & (y == 1), y == 1)),
        "alarms": (((half == 1) & (y == 0), y == 0), ((codes == Code.ROADWORK) & (y == 0), y == 0)),
        "wrong_of_answered": ((wrong_half & given, given), (wrong, given)),
    }
    found = _bootstrap((), y, e.probability, e.probability, draws, units, shares=shares)
    rows = _rows(found, titles=_POLICY_TITLES, lower=tuple(shares))
    saved, added = int((wrong_half & ~wrong).sum()), int((wrong & ~wrong_half).sum())
    changed = f"Of the {int(wrong_half.sum()):,} mistakes at 0.5 the policy avoids {saved:,}"
    more = [changed + (f" and makes {added:,} new ones." if added else ".")]
    left, spared = int((~given).sum()), int((~given & ~wrong_half).sum())
    if left:
        more.append(
            f"An abstention is never wrong, so the price belongs beside it: {left:,} of {len(y):,} images "
            f"({left / len(y):.0%}) are left to a person, {spared:,} of which 0.5 would have answered rightly."
        )
    return Contrast(
        "policy", "The policy against answering everything at 0.5", "answering everything at 0.5", "the policy",
        rows, mcnemar(~wrong_half, ~wrong), None, tuple(more),
    )  # fmt: skip


def _fewer(row: Row) -> str:
    a, b, gap = row.difference.a.value, row.difference.b.value, row.difference.difference
    both = f"The policy answers {b:.1%} of all images wrongly, against {a:.1%} where everything is answered at 0.5"
    ends = (-gap.high, -gap.low) if gap.value <= 0 else (gap.low, gap.high)
    span, known = f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}", np.isfinite(gap.low)
    if gap.value == 0:
        return f"{both}: no difference{f' ({span} points fewer)' if known else ''}."
    points = f"{abs(100 * gap.value):.1f} points {'fewer' if gap.value < 0 else 'more'}"
    told = "" if row.winner in ("A", "B") else ", which may be chance"
    return f"{both}: {points}{f' ({span})' if known else ''}{told}."


def _bootstrap(
    figures: Sequence[str],
    y: IntArray,
    a: FloatArray,
    b: FloatArray,
    draws: Draws,
    units: Any,
    decided: IntArray | None = None,
    *,
    shares: Mapping[str, Any] | None = None,
) -> dict[str, Difference]:
    return paired_bootstrap(
        list(figures),
        y,
        a,
        b,
        decided,
        decided,
        shares=shares,
        groups=units,
        n_resamples=draws.resamples,
        method=draws.method,
        level=draws.level,
        seed=draws.seed,
    )


def _rows(
    found: Mapping[str, Difference], *, titles: Mapping[str, str] | None = None, lower: Sequence[str] = ()
) -> tuple[Row, ...]:
    """The first row is judged alone, the others among each other."""
    names = list(found)
    others = adjusted([found[name].p for name in names[1:]])
    words = {**TITLES, **(titles or {}), "aurc": "AURC", "auroc_f": "AUROC of finding mistakes"}
    return tuple(
        Row(name, words[name], name not in lower and bool(METRICS[name].higher_is_better), found[name], p)
        for name, p in zip(names, [None, *others], strict=True)
    )
