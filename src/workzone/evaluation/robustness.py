"""What weather, night, motion and transmission do to a detector: the same figures under graded corruptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workzone.errors import DataError
from workzone.evaluation.figures import Draws, Part, label_figures, plain, policy_figures
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.promises import Promise, measure_promise
from workzone.evaluation.style import Palette, Plot
from workzone.evaluation.summary import SCHEMA_VERSION
from workzone.files import write_atomic, write_json
from workzone.metrics import Interval
from workzone.predictions import FloatArray, IntArray
from workzone.vision.corruptions import CORRUPTIONS, LEVELS, Picture, corrupt
from workzone.vision.decode import decode

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEAN = "none"
_LABELS = ("fnr", "fpr", "balanced_accuracy", "auroc")
_POLICY = ("coverage", "risk", "fnr", "fpr")

Scorer = Callable[[Iterator[Picture]], tuple[FloatArray, NDArray[np.int8]]]
"""Calibrated probabilities (N,) and decision codes (N,) of pictures, in order."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures under one corruption at one level; level 0 of ``none`` are the pictures as they are."""

    corruption: str
    level: int
    argmax: dict[str, Interval]
    policy: dict[str, Interval]
    promises: tuple[Promise, ...]


@dataclass(frozen=True, slots=True)
class Break:
    """A certified limit that a corruption breaks.

    Attributes:
        risk: the promised risk.
        alpha: its limit.
        corruption: what breaks it.
        level: lowest level from 1 at which the lower end of the measured risk lies above the limit.
        measured: the risk at that level.
    """

    risk: str
    alpha: float
    corruption: str
    level: int
    measured: Interval


