"""Every calibrator that was tried: how it did out of fold, why it was or was not chosen, and how it does here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from workzone.evaluation.figures import Draws
from workzone.metrics import EceVerdict, ece_verdict, evaluate
from workzone.predictions import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class OnTest:
    """One calibrator on the images of the report, which it was not fitted on.

    Attributes:
        nll: mean NLL in nats.
        brier: mean squared error.
        ece: error with the line below which chance explains it.
    """

    nll: float
    brier: float
    ece: EceVerdict

    @property
    def reading(self) -> str:
        """Whether the ECE tells of miscalibration."""
        return "above chance" if self.ece.ece > self.ece.null_95 else "chance explains it"


@dataclass(frozen=True, slots=True)
class Method:
    """One calibrator that was tried; what is not known is None.

    Attributes:
        name: the calibrator.
        n_parameters: its free parameters.
        chosen: whether it is the one in use.
        eligible: whether it took part in the choice.
        reason: in words, why it was or was not chosen.
        cv_nll: out-of-fold NLL per image.
        se: its standard error.
        excess: ``cv_nll`` above the lowest of the eligible.
        excess_se: standard error of that, paired image by image.
        brier: out-of-fold Brier score.
        brier_se: its standard error.
        ece: out-of-fold ECE.
        members: name and weight of each member, for a mixture.
        test: the same on the images of the report.
    """

    name: str
    n_parameters: int | None = None
    chosen: bool = False
    eligible: bool = True
    reason: str = ""
    cv_nll: float | None = None
    se: float | None = None
    excess: float | None = None
    excess_se: float | None = None
    brier: float | None = None
    brier_se: float | None = None
    ece: float | None = None
    members: tuple[tuple[str, float], ...] = ()
    test: OnTest | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        stored = asdict(self)
        if self.test is not None:
            stored["test"]["reading"] = self.test.reading
        return stored


def read_methods(rows: Sequence[Mapping[str, Any]]) -> tuple[Method, ...]:
    """The rows that phase calibrate wrote; the chosen first, then by rising out-of-fold NLL."""

    def number(row: Mapping[str, Any], key: str) -> float | None:
        return None if row.get(key) is None else float(row[key])

    methods = [
        Method(
            str(row.get("name", "unnamed")),
            n_parameters=None if row.get("n_parameters") is None else int(row["n_parameters"]),
            chosen=bool(row.get("chosen", False)),
            eligible=bool(row.get("eligible", True)),
            reason=str(row.get("reason", "")),
            cv_nll=number(row, "cv_nll"),
            se=number(row, "se"),
            excess=number(row, "excess"),
            excess_se=number(row, "excess_se"),
            brier=number(row, "brier"),
            brier_se=number(row, "brier_se"),
            ece=number(row, "ece"),
            members=_members(row.get("fitted")),
        )
        for row in rows
    ]
    return tuple(sorted(methods, key=lambda m: (not m.chosen, m.cv_nll is None, m.cv_nll or 0.0)))


def _members(fitted: object) -> tuple[tuple[str, float], ...]:
    parameters = fitted.get("parameters") if isinstance(fitted, Mapping) else None
    stored = parameters.get("members") if isinstance(parameters, Mapping) else None
    if not isinstance(stored, list):
        return ()
    return tuple((str(m.get("method")), float(m["weight"])) for m in stored if isinstance(m, Mapping) and "weight" in m)


def on_test(
    methods: Sequence[Method], probabilities: Mapping[str, FloatArray], labels: IntArray, draws: Draws
) -> tuple[Method, ...]:
    """``methods`` with their figures on images (N,), for those whose ``probabilities`` (N,) are known."""
    found = []
    for method in methods:
        if method.name not in probabilities:
            found.append(method)
            continue
        p = probabilities[method.name]
        values = evaluate(labels, p, names=["nll", "brier"])
        verdict = ece_verdict(labels, p, n_resamples=draws.resamples, seed=draws.seed)
        found.append(replace(method, test=OnTest(values["nll"], values["brier"], verdict)))
    return tuple(found)


def choice(methods: Sequence[Method], *, in_use: bool = True) -> str:
    """Why the chosen calibrator was chosen, for those who do not know the rule; empty where none was.

    Args:
        methods: all that were tried.
        in_use: whether it made the probabilities, or would be chosen for them.
    """
    chosen = next((m for m in methods if m.chosen), None)
    if chosen is None:
        return ""
    size, status = _parameters(chosen), "is in use" if in_use else "would be chosen"
    if len(methods) == 1:
        return f"{chosen.name} {status}{size}: it is the only calibrator that was tried."
    scored = [m for m in methods if m.eligible and m.cv_nll is not None]
    if chosen.cv_nll is None or not scored:
        return f"{chosen.name} {status}{size}. {_sentence(chosen.reason)}".strip()
    lowest = min(scored, key=lambda m: (m.cv_nll or 0.0, m.n_parameters or 0))
    if lowest.name == chosen.name:
        return f"{chosen.name} {status}{size}: it has the lowest NLL out of fold, {chosen.cv_nll:.3f}."
    gap = chosen.cv_nll - (lowest.cv_nll or 0.0) if chosen.excess is None else chosen.excess
    error = "" if chosen.excess_se is None else f" (standard error of that difference {chosen.excess_se:.4f})"
    return (
        f"{chosen.name} {status}{size}, although {lowest.name}{_parameters(lowest)} has the lowest NLL out of fold, "
        f"{lowest.cv_nll:.3f}: {chosen.name} is {gap:.4f} above it{error}, which is within one standard error, and of "
        "such the simplest is taken."
    )


def _parameters(m: Method) -> str:
    if m.n_parameters is None:
        return ""
    return f" ({m.n_parameters} parameter{'' if m.n_parameters == 1 else 's'})"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def lowest_of_test(methods: Sequence[Method]) -> str:
    """What the images of the report say about the choice; empty where they were not asked."""
    known = [(m, m.test) for m in methods if m.test is not None and np.isfinite(m.test.nll)]
    used = next(((m, t) for m, t in known if m.chosen), None)
    if used is None or len(known) < 2:
        return ""
    best, test = min(known, key=lambda pair: pair[1].nll)
    if best.name == used[0].name:
        return f"On the images of this report {best.name} has the lowest NLL as well."
    return (
        f"On the images of this report {best.name} has the lowest NLL, {test.nll:.3f}, and {used[0].name} "
        f"{used[1].nll:.3f}; the choice was made before and is not changed by this."
    )
