"""The promises of a certificate, counted on the test images by their own definition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workzone.decisions.certificate import Guarantee
from workzone.decisions.types import Code, Decisions
from workzone.evaluation.figures import Draws, Part, share
from workzone.metrics import Interval
from workzone.predictions import LABELS

Mask = NDArray[np.bool_]
NOT_SELECTED = "abstained: not selected"
"""How the policy that selects first begins its reason for images that it does not select."""
_ABOUT_THE_MEAN = "the promise is about the mean over draws, and a single draw may be above"


@dataclass(frozen=True, slots=True)
class Promise:
    """A guarantee of the certificate next to what the test images show."""

    risk: str
    unit: str
    status: str
    alpha: float
    confidence: float
    sentence: str
    events: int
    measured: Interval
    verdict: str
    kind: str = "confidence"

    @property
    def above(self) -> bool:
        """Whether the test images show more than the limit, by chance or not."""
        return self.verdict.startswith("above")

    @property
    def beyond_chance(self) -> bool:
        """Whether the interval of the test images lies above the limit."""
        return bool(self.measured.low > self.alpha)

    @property
    def contradicted(self) -> bool:
        """Whether the test images speak against it; a promise about the mean over draws allows for single ones."""
        return self.above and self.beyond_chance and self.kind == "confidence"


def measure_promise(
    g: Guarantee, part: Part, draws: Draws, *, sets: Mask | None = None, selected: Mask | None = None
) -> Promise:
    """What the test images say about a guarantee, counted by its own unit.

    Args:
        g: the guarantee.
        part: the test images.
        draws: how the interval is made.
        sets: (M, 2) whether no_roadwork and roadwork are in the prediction set; a risk about sets is not measured
            without.
        selected: (M,) images that the policy selected before making sets; likewise.
    """
    counted = _events(g.risk, part, sets, selected)
    if counted is None:
        nothing = part.take(np.zeros(len(part), dtype=bool))
        empty = share(np.zeros(0, dtype=bool), nothing, draws, prevalence=part.prevalence)
        return _promise(g, 0, empty, "not measured on these images")
    events, among, lacking = counted
    counted_part, counted_events = part.take(among), events[among]
    if g.unit == "group" and len(counted_part):
        names, place = np.unique(counted_part.groups, return_inverse=True)
        counted_events = np.bincount(place, counted_events, len(names)) > 0
        blank = np.zeros(len(names), dtype=np.int64)
        counted_part = Part(blank, blank.astype(np.float64), blank.astype(np.int8), names)
    measured = share(counted_events, counted_part, draws, prevalence=part.prevalence)
    return _promise(g, int(counted_events.sum()), measured, _verdict(g, measured, lacking))


def measure_promises(
    guarantees: Sequence[Guarantee], part: Part, decided: Decisions, draws: Draws
) -> tuple[Promise, ...]:
    """``measure_promise`` of each guarantee, with the sets and the selection that ``decided`` holds."""
    selected = np.array([not reason.startswith(NOT_SELECTED) for reason in decided.reasons], dtype=bool)
    sets = np.asarray(decided.sets, dtype=bool)
    return tuple(measure_promise(g, part, draws, sets=sets, selected=selected) for g in guarantees)


def _promise(g: Guarantee, events: int, measured: Interval, verdict: str) -> Promise:
    return Promise(g.risk, g.unit, g.status, g.alpha, 1 - g.delta, g.sentence(), events, measured, verdict, g.kind)


def _events(risk: str, part: Part, sets: Mask | None, selected: Mask | None) -> tuple[Mask, Mask, str] | None:
    """Images that count as events, among which, and what is lacking where these are none; None: cannot be measured."""
    y, codes = part.y, part.codes
    everything = np.ones(len(part), dtype=bool)
    decided = codes != Code.ABSTAIN
    the_class = "the test images lack this class"
    if risk == "false_negative_rate":
        return codes == Code.NO_ROADWORK, y == 1, the_class
    if risk == "false_positive_rate":
        return codes == Code.ROADWORK, y == 0, the_class
    if risk == "selective_error":
        return decided & (codes != y), decided, "no image was answered"
    if risk == "abstention":
        return ~decided, everything, "there are no images"
    if sets is None:
        return None
    missing = ~sets[np.arange(len(part)), y]
    if risk == "miscoverage":
        return missing, everything, "there are no images"
    if risk == "selected_miscoverage":
        return None if selected is None else (missing, selected, "no image was selected")
    for label, name in enumerate(LABELS):
        if risk == f"miscoverage_{name}":
            return missing, y == label, the_class
    return None


def _verdict(g: Guarantee, measured: Interval, lacking: str) -> str:
    if not measured.n:
        return f"not measured: {lacking}"
    if not measured.value > g.alpha:
        verdict = "at or below the limit on these images"
    elif measured.low > g.alpha:
        verdict = "above the limit on these images, by more than chance"
    else:
        verdict = "above the limit on these images, within what chance allows"
    return verdict if g.kind == "confidence" else f"{verdict}; {_ABOUT_THE_MEAN}"
