"""Figures with intervals: of labels decided at 0.5, of a policy that may abstain, and their mean over sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workzone.decisions.types import Code
from workzone.metrics import METRICS, Confusion, Interval, Metric, bootstrap, mcc, replicates
from workzone.metrics.sample import FloatArray, Rows, ratio
from workzone.predictions import IntArray, StrArray

LABEL_FIGURES = tuple(name for name, metric in METRICS.items() if metric.kind != "calibration")
"""Resampling biases calibration errors upward; they are judged against the band of a calibrated model instead."""

STATED_FIGURES = ("mcc", "accuracy", "precision", "f1", "f0.5", "average_precision", "brier", "nll", "aurc", "augrc")
POLICY_STATED = ("coverage", "risk", "wrong_of_all", "mcc_decided", "precision_decided")


@dataclass(frozen=True, slots=True)
class Draws:
    """How intervals are made; ``by_group`` draws whole groups."""

    resamples: int
    method: Literal["percentile", "bca"]
    level: float
    by_group: bool
    seed: int

    def units(self, groups: StrArray) -> StrArray | None:
        """Groups to resample, or None where every image is its own."""
        return groups if self.by_group and len(np.unique(groups)) < len(groups) else None

    def options(self, groups: StrArray) -> dict[str, Any]:
        """Arguments of ``bootstrap`` for images of these groups."""
        return {
            "groups": self.units(groups),
            "n_resamples": self.resamples,
            "method": self.method,
            "level": self.level,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the images: labels, probabilities, decision codes and groups, all (M,)."""

    y: IntArray
    p: FloatArray
    codes: NDArray[np.int8]
    groups: StrArray

    def __len__(self) -> int:
        return len(self.y)

    @property
    def n_positive(self) -> int:
        """Images with roadwork."""
        return int(self.y.sum())

    @property
    def prevalence(self) -> float:
        """Share of roadwork."""
        return self.n_positive / len(self) if len(self) else float("nan")

    @property
    def n_groups(self) -> int:
        """Groups among the images."""
        return len(np.unique(self.groups))

    @property
    def both_classes(self) -> bool:
        """Whether there are images with and without roadwork."""
        return 0 < self.n_positive < len(self)

    def take(self, mask: NDArray[Any]) -> Part:
        """The images of ``mask``."""
        return Part(self.y[mask], self.p[mask], self.codes[mask], self.groups[mask])


def _undefined(draws: Draws, n: int, prevalence: float) -> Interval:
    nan = float("nan")
    return Interval(nan, nan, nan, draws.level, "undefined", n, prevalence)


def _honest(interval: Interval, n_units: int) -> Interval:
    # One group drawn again and again never varies, nor does an AUROC of 1: that is ignorance, not certainty.
    if np.isfinite(interval.low) and interval.low == interval.high:
        why = "none: one group" if n_units < 2 else "none: no resample differs"
        return replace(interval, low=float("nan"), high=float("nan"), method=why)
    return interval


def label_figures(
    part: Part,
    draws: Draws,
    names: Sequence[str] | Mapping[str, Metric] = LABEL_FIGURES,
    *,
    prevalence: float | None = None,
    decided: IntArray | None = None,
) -> dict[str, Interval]:
    """Figures of the labels that ``p >= 0.5``, or ``decided`` (M,), decides; NaN where a class or all are missing."""
    if not len(part):
        return {name: _undefined(draws, 0, float("nan")) for name in names}
    found = bootstrap(
        names,
        part.y,
        part.p,
        decided,
        prevalence=prevalence,
        **draws.options(part.groups),
    )
    units = part.n_groups if draws.by_group else len(part)
    found = {name: _honest(interval, units) for name, interval in found.items()}
    if not part.both_classes and "mcc" in found:
        # The convention MCC = 0 for an empty margin would read as a measured failure.
        found["mcc"] = _undefined(draws, len(part), part.prevalence)
    return found


