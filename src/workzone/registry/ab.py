"""A/B: which of two bundles errs less on reviewed labels, when to stop, and how many labels that takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workzone.errors import DataError
from workzone.metrics.comparison import mcnemar
from workzone.monitoring.reviewed import Reviewed, join
from workzone.monitoring.sequential import EProcess, e_values
from workzone.monitoring.sqlite import SHADOW
from workzone.monitoring.table import Columns, TableLog
from workzone.registry.shadow import Rate, read

Event = Literal["wrong", "not_right", "missed", "false_alarm"]
EVENTS: tuple[Event, ...] = ("wrong", "not_right", "missed", "false_alarm")
Verdict = Literal["challenger worse", "challenger better", "go on"]
_STREAMS, _STEPS = 400, 1500


@dataclass(frozen=True, slots=True)
class Result:
    """What the reviewed labels say.

    Attributes:
        mode: ``paired`` (both scored every reviewed image) or ``split`` (each image was scored by one).
        event: what is counted.
        champion: its share of events.
        challenger: likewise.
        test: name of the exact test.
        p: its two-sided p-value; valid when looked at once, with the number of labels fixed before.
        discordant: pairs in which exactly one had the event, in order of review.
        e_worse: highest e-value so far against "the challenger is not worse".
        e_better: highest e-value so far against "the challenger is not better".
        limit: e-value at which to stop.
        verdict: of the rule that may be looked at after every label.
        stopped_after: discordant pairs after which it was clear, None so far.
        unused: labels that do not count: unknown images, pairs without a partner, images without the event's class.
    """

    mode: str
    event: str
    champion: Rate
    challenger: Rate
    test: str
    p: float
    discordant: int
    e_worse: float
    e_better: float
    limit: float
    verdict: Verdict
    stopped_after: int | None
    unused: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


def events_of(reviewed: Reviewed, event: Event) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each reviewed image has the event, and whether it counts at all.

    ``wrong``: answered with the other label. ``not_right``: wrong or abstained. ``missed``: roadwork answered
    no_roadwork, among roadwork. ``false_alarm``: the reverse, among images without roadwork.
    """
    wrong = (reviewed.codes >= 0) & (reviewed.codes != reviewed.labels)
    every = np.ones(len(reviewed), dtype=np.bool_)
    if event == "wrong":
        return wrong, every
    if event == "not_right":
        return reviewed.codes != reviewed.labels, every
    kind = reviewed.labels == (1 if event == "missed" else 0)
    return wrong & kind, kind


def judge(
    champion: Path,
    challenger: Path,
    labels: Path,
    *,
    event: Event = "wrong",
    delta: float = 0.05,
    level: float = 0.95,
    roles: tuple[str, str] = ("", ""),
) -> Result:
    """Compare two bundles on reviewed labels.

    A manifest of the review queue of the server says in its column ``sampled`` which images were kept whatever the
    answer; the others are left out, because who answered had a say in whether they were kept.

    Args:
        champion: its predictions.
        challenger: its predictions, of the same images or of others.
        labels: reviewed labels (``id`` or ``path``, ``label``), in the order of review, chosen without regard to who
            answered.
        event: see ``events_of``.
        delta: chance of a false verdict of each kind over all time.
        level: of the intervals.
        roles: of the two in a log of the server; both bundles may be in one log.

    Raises:
        DataError: tables cannot be read, no label can be used, or only some images were scored by both.
    """
    table, unsampled = plain_sample(labels)
    logs = [read(path, role)[1] for path, role in zip((champion, challenger), roles, strict=True)]
    if SHADOW in roles:
        # What the shadow left out was left out for want of time, whatever the answer.
        both = set(logs[0].ids.tolist()) & set(logs[1].ids.tolist())
        logs = [log.take(np.isin(log.ids, list(both))) for log in logs]
    a, b = (join(table, log, str(labels)) for log in logs)
    if (a.weights != 1).any() or (b.weights != 1).any():
        raise DataError("weights of review are not supported here", where=str(labels), fix="review a plain sample")
    in_a, in_b = set(a.ids.tolist()), set(b.ids.tolist())
    shared = in_a & in_b
    if shared and shared != in_a | in_b:
        fix = "give labels of images that both scored, or logs of which each holds its own part"
        raise DataError("some reviewed images were scored by both and others by one", where=str(labels), fix=fix)
    if not in_a or not in_b:
        raise DataError("each bundle needs a reviewed label at least", where=str(labels), fix="review more images")
    (hit_a, kept_a), (hit_b, kept_b) = events_of(a, event), events_of(b, event)
    one, two = hit_a[kept_a], hit_b[kept_b]
    if not len(one) or not len(two):
        raise DataError(f"no reviewed image counts for {event!r}", where=str(labels), fix="review more images")
    if shared:
        test, p = "exact McNemar", mcnemar(~one, ~two).p
    else:
        test, p = "Fisher's exact", fisher(int(one.sum()), len(one), int(two.sum()), len(two))
    pairs = min(len(one), len(two))
    worse, better, limit = sequential(one[:pairs], two[:pairs], delta)
    fired = [(e.fired, name) for e, name in ((worse, "challenger worse"), (better, "challenger better")) if e.fired]
    stopped, verdict = min(fired) if fired else (None, "go on")
    unused = min(a.unknown, b.unknown) if shared else a.unknown - len(in_b) + abs(len(one) - len(two))
    return Result(
        mode="paired" if shared else "split",
        event=event,
        champion=Rate.of(int(one.sum()), len(one), level),
        challenger=Rate.of(int(two.sum()), len(two), level),
        test=test,
        p=p,
        discordant=worse.step,
        e_worse=worse.highest,
        e_better=better.highest,
        limit=limit,
        verdict=verdict,  # type: ignore[arg-type]
        stopped_after=stopped,
        unused=unsampled + unused + int((~kept_a).sum() if shared else (~kept_a).sum() + (~kept_b).sum()),
    )


