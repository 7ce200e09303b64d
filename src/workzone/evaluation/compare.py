"""Two sets of predictions of the same images: which model is better, and can the difference be told from chance?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from workzone.errors import ConfigError, DataError
from workzone.evaluation.figures import plain
from workzone.evaluation.given import Given
from workzone.evaluation.inputs import groups_of
from workzone.evaluation.rows import TITLES, Row, adjusted, row_sentence, undefined
from workzone.files import write_atomic, write_json
from workzone.metrics.comparison import DeLong, McNemar, delong, mcnemar, paired_bootstrap
from workzone.metrics.registry import METRICS
from workzone.predictions import IntArray, StrArray

SCHEMA_VERSION = 1
OTHERS = (
    "mcc", "accuracy", "balanced_accuracy", "f1", "fnr", "fpr", "auroc", "average_precision", "brier", "nll", "augrc",
)  # fmt: skip
_HIGHER = {"decided": True, "decided_wrong": False, "decided_missed": False, "decided_alarms": False}
_FEW_DISCORDANT, _FEW_UNITS, _FEW_OF_CLASS = 10, 20, 10
# Not numbers about one class only; MCC has the value 0 there by convention.
_NEEDS_BOTH = ("mcc", "balanced_accuracy", "auroc", "brier_skill")

@dataclass(frozen=True)
class Comparison:
    """Everything that is said about a pair of models.

    Attributes:
        names: of A and B.
        paths: of the tables.
        answers: how each model's answers at every image came about.
        counts: images in A, in B and shared; shared images with roadwork; units that are resampled.
        by_group: whether groups were resampled.
        rows: the primary figure first.
        mcnemar: of the answers.
        delong: of the probabilities.
        level: of the intervals.
        method: of the intervals.
        resamples: B.
        seed: of the draws.
        cautions: what a reader should know.
    """

    names: tuple[str, str]
    paths: tuple[str, str]
    answers: tuple[str, str]
    counts: dict[str, int]
    by_group: bool
    rows: tuple[Row, ...]
    mcnemar: McNemar
    delong: DeLong
    level: float
    method: str
    resamples: int
    seed: int
    cautions: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One sentence that needs no statistics."""
        return row_sentence(self.rows[0], "A", "B")

    @property
    def basis(self) -> str:
        """What the figures rest on."""
        c = self.counts
        unit = f"{c['units']:,} groups" if self.by_group else "images"
        return (
            f"{c['shared']:,} images in both ({c['roadwork']:,} with roadwork); A has {c['a']:,}, B has {c['b']:,}. "
            f"{self.level:.0%} {'BCa' if self.method == 'bca' else 'percentile'} intervals, {self.resamples:,} paired "
            f"resamples of {unit}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON; what is not defined is null."""
        models = {
            key: {"name": name, "path": path, "answers": how}
            for key, name, path, how in zip("ab", self.names, self.paths, self.answers, strict=True)
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.verdict,
            "better": self.rows[0].winner,
            "models": models,
            "counts": dict(self.counts),
            "interval": {
                "level": self.level,
                "method": self.method,
                "resamples": self.resamples,
                "by_group": self.by_group,
                "seed": self.seed,
            },
            "metrics": [{"metric": r.name, "primary": k == 0, **r.to_dict()} for k, r in enumerate(self.rows)],
            "mcnemar": plain(asdict(self.mcnemar)),
            "delong": plain(asdict(self.delong)),
            "cautions": list(self.cautions),
        }


def compare(
    a: Given,
    b: Given,
    *,
    metric: str = "mcc",
    resamples: int = 2000,
    method: Literal["percentile", "bca"] = "percentile",
    level: float = 0.95,
    by_group: bool = True,
    seed: int = 42,
) -> Comparison:
    """Compare two models on the images both have scored.

    Answers are the decisions of a table where they never abstain, and the probability at 0.5 otherwise. The primary
    metric is judged alone; the others carry Holm's correction. Decisions are compared where both tables have them.

    Args:
        a: first model.
        b: second model.
        metric: the primary metric, a name in ``METRICS`` for which one direction is better.
        resamples: B.
        method: percentile or bca.
        level: of the intervals.
        by_group: resample groups where a table names them.
        seed: of the draws.

    Raises:
        ConfigError: an unknown metric.
        DataError: no shared images, no labels, or labels or groups that disagree.
    """
    if metric not in METRICS or METRICS[metric].higher_is_better is None:
        known = ", ".join(name for name, m in METRICS.items() if m.higher_is_better is not None)
        raise ConfigError(f"there is no metric {metric!r} to compare by", fix=f"choose one of {known}")
    _, at_a, at_b = np.intersect1d(a.predictions.ids, b.predictions.ids, return_indices=True)
    if not len(at_a):
        one, two = str(a.predictions.ids[0]), str(b.predictions.ids[0])
        raise DataError(
            "the two tables share no image",
            where=f"{a.path} has ids such as {one!r}, {b.path} such as {two!r}",
            fix="give predictions of the same images under the same ids",
        )
    y = _shared_labels(a, b, at_a, at_b)
    groups = _shared_groups(a, b, at_a, at_b) if by_group else None
    pa, pb = a.probability[at_a], b.probability[at_b]
    answers_a, answers_b = a.answers[at_a], b.answers[at_b]
    names = [metric, *(name for name in OTHERS if name != metric)]
    shares = {}
    if a.codes is not None and b.codes is not None:
        events = [_shares(y, codes) for codes in (a.codes[at_a], b.codes[at_b])]
        shares = {name: (events[0][name], events[1][name]) for name in events[0]}
    found = paired_bootstrap(
        names,
        y,
        pa,
        pb,
        answers_a,
        answers_b,
        shares=shares,
        groups=groups,
        n_resamples=resamples,
        method=method,
        level=level,
        seed=seed,
    )
    if len(np.unique(y)) < 2:
        found = {k: undefined(d) if k in _NEEDS_BOTH else d for k, d in found.items()}
    corrected = adjusted([d.p for k, d in found.items() if k != metric])
    test = mcnemar(answers_a == y, answers_b == y)
    units = len(y) if groups is None else len(np.unique(groups))
    return Comparison(
        names=(a.name, b.name),
        paths=(str(a.path), str(b.path)),
        answers=(_how(a), _how(b)),
        counts={"a": len(a.probability), "b": len(b.probability), "shared": len(y), "roadwork": int(y.sum()),
                "units": units},
        by_group=groups is not None,
        rows=tuple(
            Row(k, TITLES.get(k, k.replace("_", " ")), _direction(k), d, p)
            for (k, d), p in zip(found.items(), [None, *corrected], strict=True)
        ),
        mcnemar=test,
        delong=delong(y, pa, pb),
        level=level,
        method=method,
        resamples=resamples,
        seed=seed,
        cautions=(
            *_cautions(a, b, y, groups, units, test, metric),
            *_too_few_resamples(resamples, len(corrected), level),
        ),
    )  # fmt: skip


def write_comparison(c: Comparison, folder: Path) -> None:
    """Write ``comparison.html``, which leads to the reports of both, and then ``comparison.json`` into ``folder``.

    In a folder ``compare/<name>`` beside a report, that report lists it.
    """
    from workzone.evaluation.report.compare import render
    from workzone.evaluation.report.more import refresh, report_above, reports_of

    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "comparison.html", render(c, reports=reports_of(c.paths, folder)))
    write_json(folder / "comparison.json", c.to_dict())
    above = report_above(folder)
    if above is not None:
        refresh(above)


