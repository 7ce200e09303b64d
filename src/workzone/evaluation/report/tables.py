"""The tables of the report, as rows of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workzone.evaluation.slices import Slices
from workzone.evaluation.summary import Summary
from workzone.metrics import Interval

POLICY_ROWS = (
    ("coverage", "Decided (coverage)", "of all images"),
    ("risk", "Wrong among decided (risk)", "of the decided images"),
    ("wrong_of_all", "Decided wrongly", "of all images"),
    ("fnr", "Roadwork missed (FNR)", "roadwork answered 'no roadwork', of all roadwork"),
    ("fpr", "False alarms (FPR)", "others answered 'roadwork', of all images without"),
    ("found", "Roadwork found", "roadwork answered 'roadwork', of all roadwork"),
    ("coverage_roadwork", "Decided among roadwork", "of all roadwork"),
    ("coverage_no_roadwork", "Decided among the others", "of all images without roadwork"),
    ("precision_decided", "Right among answers 'roadwork'", "of the answers 'roadwork'"),
    ("mcc_decided", "MCC of the decided", "from -1 to 1"),
)
LABEL_ROWS = (
    ("mcc", "MCC", "from -1 to 1, 0 is chance"),
    ("balanced_accuracy", "Balanced accuracy", "mean of both classes"),
    ("accuracy", "Accuracy", ""),
    ("precision", "Precision", "right among answers 'roadwork'"),
    ("recall", "Recall", "roadwork found"),
    ("specificity", "Specificity", "others recognised"),
    ("fnr", "Roadwork missed (FNR)", ""),
    ("fpr", "False alarms (FPR)", ""),
    ("f1", "F1", ""),
    ("f0.5", "F0.5", "favours precision"),
    ("auroc", "AUROC", "ranking, 0.5 is chance"),
    ("average_precision", "AUPRC", "ranking, prevalence is chance"),
)
_CALIBRATION_ROWS = (
    ("brier", "Brier score"),
    ("brier_skill", "Brier skill against the base rate"),
    ("nll", "NLL (nats)"),
    ("ece", "ECE, 15 equal-width bins"),
    ("ece_equal_mass", "ECE, 15 equal-mass bins"),
    ("ece_debiased", "ECE, debiased"),
    ("smooth_ece", "Smooth ECE"),
    ("mce", "Largest gap of a bin (20 images or more)"),
    ("spiegelhalter_z", "Spiegelhalter z (beyond 2 in size: off)"),
)
_SOURCE_COLUMNS = (
    ("argmax", "auroc", "AUROC"),
    ("argmax", "mcc", "MCC at 0.5"),
    ("policy", "coverage", "decided"),
    ("policy", "risk", "wrong of decided"),
    ("policy", "fnr", "missed"),
    ("policy", "fpr", "false alarms"),
)
_SLICE_COLUMNS = (
    ("argmax", "balanced_accuracy", "balanced accuracy"),
    ("argmax", "fnr", "missed at 0.5"),
    ("argmax", "fpr", "false alarms at 0.5"),
    ("argmax", "auroc", "AUROC"),
    ("argmax", "calibration_gap", "mean p - rate"),
    ("policy", "coverage", "decided"),
    ("policy", "risk", "wrong of decided"),
)
_NOT_PERCENT = {"auroc", "mcc", "mcc_decided", "balanced_accuracy", "average_precision", "calibration_gap"}


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure on the page: ``key`` is its path in metrics_summary.json or slices.json, or empty."""

    text: str
    interval: str = ""
    key: str = ""
    value: float | None = None
    note: str = ""


def figure_cell(interval: Interval | None, key: str = "", *, share: bool = False, note: str = "") -> Cell:
    """Value and interval, as a percentage where ``share``."""
    if interval is None:
        return Cell("", note=note)
    if not np.isfinite(interval.value):
        return Cell("not defined", key=key, note=note)

    scale, digits, unit = (100.0, 1, "%") if share else (1.0, 3, "")
    ends = "no interval"
    if np.isfinite(interval.low):
        ends = f"{scale * interval.low:.{digits}f} to {scale * interval.high:.{digits}f}{unit}"
    return Cell(f"{scale * interval.value:.{digits}f}{unit}", ends, key, float(interval.value), note)