def plain_sample(labels: Path) -> tuple[Columns, int]:
    """Labels of images that were chosen for review whatever the answer, and the number of others.

    Raises:
        DataError: the table cannot be read, or a review queue holds abstained images alone.
    """
    if not labels.is_file():
        raise DataError("there are no reviewed labels here", where=str(labels), fix="give a table with id and label")
    table = TableLog(labels).columns()
    if "sampled" not in table:
        return table, 0
    rows = [i for i, given in enumerate(table["sampled"]) if str(given) in ("1", "True", "true")]
    if not rows:
        fix = "start the server with --keep-share, so that answered images are reviewed as well"
        raise DataError("these labels are of abstained images alone", where=str(labels), fix=fix)
    kept = {name: [values[i] for i in rows] for name, values in table.items() if name != "weight"}
    return kept, len(table["sampled"]) - len(rows)


def fisher(k_a: int, n_a: int, k_b: int, n_b: int) -> float:
    """Two-sided p-value of equal shares in two independent samples (Fisher 1935)."""
    from scipy.stats import fisher_exact

    return float(fisher_exact(np.array([[k_a, n_a - k_a], [k_b, n_b - k_b]]))[1])


def sequential(one: Sequence[bool] | NDArray[Any], two: Sequence[bool] | NDArray[Any], delta: float) -> tuple[
    EProcess, EProcess, float
]:  # fmt: skip
    """Tests that may be looked at after every pair: evidence that the second has more events, and that it has fewer.

    Among pairs in which exactly one has the event, the second has it with probability at most 1/2 where it is not
    worse: for paired images, and for independent ones as well (Wald 1947, the double dichotomy). An e-process bets
    against that, so the chance of ever stopping falsely is at most ``delta`` for each of the two directions.

    Args:
        one: (N,) events of the first, in order of review.
        two: (N,) of the second.
        delta: see above.
    """
    worse, better = EProcess(0.5, delta), EProcess(0.5, delta)
    for x, y in zip(one, two, strict=True):
        if bool(x) != bool(y):
            worse.update(float(bool(y)))
            better.update(float(bool(x)))
    return worse, better, 1 / delta


@dataclass(frozen=True, slots=True)
class Power:
    """Labels needed to see a difference.

    Attributes:
        champion: share of events.
        challenger: likewise.
        delta: chance of a false alarm, two-sided.
        power: chance of seeing the difference.
        split: labels for each bundle, for Fisher's test at a size fixed before.
        paired: labels for both together, for McNemar's test at a size fixed before, were their errors independent.
        sequential: labels for each bundle until the rule that looks after every label has stopped with this chance;
            None where that takes more than the simulation shows.
    """

    champion: float
    challenger: float
    delta: float
    power: float
    split: int
    paired: int
    sequential: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


def labels_needed(champion: float, challenger: float, *, delta: float = 0.05, power: float = 0.8) -> Power:
    """Labels needed to tell two shares of events apart.

    ``split`` is the normal approximation with the correction of Casagrande, Pike and Smith 1978 for Fisher's test,
    ``paired`` that of Miettinen 1968 for McNemar's, ``sequential`` a simulation with a fixed seed.

    Raises:
        ValueError: shares outside (0, 1) or equal, delta or power outside (0, 1).
    """
    from scipy.special import ndtri

    a, b = champion, challenger
    if not (0 < a < 1 and 0 < b < 1 and 0 < delta < 1 and 0 < power < 1) or a == b:
        raise ValueError("shares, delta and power must lie strictly between 0 and 1, and the shares must differ")
    za, zb, gap = float(ndtri(1 - delta / 2)), float(ndtri(power)), abs(a - b)
    mean = (a + b) / 2
    plain = (za * math.sqrt(2 * mean * (1 - mean)) + zb * math.sqrt(a * (1 - a) + b * (1 - b))) ** 2 / gap**2
    split = plain / 4 * (1 + math.sqrt(1 + 4 / (plain * gap))) ** 2
    apart = a * (1 - b) + b * (1 - a)
    paired = (za * math.sqrt(apart) + zb * math.sqrt(apart - gap**2)) ** 2 / gap**2
    return Power(a, b, delta, power, math.ceil(split), math.ceil(paired), _simulated(a, b, delta, power))


def _simulated(a: float, b: float, delta: float, power: float) -> int | None:
    apart = a * (1 - b) + b * (1 - a)
    share = max(a * (1 - b), b * (1 - a)) / apart
    rng = np.random.default_rng(0)
    found = e_values((rng.random((_STREAMS, _STEPS)) < share).astype(np.float64), 0.5) >= 1 / delta
    first = np.where(found.any(axis=1), found.argmax(axis=1) + 1, np.inf)
    # Labels between discordant pairs come on top.
    waits = np.array([s + rng.negative_binomial(s, apart) if np.isfinite(s) else np.inf for s in first])
    needed = float(np.quantile(waits, power, method="higher"))
    return math.ceil(needed) if np.isfinite(needed) else None
