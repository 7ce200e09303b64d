"""What weather, night, transmission and a validator do to a detector: its promises counted on changed pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workzone.decisions.types import Decisions
from workzone.errors import DataError
from workzone.evaluation.changes import CLEAN, STREETVISION, Change, corruption_changes, streetvision_changes
from workzone.evaluation.figures import Draws, Part, label_figures, policy_figures
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.promises import Promise, measure_promises
from workzone.metrics import Interval
from workzone.predictions import IntArray, StrArray
from workzone.vision.corruptions import LEVELS, Picture
from workzone.vision.decode import decode

_LABELS = ("fnr", "fpr", "balanced_accuracy", "auroc")
_POLICY = ("coverage", "risk", "fnr", "fpr")
_OF_ONE_CLASS = ("false_negative_rate", "false_positive_rate", "miscoverage_roadwork", "miscoverage_no_roadwork")

Scorer = Callable[[Iterator[Picture]], Decisions]
"""Decisions on pictures, in order."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures under one change at one level; level 0 of ``none`` are the pictures as they are."""

    change: str
    kind: str
    level: int
    argmax: dict[str, Interval]
    policy: dict[str, Interval]
    promises: tuple[Promise, ...]


@dataclass(frozen=True, slots=True)
class Break:
    """A certified limit that a change breaks.

    Attributes:
        risk: the promised risk.
        alpha: its limit.
        change: what breaks it.
        kind: of the change.
        level: lowest level at which the lower end of the measured risk lies above the limit.
        measured: the risk at that level.
    """

    risk: str
    alpha: float
    change: str
    kind: str
    level: int
    measured: Interval

    def words(self) -> str:
        """What is broken, by how much and under what."""
        return (
            f"{self.risk.replace('_', ' ')} {self.measured.value:.1%}, at least {self.measured.low:.1%} where "
            f"{self.alpha:.1%} was promised, under {self.change.replace('_', ' ')}"
        )


@dataclass(frozen=True, slots=True)
class Robustness:
    """Figures of every change and level on the same sample of images.

    Attributes:
        n: images of the sample.
        n_positive: with roadwork.
        rows: the clean pictures first, then change by change.
        breaks: one for each certified limit and change that breaks it, lowest level first.
        broken_when_clean: risks whose limit is exceeded on the clean pictures already.
        certified: risks with a certified limit that can be measured here.
        level: confidence of the intervals.
    """

    n: int
    n_positive: int
    rows: tuple[Measured, ...]
    breaks: tuple[Break, ...]
    broken_when_clean: tuple[str, ...]
    certified: tuple[str, ...]
    level: float

    def sentence(self) -> str:
        """What breaks first, under corruptions and under the validator, for a terminal."""
        about = f"on {self.n} images, {self.n_positive} with roadwork"
        if not self.certified:
            return f"No certified limit can be measured on changed pictures ({about})."
        if self.broken_when_clean:
            names = ", ".join(n.replace("_", " ") for n in self.broken_when_clean)
            return f"The limit of {names} is exceeded without any change of the pictures ({about})."
        kinds = dict.fromkeys(row.kind for row in self.rows if row.change != CLEAN)
        return " ".join(self._first(kind, about) for kind in kinds)

    def _first(self, kind: str, about: str) -> str:
        validator = kind == STREETVISION
        found = [b for b in self.breaks if b.kind == kind]
        if not found:
            what = "No level of the StreetVision validator" if validator else "No corruption"
            return f"{what} breaks a certified limit beyond chance ({about})."
        first = "; ".join(b.words() for b in found if b.level == found[0].level)
        of = "of the StreetVision validator" if validator else f"of {LEVELS[-1]}"
        return f"Breaks first, at level {found[0].level} {of} ({about}): {first}."