def _too_few_resamples(resamples: int, others: int, level: float) -> list[str]:
    least = 2 * others / (resamples + 1)
    if least <= 1 - level:
        return []
    needed = int(np.ceil(2 * others / (1 - level)))
    return [f"With {resamples:,} resamples no other figure can pass Holm's correction: {needed:,} or more are needed."]


def _direction(name: str) -> bool:
    return _HIGHER[name] if name in _HIGHER else bool(METRICS[name].higher_is_better)


def _how(g: Given) -> str:
    if g.codes is None:
        return "probability at 0.5"
    return "probability at 0.5, since its decisions abstain" if g.abstains else "its decisions"


def _shares(y: IntArray, codes: Any) -> dict[str, tuple[Any, Any]]:
    """Events and trials of what a policy is judged by."""
    every, given = np.ones(len(y)), codes >= 0
    return {
        "decided": (given, every),
        "decided_wrong": (given & (codes != y), given),
        "decided_missed": ((codes == 0) & (y == 1), y == 1),
        "decided_alarms": ((codes == 1) & (y == 0), y == 0),
    }


def _shared_labels(a: Given, b: Given, at_a: Any, at_b: Any) -> IntArray:
    one, two = a.predictions.labels, b.predictions.labels
    if one is None and two is None:
        raise DataError("neither table has labels", where=f"{a.path} and {b.path}", fix="add the column label to one")
    if one is None or two is None:
        return np.asarray(one[at_a] if one is not None else two[at_b])  # type: ignore[index]
    apart = np.flatnonzero(one[at_a] != two[at_b])
    if len(apart):
        ids = a.predictions.ids[at_a][apart[:3]].tolist()
        raise DataError(
            f"the tables disagree about the label of {len(apart)} of {len(at_a)} shared images",
            where=f"id {', '.join(map(repr, ids))}{' and more' if len(apart) > 3 else ''}",
            fix="use one set of labels for both models",
        )
    return np.asarray(one[at_a])


