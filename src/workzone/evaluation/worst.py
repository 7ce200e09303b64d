"""The weakest slice, and whether it is weaker than chance makes the weakest of so many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workzone.evaluation.figures import Draws, Part, label_figures
from workzone.metrics.differences import Rates, holm, rates

if TYPE_CHECKING:
    from workzone.evaluation.slices import Slice

FEWEST_OF_A_CLASS = 5
# Balanced accuracy inside minus outside, from recall inside, specificity inside, recall outside, specificity outside.
_WEIGHTS = np.array([0.5, 0.5, -0.5, -0.5])
_ELEMENTS = 8_000_000


def worst_slice(
    rows: Sequence[Slice], masks: Mapping[tuple[str, str], NDArray[np.bool_]], everything: Part, draws: Draws
) -> dict[str, Any] | None:
    """Slice of lowest balanced accuracy, compared with all other images; None where no slice can be compared.

    Every slice with five images of each class inside and outside is tested against the rest, with groups drawn across
    both; the p-values are Holm-corrected over all of these slices. Bands of confidence are left out: low confidence is
    meant to hold the mistakes.
    """
    # Balanced accuracy does not move with the share of roadwork, which differs between slices; MCC does.
    able = [r for r in rows if r.column != "confidence" and min(r.n_positive, r.n - r.n_positive) >= FEWEST_OF_A_CLASS]
    if not able:
        return None
    tested = [
        r
        for r in able
        if min(everything.n_positive - r.n_positive, len(everything) - everything.n_positive - (r.n - r.n_positive))
        >= FEWEST_OF_A_CLASS
    ]
    smaller = [r for r in able if r.n < len(everything)]
    if not smaller:
        return None
    differences = dict(
        zip([(r.column, r.value) for r in tested], _tests(tested, masks, everything, draws), strict=True)
    )
    adjusted = dict(zip(differences, holm([d["p_value"] for d in differences.values()]).tolist(), strict=True))
    below = [
        {"column": column, "value": value, "difference": d["value"], "p_adjusted": adjusted[column, value]}
        for (column, value), d in differences.items()
        if d["value"] < 0 and adjusted[column, value] < 1 - draws.level
    ]
    row = min(smaller, key=lambda r: r.argmax["balanced_accuracy"].value)
    key = (row.column, row.value)
    other = label_figures(everything.take(~masks[key]), draws, ("balanced_accuracy",))["balanced_accuracy"]
    found = differences.get(key)
    apart = found is not None and found["value"] < 0 and adjusted[key] < 1 - draws.level
    if found is None:
        caveat = (
            "The other images lack a class, so there is nothing to compare it with."
            if not np.isfinite(other.value)
            else "The other images have too few of a class to test the difference."
        )
    elif apart:
        caveat = (
            f"Corrected for {len(tested)} slices looked at (Holm), the difference is more than chance explains "
            f"(p {_p(adjusted[key])})."
        )
    else:
        caveat = (
            f"With {row.n_positive} roadwork images and {row.n - row.n_positive} others in this slice, the lowest of "
            f"{len(tested)}, the difference may be chance (p {_p(adjusted[key])} after Holm's correction)."
        )
    return {
        "column": row.column,
        "value": row.value,
        "n": row.n,
        "n_positive": row.n_positive,
        "metric": "balanced_accuracy",
        "slice": row.argmax["balanced_accuracy"],
        "others": other,
        "difference": found,
        "p_adjusted": adjusted.get(key),
        "differs": bool(apart),
        "compared": len(tested),
        "below_the_rest": sorted(below, key=lambda b: b["difference"]),
        "caveat": caveat,
    }


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def _tests(
    rows: Sequence[Slice], masks: Mapping[tuple[str, str], NDArray[np.bool_]], everything: Part, draws: Draws
) -> list[dict[str, float]]:
    """Difference of balanced accuracy of each slice to the rest, its interval and p-value, uncorrected."""
    right = (everything.p >= 0.5) == (everything.y == 1)
    classes = (everything.y == 1, everything.y == 0)
    out = []
    step = max(1, _ELEMENTS // (8 * len(everything)))
    for first in range(0, len(rows), step):
        batch = rows[first : first + step]
        inside = [masks[r.column, r.value] for r in batch]
        among = np.stack([part & of for mask in inside for part in (mask, ~mask) for of in classes], axis=1)
        found = rates(
            np.repeat(right[:, None], among.shape[1], axis=1),
            among,
            groups=draws.units(everything.groups),
            n_resamples=draws.resamples,
            seed=draws.seed,
        )
        out += [_difference(found, k, draws.level) for k in range(len(batch))]
    return out


def _difference(found: Rates, k: int, level: float) -> dict[str, float]:
    weights = np.zeros(len(found.value))
    weights[4 * k : 4 * k + 4] = _WEIGHTS
    value, low, high = found.interval(weights, (1 - level) / 2)
    return {"value": value, "low": max(-1.0, low), "high": min(1.0, high), "p_value": found.p_value(weights)}
