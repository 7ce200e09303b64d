"""The report: one HTML file that needs nothing from outside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from workzone.decisions.types import Code
from workzone.evaluation.gallery import Gallery, reasons
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.slices import Slices
from workzone.evaluation.summary import Summary
from workzone.evaluation.words import cautions, certificate_line, headline, percent
from workzone.metrics import Interval

_POLICY_ROWS = (
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
_LABEL_ROWS = (
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
    ("augrc", "AUGRC", "undetected mistakes, 0 is best"),
    ("aurc", "AURC", "risk-coverage, 0 is best"),
    ("auroc_f", "AUROC of finding mistakes", "by low confidence"),
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


def _tiles(s: Summary) -> list[tuple[str, Cell]]:
    policy, labels = s.systems["policy"].natural, s.systems["argmax"].natural
    tiles = [
        (title, figure_cell(policy[name], _key("systems", "policy", "natural", name), share=True, note=note))
        for name, title, note in (
            ("coverage", "decided", f"{s.counts['decided']:,} of {s.n:,} images"),
            ("risk", "wrong among decided", f"{s.counts['wrong']:,} of {s.counts['decided']:,} decisions"),
            ("fnr", "roadwork missed", f"{s.counts['missed']:,} of {s.n_positive:,} with roadwork"),
            ("fpr", "false alarms", f"{s.counts['false_alarms']:,} of {s.n - s.n_positive:,} without"),
        )
    ]
    tiles.append(
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
        tiles.append(
            (
                "AUROC, mean over sources",
                figure_cell(s.macro["argmax"]["auroc"], "macro/argmax/auroc", note=f"{both} sources with both classes"),
            )
        )
    else:
        tiles.append(
            (
                "AUROC",
                figure_cell(labels["auroc"], _key("systems", "argmax", "natural", "auroc"), note=f"{s.n:,} images"),
            )
        )
    return tiles


def _system_table(s: Summary, rows: Sequence[tuple[str, str, str]], system: str, other: str) -> dict[str, Any]:
    """One table: natural prevalence, stated prevalence, one view, mean over sources."""
    main, second, macro = s.systems[system], s.systems.get(other), s.macro[system]
    both = sum(row.both_classes for row in s.sources)
    head = [f"all views, {s.prevalence:.0%} roadwork as found", f"restated to {s.stated_prevalence:.0%} roadwork"]
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
        body.append({"title": title, "hint": hint, "n": main.natural[name].n, "cells": cells})
    return {"head": head, "rows": body}


def _calibration_table(s: Summary) -> dict[str, Any]:
    systems = [
        (key, title) for key, title in (("all_views", "all views"), ("one_view", "one view")) if key in s.calibration
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
            text = f"{value:.3f}" if np.isfinite(value) else "not defined"
            shown = float(value) if np.isfinite(value) else None
            cells.append(Cell(text, "", _key("calibration", key, "figures", name), shown, note))
        body.append({"title": title, "cells": cells})
    return {"head": [title for _, title in systems], "rows": body}


def _source_table(s: Summary) -> dict[str, Any]:
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


def _slice_table(slices: Slices) -> dict[str, Any]:
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


def _fairness_table(slices: Slices) -> list[dict[str, Any]]:
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


def confusion_tables(e: Evaluated) -> list[tuple[str, Any, list[str]]]:
    """Title, counts (2, K) with roadwork first, and the answers: of the policy and of 0.5, all views and one view."""
    systems = [("policy, all views", e.decisions.codes), ("at 0.5, all views", e.argmax)]
    if e.one_view is not None:
        if e.one_view.decisions is not None:
            systems.append(("policy, one view", e.one_view.decisions.codes))
        systems.append(("at 0.5, one view", (e.one_view.probability >= 0.5).astype(np.int8)))
    answers = {Code.ROADWORK: "roadwork", Code.NO_ROADWORK: "no_roadwork", Code.ABSTAIN: "abstain"}
    tables = []
    for title, codes in systems:
        shown = [c for c in answers if c != Code.ABSTAIN or title.startswith("policy")]
        counts = np.array([[int(((e.labels == y) & (codes == c)).sum()) for c in shown] for y in (1, 0)])
        tables.append((title, counts, [answers[c] for c in shown]))
    return tables


def render(
    e: Evaluated, s: Summary, slices: Slices, pictures: Gallery, plots: Mapping[str, str], *, version: str
) -> str:
    """The page as text. Everything that comes from data is escaped; nothing is loaded from elsewhere.

    Args:
        e: what was evaluated.
        s: its figures.
        slices: its slices.
        pictures: mistakes and abstentions.
        plots: inline SVG by name, as ``Plot.render`` makes it.
        version: of this package.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["words"] = lambda text: str(text).replace("_", " ").replace("*", " x ")
    environment.filters["pct"] = percent
    folder = files("workzone.evaluation") / "templates"
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    title, promise = certificate_line(s)
    columns = list(dict.fromkeys(key for row in e.calibrators for key in row))
    return template.render(
        name=str(e.meta.get("run", "evaluation")),
        style=Markup((folder / "report.css").read_text(encoding="utf-8")),
        plots={name: Markup(svg) for name, svg in plots.items()},
        s=s,
        status=s.certified,
        status_title=title,
        status_sentence=promise,
        headline=headline(s),
        cautions=cautions(e, s, slices),
        tiles=_tiles(s),
        policy_table=_system_table(s, _POLICY_ROWS, "policy", "one_view_policy"),
        label_table=_system_table(s, _LABEL_ROWS, "argmax", "one_view"),
        confusion=[(t, c.tolist(), c.sum(axis=1).tolist(), a) for t, c, a in confusion_tables(e)],
        calibration_table=_calibration_table(s),
        calibrators={"head": columns, "rows": [[_plain(row.get(c)) for c in columns] for row in e.calibrators]},
        source_table=_source_table(s),
        slices=slices,
        slice_table=_slice_table(slices),
        fairness=_fairness_table(slices),
        gallery=pictures,
        reasons=reasons(e),
        saved=int(((e.argmax != e.labels) & ~e.decisions.accepted).sum()),
        certificate=e.certificate,
        policy=[(k, _plain(v)) for k, v in _flat(e.policy)],
        meta=[(k, _plain(v)) for k, v in _flat(e.meta)],
        version=version,
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        rows += _flat(value, f"{prefix}{key} ") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return rows


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(str(v) for v in value) if isinstance(value, (list, tuple)) else str(value)