def _shared_groups(a: Given, b: Given, at_a: Any, at_b: Any) -> StrArray | None:
    found = [_groups(g, at) for g, at in ((a, at_a), (b, at_b)) if "group" in g.predictions.columns]
    if not found:
        return None
    if len(found) == 2:
        pairs = len({*zip(*(f.tolist() for f in found), strict=True)})
        if any(pairs != len(np.unique(f)) for f in found):
            raise DataError(
                "the tables group the shared images differently",
                where=f"column group of {a.path} and {b.path}",
                fix="drop the column in the table where it is wrong",
            )
    return found[0]


def _groups(g: Given, at: Any) -> StrArray:
    return np.asarray(groups_of(g.predictions)[at], dtype=np.str_)


def _cautions(a: Given, b: Given, y: IntArray, groups: Any, units: int, test: McNemar, metric: str) -> list[str]:
    found = []
    fewest = min(len(a.probability), len(b.probability))
    if len(y) < fewest:
        found.append(f"Only {len(y):,} images are in both tables; the others are left out.")
    positive = int(y.sum())
    if positive in (0, len(y)):
        found.append("The shared images hold one class only: MCC, ranking and one of the error rates are not defined.")
    elif min(positive, len(y) - positive) < _FEW_OF_CLASS:
        found.append(f"Fewer than {_FEW_OF_CLASS} images of a class: intervals are rough and DeLong does not hold.")
    if units < _FEW_UNITS:
        found.append(f"Only {units} independent {'images' if groups is None else 'groups'}: intervals are uncertain.")
    discordant = test.only_a + test.only_b
    if 0 < discordant < _FEW_DISCORDANT:
        found.append(
            f"Only {discordant} images are right in one model and wrong in the other: for answers, McNemar's exact "
            f"p-value of {test.p:.3f} is a safer guide than the intervals."
        )
    if groups is not None and units < len(y):
        found.append("McNemar and DeLong take images as independent; with groups, trust the bootstrap.")
    own = [g.codes is not None and not g.abstains for g in (a, b)]
    if own[0] != own[1]:
        found.append(f"Answers were made differently: A by {_how(a)}, B by {_how(b)}.")
    if METRICS[metric].kind == "calibration":
        found.append("Calibration errors are biased upward, and resampling adds to it: prefer the Brier score or NLL.")
    return found