def sample_images(
    labels: IntArray, n: int, *, seed: int, groups: StrArray | None = None, halves: bool = True
) -> IntArray:
    """Rows of at most ``n`` images in rising order.

    A second image of a group (of a class, where halves are asked for) is taken only when each group has given one:
    images of different groups tell more.

    Args:
        labels: (N,) 0 or 1.
        n: size of the sample.
        seed: of the draw.
        groups: (N,) group of each image; each is its own without.
        halves: half with roadwork as far as there are such; otherwise as the draw falls.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    if groups is not None:
        units = np.char.add(groups, np.where(labels == 1, ":1", ":0")) if halves else groups
        order = order[np.argsort(_turns(units[order]), kind="stable")]
    if not halves:
        return np.sort(order[:n])
    positive, negative = (order[labels[order] == y] for y in (1, 0))
    take = min(len(positive), max(n // 2, n - len(negative)))
    return np.sort(np.r_[positive[:take], negative[: n - take]])


def _turns(groups: StrArray) -> IntArray:
    """How many of the same group came before each."""
    order = np.argsort(groups, kind="stable")
    _, start, count = np.unique(groups[order], return_index=True, return_counts=True)
    turns = np.empty(len(groups), dtype=np.int64)
    turns[order] = np.arange(len(groups)) - np.repeat(start, count)
    return turns


def robustness(
    e: Evaluated,
    score: Scorer,
    *,
    n: int,
    draws: Draws,
    seed: int,
    changes: Sequence[Change] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Robustness:
    """Figures of a sample of images under each change at its levels.

    Pictures are opened, changed and scored one after the other, so memory does not grow with ``n``. Where every
    certified risk is of one class, the sample holds more roadwork than the data where that is rare: error rates of a
    class do not change with it, risk does. Otherwise the sample keeps the prevalence.

    Args:
        e: images with paths, labels, policy and certificate.
        score: decides on pictures.
        n: images of the sample.
        draws: how intervals are made.
        seed: of the sample and of the patterns.
        changes: what is done to pictures; all corruptions and the validator's levels where left out.
        progress: called with the number of scored and of all pictures.

    Raises:
        DataError: no paths of images.
        ImageError: an image cannot be read.
        ValueError: n below 2.
    """
    if n < 2:
        raise ValueError("a sample needs at least 2 images")
    done_to = (*corruption_changes(), *streetvision_changes()) if changes is None else tuple(changes)
    guarantees = [] if e.certificate is None else [g for g in e.certificate.guarantees if g.status == "certified"]
    halves = all(g.risk in _OF_ONE_CLASS for g in guarantees)
    rows = sample_images(e.labels, n, seed=seed, groups=e.groups, halves=halves)
    paths = e.predictions.column("path", default="")[rows].tolist()
    if not all(paths):
        raise DataError("robustness needs the pictures, and some images have no path", fix="give images, not scores")
    cells: list[tuple[Change | None, int]] = [(None, 0), *((c, level) for c in done_to for level in c.levels)]
    total, done = len(cells) * len(rows), 0

    def pictures(change: Change | None, level: int) -> Iterator[Picture]:
        nonlocal done
        for row, path in zip(rows.tolist(), paths, strict=True):
            file = Path(path) if e.root is None else e.root / path
            picture = np.asarray(decode(file), dtype=np.uint8)
            yield picture if change is None else change.apply(picture, level, seed + row)
            done += 1
            progress(done, total)

    measured = []
    for change, level in cells:
        decided = score(pictures(change, level))
        part = Part(e.labels[rows], decided.probability, decided.codes, e.groups[rows])
        measured.append(
            Measured(
                CLEAN if change is None else change.name,
                CLEAN if change is None else change.kind,
                level,
                label_figures(part, draws, _LABELS),
                policy_figures(part, draws, _POLICY),
                measure_promises(guarantees, part, decided, draws),
            )
        )
    clean = [p for p in measured[0].promises if p.measured.n]
    return Robustness(
        len(rows),
        int(e.labels[rows].sum()),
        tuple(measured),
        _breaks(measured),
        tuple(p.risk for p in clean if p.beyond_chance),
        tuple(p.risk for p in clean),
        draws.level,
    )


def _breaks(measured: Sequence[Measured]) -> tuple[Break, ...]:
    found: dict[tuple[str, str], Break] = {}
    for row in measured:
        for p in row.promises:
            # A NaN end, of a class without images or a sample without variation, breaks nothing.
            if row.change != CLEAN and p.beyond_chance and (p.risk, row.change) not in found:
                found[p.risk, row.change] = Break(p.risk, p.alpha, row.change, row.kind, row.level, p.measured)
    return tuple(sorted(found.values(), key=lambda b: (b.level, -b.measured.low)))