def share(events: NDArray[np.bool_], part: Part, draws: Draws, *, prevalence: float) -> Interval:
    """Share of the images of ``part`` where ``events`` is True, with the interval of a plain proportion."""
    if not len(part):
        return _undefined(draws, 0, prevalence)
    sure = np.ones(len(part))
    found = bootstrap(
        ["accuracy"],
        events.astype(np.int64),
        sure,
        sure.astype(np.int64),
        **draws.options(part.groups),
    )["accuracy"]
    return replace(_honest(found, part.n_groups if draws.by_group else len(part)), n=len(part), prevalence=prevalence)


_SHARES = {
    "coverage": "decided, of all images",
    "risk": "wrong, of the decided",
    "wrong_of_all": "decided wrongly, of all images",
    "fnr": "roadwork answered no_roadwork, of all roadwork",
    "fpr": "no roadwork answered roadwork, of all images without roadwork",
    "found": "roadwork answered roadwork, of all roadwork",
    "coverage_roadwork": "decided, of all roadwork",
    "coverage_no_roadwork": "decided, of all images without roadwork",
    "precision_decided": "roadwork, of the answers roadwork",
}


def _masks(part: Part) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Images that count as events, and among which they are counted."""
    positive, decided = part.y == 1, part.codes != Code.ABSTAIN
    said_yes, said_no = part.codes == Code.ROADWORK, part.codes == Code.NO_ROADWORK
    wrong, everything = decided & (part.codes != part.y), np.ones(len(part), dtype=bool)
    return {
        "coverage": (decided, everything),
        "risk": (wrong, decided),
        "wrong_of_all": (wrong, everything),
        "fnr": (said_no & positive, positive),
        "fpr": (said_yes & ~positive, ~positive),
        "found": (said_yes & positive, positive),
        "coverage_roadwork": (decided & positive, positive),
        "coverage_no_roadwork": (decided & ~positive, ~positive),
        "precision_decided": (said_yes & positive, said_yes),
    }


def _policy_metric(name: str, part: Part) -> Metric:
    """A figure of the policy as a metric of weighted images, for macro means and stated prevalences."""
    masks = _masks(part)

    def of_shares(rows: Rows) -> FloatArray:
        top, bottom = (mask[rows.sample.order].astype(np.float64) for mask in masks[name])
        return ratio(rows.floats @ top, rows.floats @ bottom)

    def of_decided(rows: Rows) -> FloatArray:
        decided = masks["coverage"][0][rows.sample.order].astype(np.float64)
        return mcc(Confusion.from_cells(rows.floats @ (rows.sample.cell_indicators * decided).T))

    if name == "mcc_decided":
        return Metric(name, "policy", (-1, 1), True, "MCC of the decided images", ("decided",), of_decided)
    return Metric(name, "policy", (0, 1), None, _SHARES[name], ("decided",), of_shares)


def _labels(part: Part) -> IntArray:
    """Decided labels; where the policy abstained they are never counted."""
    return np.where(part.codes == Code.ROADWORK, 1, 0).astype(np.int64)


def policy_figures(part: Part, draws: Draws, names: Sequence[str] = (*_SHARES, "mcc_decided")) -> dict[str, Interval]:
    """Figures of the policy; abstentions count neither as misses nor as false alarms."""
    masks, found = _masks(part), {}
    for name in names:
        if name == "mcc_decided":
            decided = part.take(part.codes != Code.ABSTAIN)
            if decided.both_classes:
                options = draws.options(decided.groups)
                value = bootstrap(["mcc"], decided.y, decided.p, _labels(decided), **options)["mcc"]
                found[name] = _honest(value, decided.n_groups if draws.by_group else len(decided))
            else:
                found[name] = _undefined(draws, len(decided), decided.prevalence)
            continue
        events, among = masks[name]
        found[name] = share(events[among], part.take(among), draws, prevalence=part.prevalence)
    return found


def policy_at_prevalence(part: Part, draws: Draws, prevalence: float) -> dict[str, Interval]:
    """The figures that depend on the share of roadwork, at a stated one; undefined unless both classes are there."""
    if not part.both_classes:
        return {name: _undefined(draws, len(part), prevalence) for name in POLICY_STATED}
    found = bootstrap(
        {name: _policy_metric(name, part) for name in POLICY_STATED},
        part.y,
        part.p,
        _labels(part),
        prevalence=prevalence,
        **draws.options(part.groups),
    )
    fixed = policy_figures(part, draws, ("fnr", "fpr", "coverage_roadwork", "coverage_no_roadwork"))

    def mixed(first: Interval, second: Interval) -> tuple[float, float]:
        return (
            prevalence * first.low + (1 - prevalence) * second.low,
            prevalence * first.high + (1 - prevalence) * second.high,
        )

    wrong = mixed(fixed["fnr"], fixed["fpr"])
    coverage = found["coverage"].value
    wide = {
        "coverage": mixed(fixed["coverage_roadwork"], fixed["coverage_no_roadwork"]),
        "wrong_of_all": wrong,
        "risk": (min(1.0, wrong[0] / coverage), min(1.0, wrong[1] / coverage)) if coverage > 0 else (float("nan"),) * 2,
    }
    for name, (low, high) in wide.items():
        # No resample holds an error that was not seen; the rates of the two classes have intervals that know this.
        if found[name].low == found[name].high:
            found[name] = replace(found[name], low=low, high=high, method="clopper-pearson box")
    units = part.n_groups if draws.by_group else len(part)
    return {name: _honest(interval, units) for name, interval in found.items()}


def macro(
    parts: Sequence[Part], draws: Draws, *, labels: Sequence[str], policy: Sequence[str]
) -> dict[str, dict[str, Interval]]:
    """Mean over the parts (sources), each with the same weight; the parts are taken as given.

    Groups are drawn within each part, keeping the number of groups with and without roadwork, so that no resample lacks
    a class. Where no resample varies, the interval is the mean of the intervals of the parts.
    """
    n = sum(len(part) for part in parts)
    prevalence = float(np.mean([part.prevalence for part in parts])) if parts else float("nan")
    single = [(label_figures(part, draws, labels), policy_figures(part, draws, policy)) for part in parts]
    drawn: list[dict[str, dict[str, FloatArray]]] = []
    for k, part in enumerate(parts):
        options: dict[str, Any] = {
            "groups": draws.units(part.groups),
            "stratified": True,
            "n_resamples": draws.resamples,
            "seed": draws.seed + k,
        }
        policies = {name: _policy_metric(name, part) for name in policy}
        drawn.append(
            {
                "argmax": replicates(labels, part.y, part.p, **options),
                "policy": replicates(policies, part.y, part.p, _labels(part), **options),
            }
        )
    out: dict[str, dict[str, Interval]] = {}
    for k, (system, names) in enumerate((("argmax", labels), ("policy", policy))):
        out[system] = {}
        for name in names:
            if not parts:
                out[system][name] = _undefined(draws, 0, prevalence)
                continue
            each = [single[s][k][name] for s in range(len(parts))]
            values = np.mean([d[system][name] for d in drawn], axis=0)
            values = values[~np.isnan(values)]
            if len(values) and np.ptp(values) > 0:
                low, high = np.quantile(values, [(1 - draws.level) / 2, (1 + draws.level) / 2]).tolist()
                how = "percentile over sources"
            else:
                low, high = (float(np.mean([getattr(i, end) for i in each])) for end in ("low", "high"))
                how = "mean of the sources' intervals" if np.isfinite(low) else "none: a source has none"
            value = float(np.mean([i.value for i in each]))
            out[system][name] = Interval(
                value, low, high, draws.level, how, n, prevalence, draws.resamples - len(values)
            )
    return out


def plain(value: Any) -> Any:
    """``value`` fit for JSON: intervals as mappings, numbers that are not finite as null."""
    if isinstance(value, Interval):
        return plain(asdict(value)) | {"text": shown(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def shown(interval: Interval) -> str:
    """``0.873 [0.861, 0.885]``; says so where there is no value or no interval."""
    if not np.isfinite(interval.value):
        return "not defined"
    if not np.isfinite(interval.low):
        return f"{interval.value:.3f} (no interval{interval.method.removeprefix('none')})"
    return f"{interval}"