def _key(*parts: str) -> str:
    return "/".join(parts)


def tiles(s: Summary) -> list[tuple[str, Cell]]:
    """Title and figure of each tile at the top."""
    policy, labels = s.systems["policy"].natural, s.systems["argmax"].natural
    found = [
        (title, figure_cell(policy[name], _key("systems", "policy", "natural", name), share=True, note=note))
        for name, title, note in (
            ("coverage", "decided", f"{s.counts['decided']:,} of {s.n:,} images"),
            ("risk", "wrong among decided", f"{s.counts['wrong']:,} of {s.counts['decided']:,} decisions"),
            ("fnr", "roadwork missed", f"{s.counts['missed']:,} of {s.n_positive:,} with roadwork"),
            ("fpr", "false alarms", f"{s.counts['false_alarms']:,} of {s.n - s.n_positive:,} without"),
        )
    ]
    found.append(
        (
            "MCC at 0.5",
            figure_cell(
                labels["mcc"],
                _key("systems", "argmax", "natural", "mcc"),
                note=f"{s.n:,} images, {s.prevalence:.0%} roadwork, no abstention",
            ),
        ),
    )
    both = sum(row.both_classes for row in s.sources)
    if both > 1:
        found.append(
            (
                "AUROC, mean over sources",
                figure_cell(s.macro["argmax"]["auroc"], "macro/argmax/auroc", note=f"{both} sources with both classes"),
            )
        )
    else:
        found.append(
            (
                "AUROC",
                figure_cell(labels["auroc"], _key("systems", "argmax", "natural", "auroc"), note=f"{s.n:,} images"),
            )
        )
    return found


def system_table(s: Summary, rows: Sequence[tuple[str, str, str]], system: str, other: str) -> dict[str, Any]:
    """One table: natural prevalence, stated prevalence, one view, mean over sources."""
    main, second, macro = s.systems[system], s.systems.get(other), s.macro[system]
    both = sum(row.both_classes for row in s.sources)
    views = "all views, " if second else ""
    head = [f"{views}{s.prevalence:.0%} roadwork as found", f"restated to {s.stated_prevalence:.0%} roadwork"]
    head += [f"mean over {both} sources"] if both > 1 else []
    head += ["one view, as found"] if second else []
    body = []
    for name, title, hint in rows:
        share = system == "policy" and name not in _NOT_PERCENT
        cells = [
            figure_cell(main.natural[name], _key("systems", system, "natural", name), share=share),
            figure_cell(main.stated.get(name), _key("systems", system, "stated", name), share=share),
        ]
        if both > 1:
            cells.append(figure_cell(macro.get(name), _key("macro", system, name), share=share))
        if second:
            cells.append(figure_cell(second.natural[name], _key("systems", other, "natural", name), share=share))
        n = main.natural[name].n if system == "policy" else _images_of(name, s)
        body.append({"title": title, "hint": hint, "n": n, "cells": cells})
    return {"head": head, "rows": body}


def _images_of(name: str, s: Summary) -> int:
    """Images that a figure of answers at 0.5 is taken of: a rate of one class says nothing of the other."""
    if name in ("recall", "fnr"):
        return s.n_positive
    return s.n - s.n_positive if name in ("specificity", "fpr") else s.n


def calibration_table(s: Summary) -> dict[str, Any]:
    """Errors of the probabilities, of all views and of one."""
    systems = [
        (key, title if "one_view" in s.calibration else "here")
        for key, title in (("all_views", "all views"), ("one_view", "one view"))
        if key in s.calibration
    ]
    body = []
    for name, title in _CALIBRATION_ROWS:
        cells = []
        for key, _ in systems:
            value = s.calibration[key]["figures"][name]
            note = ""
            if name in ("ece", "ece_equal_mass"):
                verdict = s.calibration[key]["ece_verdict" if name == "ece" else "ece_equal_mass_verdict"]
                note = f"calibrated model: {verdict['null_mean']:.3f}, 95% below {verdict['null_95']:.3f}"
                note += "; above it" if value > verdict["null_95"] else "; chance explains it"
            # Adding 0 turns a rounded -0 into 0.
            text = f"{round(value, 3) + 0.0:.3f}" if np.isfinite(value) else "not defined"
            shown = float(value) if np.isfinite(value) else None
            cells.append(Cell(text, "", _key("calibration", key, "figures", name), shown, note))
        body.append({"title": title, "cells": cells})
    return {"head": [title for _, title in systems], "rows": body}