@dataclass(frozen=True, slots=True)
class Robustness:
    """Figures of every corruption and level on the same sample of images.

    Attributes:
        n: images of the sample.
        n_positive: with roadwork.
        rows: the clean pictures first, then corruption by corruption.
        breaks: one for each certified limit and corruption that breaks it, lowest level first.
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
        """What breaks first, for a terminal."""
        about = f"on {self.n} images, {self.n_positive} with roadwork"
        if not self.certified:
            return f"No certified limit can be measured under corruptions ({about})."
        if self.broken_when_clean:
            return f"The limit of {_words(self.broken_when_clean)} is exceeded without any corruption ({about})."
        if not self.breaks:
            return f"No corruption breaks a certified limit beyond chance ({about})."
        first = [b for b in self.breaks if b.level == self.breaks[0].level]
        which = "; ".join(
            f"{b.risk.replace('_', ' ')} {b.measured.value:.1%}, at least {b.measured.low:.1%} where {b.alpha:.1%} was "
            f"promised, under {b.corruption.replace('_', ' ')}"
            for b in first
        )
        return f"Breaks first, at level {first[0].level} of {LEVELS[-1]} ({about}): {which}."


def _words(names: tuple[str, ...]) -> str:
    return ", ".join(n.replace("_", " ") for n in names)


def sample_images(labels: IntArray, n: int, *, seed: int) -> IntArray:
    """Rows of at most ``n`` images, half of them with roadwork as far as there are such, in rising order."""
    rng = np.random.default_rng(seed)
    positive, negative = (rng.permutation(np.flatnonzero(labels == y)) for y in (1, 0))
    take = min(len(positive), max(n // 2, n - len(negative)))
    return np.sort(np.r_[positive[:take], negative[: n - take]])


def robustness(
    e: Evaluated,
    score: Scorer,
    *,
    n: int,
    draws: Draws,
    seed: int,
    corruptions: tuple[str, ...] = tuple(CORRUPTIONS),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Robustness:
    """Figures of a sample of images under each corruption at five levels.

    Pictures are opened, corrupted and scored one after the other, so memory does not grow with ``n``. The sample holds
    more roadwork than the data where roadwork is rare: error rates of a class do not change with that, risk does.

    Args:
        e: images with paths, labels, policy and certificate.
        score: scores pictures.
        n: images of the sample.
        draws: how intervals are made.
        seed: of the sample and of the patterns.
        corruptions: keys of ``CORRUPTIONS``.
        progress: called with the number of scored and of all pictures.

    Raises:
        DataError: no paths of images.
        ImageError: an image cannot be read.
        ValueError: n below 2.
    """
    if n < 2:
        raise ValueError("a sample needs at least 2 images")
    rows = sample_images(e.labels, n, seed=seed)
    paths = e.predictions.column("path", default="")[rows].tolist()
    if not all(paths):
        raise DataError("robustness needs the pictures, and some images have no path", fix="give images, not scores")
    cells = [(CLEAN, 0), *((name, level) for name in corruptions for level in LEVELS)]
    total, done = len(cells) * len(rows), 0

    def pictures(name: str, level: int) -> Iterator[Picture]:
        nonlocal done
        for row, path in zip(rows.tolist(), paths, strict=True):
            file = Path(path) if e.root is None else e.root / path
            picture = np.asarray(decode(file), dtype=np.uint8)
            yield picture if name == CLEAN else corrupt(picture, name, level, seed + row)
            done += 1
            progress(done, total)

    guarantees = [] if e.certificate is None else [g for g in e.certificate.guarantees if g.status == "certified"]
    guarantees = [g for g in guarantees if g.risk in ("false_negative_rate", "false_positive_rate")]
    measured = []
    for name, level in cells:
        probability, codes = score(pictures(name, level))
        part = Part(e.labels[rows], probability, codes, e.groups[rows])
        promises = tuple(measure_promise(g, part, draws) for g in guarantees)
        measured.append(
            Measured(name, level, label_figures(part, draws, _LABELS), policy_figures(part, draws, _POLICY), promises)
        )
    return Robustness(
        len(rows),
        int(e.labels[rows].sum()),
        tuple(measured),
        _breaks(measured),
        tuple(p.risk for p in measured[0].promises if p.measured.low > p.alpha),
        tuple(g.risk for g in guarantees),
        draws.level,
    )


def _breaks(measured: list[Measured]) -> tuple[Break, ...]:
    found: dict[tuple[str, str], Break] = {}
    for row in measured:
        for p in row.promises:
            # A NaN end, of a class without images or a sample without variation, breaks nothing.
            if row.level > 0 and p.measured.low > p.alpha and (p.risk, row.corruption) not in found:
                found[p.risk, row.corruption] = Break(p.risk, p.alpha, row.corruption, row.level, p.measured)
    return tuple(sorted(found.values(), key=lambda b: (b.level, -b.measured.low)))


def write_robustness(found: Robustness, folder: Path) -> None:
    """Write ``robustness.png`` and ``robustness.json`` into ``folder``, and put them on the report that is there."""
    from workzone.evaluation.pages import refresh

    folder.mkdir(parents=True, exist_ok=True)
    png, _ = robustness_plot(found).render()
    write_atomic(folder / "robustness.png", png)
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "n": found.n,
        "n_positive": found.n_positive,
        "level": found.level,
        "sentence": found.sentence(),
        "certified": list(found.certified),
        "broken_when_clean": list(found.broken_when_clean),
        "breaks": [plain(asdict(b)) for b in found.breaks],
        "rows": [
            {
                "corruption": row.corruption,
                "level": row.level,
                "argmax": plain(row.argmax),
                "policy": plain(row.policy),
                "promises": [plain(asdict(p)) for p in row.promises],
            }
            for row in found.rows
        ],
    }
    write_json(folder / "robustness.json", record)
    refresh(folder)


def robustness_plot(found: Robustness) -> Plot:
    """One panel per corruption: missed roadwork, false alarms and coverage of the policy by level."""
    names = list(dict.fromkeys(row.corruption for row in found.rows if row.corruption != CLEAN))
    columns = min(5, len(names))
    lines = -(-len(names) // columns)
    limits = {p.risk: p.alpha for p in found.rows[0].promises}

    def draw(figure: Figure, c: Palette) -> None:
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        shown = (
            ("fnr", "missed", c.wrong, "o-"),
            ("fpr", "false alarms", c.clear, "s--"),
            ("coverage", "decided", c.muted, ":"),
        )
        for axes, name in zip(grid.flat, names, strict=False):
            rows = [found.rows[0], *(row for row in found.rows if row.corruption == name)]
            x = [row.level for row in rows]
            for key, label, colour, style in shown:
                y, low, high = (
                    np.array([getattr(r.policy[key], end) for r in rows]) for end in ("value", "low", "high")
                )
                axes.plot(x, y, style, color=colour, markersize=3, linewidth=1.2, label=label)
                if key != "coverage":
                    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            for risk, colour in (("false_negative_rate", c.wrong), ("false_positive_rate", c.clear)):
                if risk in limits:
                    axes.axhline(limits[risk], color=colour, linewidth=0.8, linestyle=(0, (1, 2)))
            broken = [b.level for b in found.breaks if b.corruption == name]
            axes.set_title(name.replace("_", " ") + (f", breaks at {min(broken)}" if broken else ""), fontsize=8)
            axes.set(xlim=(-0.2, 5.2), ylim=(-0.03, 1.03))
            axes.set_xticks(range(6))
        for axes in list(grid.flat)[len(names) :]:
            axes.set_visible(False)
        grid[0][0].legend(fontsize=7, loc="upper left")
        figure.supxlabel("level of the corruption, 0 is none", fontsize=9)
        figure.supylabel("share", fontsize=9)

    return Plot("robustness", draw, (0.6 + 1.9 * columns, 0.6 + 1.9 * lines), found.sentence())