def source_table(s: Summary) -> dict[str, Any]:
    """Figures of each source, their mean, and all images pooled."""
    rows = [
        {
            "title": row.name,
            "n": row.n,
            "n_positive": row.n_positive,
            "n_groups": row.n_groups,
            "note": "" if row.both_classes else "one class only, not in the mean",
            "cells": [
                figure_cell(
                    getattr(row, system)[name], _key("per_source", str(k), system, name), share=name not in _NOT_PERCENT
                )
                for system, name, _ in _SOURCE_COLUMNS
            ],
        }
        for k, row in enumerate(s.sources)
    ]
    both = [row for row in s.sources if row.both_classes]
    totals = []
    if len(both) > 1:
        cells = [
            figure_cell(s.macro[system][name], _key("macro", system, name), share=name not in _NOT_PERCENT)
            for system, name, _ in _SOURCE_COLUMNS
        ]
        totals.append(
            {
                "title": f"mean over {len(both)} sources",
                "n": sum(r.n for r in both),
                "n_positive": sum(r.n_positive for r in both),
                "n_groups": sum(r.n_groups for r in both),
                "note": "each source with the same weight",
                "cells": cells,
            }
        )
    cells = [
        figure_cell(
            s.systems[system].natural[name], _key("systems", system, "natural", name), share=name not in _NOT_PERCENT
        )
        for system, name, _ in _SOURCE_COLUMNS
    ]
    totals.append(
        {
            "title": "all images pooled",
            "n": s.n,
            "n_positive": s.n_positive,
            "n_groups": s.n_groups,
            "note": "large sources weigh most",
            "cells": cells,
        }
    )
    return {"head": [title for *_, title in _SOURCE_COLUMNS], "rows": rows, "totals": totals}


def slice_table(slices: Slices) -> dict[str, Any]:
    """Figures of each slice in blocks by column."""
    blocks: dict[str, list[dict[str, Any]]] = {}
    for k, row in enumerate(slices.rows):
        cells = [
            figure_cell(
                getattr(row, system)[name], _key("slices", str(k), system, name), share=name not in _NOT_PERCENT
            )
            for system, name, _ in _SLICE_COLUMNS
        ]
        blocks.setdefault(row.column, []).append(
            {"title": row.value, "n": row.n, "n_positive": row.n_positive, "note": row.note, "cells": cells}
        )
    return {"head": [title for *_, title in _SLICE_COLUMNS], "blocks": blocks}


_MEASURES = {
    "demographic_parity": "answered roadwork (demographic parity)",
    "equal_opportunity": "roadwork missed (equal opportunity)",
    "equalised_odds": "missed or false alarms (equalised odds)",
}
_GAP_VERDICTS = {
    "exceeds": "larger than accepted, beyond chance",
    "within": "small enough, shown by the interval",
    "cannot be told": "cannot be told with so few images",
    "not defined": "fewer than two values have enough images",
}


def fairness_table(slices: Slices) -> list[dict[str, Any]]:
    """Gaps between the values of a column."""
    rows = []
    for k, (column, gap) in enumerate(slices.fairness):
        ends = f"{100 * gap.low:.1f} to {100 * gap.high:.1f}%"
        cell = (
            Cell(f"{100 * gap.value:.1f}%", ends, _key("fairness", str(k), "value"), gap.value)
            if np.isfinite(gap.value)
            else Cell("not defined")
        )
        rows.append(
            {
                "column": column,
                "title": _MEASURES[gap.measure],
                "threshold": gap.threshold,
                "cell": cell,
                "between": f"{gap.worse} and {gap.better}" if gap.worse else "",
                "verdict": _GAP_VERDICTS[gap.verdict],
                "note": f"without {', '.join(gap.left_out[:6])}: too few images" if gap.left_out else "",
            }
        )
    return rows
