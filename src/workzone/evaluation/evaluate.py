"""Evaluate a detector on labelled images and write everything that is reported about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from workzone.config.run import EvaluateConfig
from workzone.evaluation.bands import UNKNOWN
from workzone.evaluation.figures import plain
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.report import plots as draw
from workzone.evaluation.report import plots_calibration as draw_calibration
from workzone.evaluation.report.gallery import gallery
from workzone.evaluation.report.more import related
from workzone.evaluation.report.page import confusion_tables, render
from workzone.evaluation.report.style import Plot, printable
from workzone.evaluation.report.terminal import caption, summary_rows
from workzone.evaluation.report.words import cautions, certificate_line, headline
from workzone.evaluation.slices import PAIR, Slices, column_values, compute_slices
from workzone.evaluation.summary import SCHEMA_VERSION, Summary, summarise
from workzone.files import write_atomic, write_json
from workzone.metrics import Interval


def evaluate(
    evaluated: Evaluated,
    settings: EvaluateConfig,
    folder: Path,
    *,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Compute figures with intervals and write the folder of an evaluation; ``metrics_summary.json`` comes last.

    Written are the JSON files, a PNG of each plot, and ``report.html``, which holds all of it in one file.

    Args:
        evaluated: labelled images with scores and decisions.
        settings: resamples, interval, slices, gallery.
        folder: made where missing; files in it are replaced one by one.
        seed: of every draw.
        progress: called with a few words before each step.
    """
    from workzone import __version__

    summary = summarise(evaluated, settings, seed=seed, progress=progress)
    slices = compute_slices(
        evaluated, settings.slices, draws=summary.draws, fewest=settings.min_slice, progress=progress
    )
    pictures = gallery(evaluated, settings.gallery, explained=settings.explained, progress=progress)
    progress("plots")
    plots = make_plots(evaluated, summary, slices)
    drawn = {name: plot.render() for name, plot in plots.items()}
    page = {name: svg for name, (_, svg) in drawn.items() if name != "confusion"}
    progress("report")
    html = render(evaluated, summary, slices, pictures, page, version=__version__, pages=related(folder))
    folder.mkdir(parents=True, exist_ok=True)
    for name, (png, _) in drawn.items():
        write_atomic(folder / f"{name}.png", png)
    write_json(folder / "confusion.json", _confusion(evaluated))
    write_json(folder / "per_class_metrics.json", _per_class(summary))
    write_json(folder / "bootstrap_ci.json", _intervals(summary))
    write_json(folder / "slices.json", _slices(slices))
    write_atomic(folder / "report.html", html)
    title, sentence = certificate_line(summary)
    words = {
        "certificate": [title, sentence],
        "headline": headline(summary),
        "cautions": cautions(evaluated, summary, slices),
    }
    terminal = {"rows": [list(row) for row in summary_rows(summary)], "caption": caption(summary)}
    about = {"meta": plain(evaluated.meta), "policy": plain(evaluated.policy)}
    write_json(folder / "metrics_summary.json", summary.to_dict() | {"words": words, "terminal": terminal} | about)
    return summary


def make_plots(e: Evaluated, s: Summary, slices: Slices) -> dict[str, Plot]:
    """Every plot by name; the forest of slices only where there are slices."""
    labels, policy = s.systems["argmax"].natural, s.systems["policy"].natural
    one = s.systems.get("one_view")
    views = "all views" if e.one_view is not None else "the detector"
    curves = [draw.Curve(_label(f"{views}, AUROC", labels["auroc"]), e.probability)]
    precisions = [draw.Curve(_label(f"{views}, AUPRC", labels["average_precision"]), e.probability)]
    confidence = np.maximum(e.probability, 1.0 - e.probability)
    correct = [(f"{views}, at 0.5", e.argmax == e.labels, confidence)]
    if e.one_view is not None and one is not None:
        p = e.one_view.probability
        curves.append(draw.Curve(_label("one view, AUROC", one.natural["auroc"]), p))
        precisions.append(draw.Curve(_label("one view, AUPRC", one.natural["average_precision"]), p))
        correct.append(("one view, at 0.5", (p >= 0.5) == e.labels, np.maximum(p, 1.0 - p)))
    points = []
    if np.isfinite(policy["found"].value) and np.isfinite(policy["fpr"].value):
        points = [
            draw.Point("policy", policy["fpr"].value, policy["found"].value),
            draw.Point("at 0.5", labels["fpr"].value, labels["recall"].value),
        ]
    operating = None
    if s.counts["decided"]:
        coverage, risk = policy["coverage"], policy["risk"]
        operating = draw.Point("policy", coverage.value, risk.value, _ends(coverage), _ends(risk))
    plots = [
        draw.confusion(confusion_tables(e)[:2], "Confusion tables of the policy and of answers at 0.5."),
        draw.roc(e.labels, curves, points, f"ROC curve; {curves[0].label}."),
        draw.precision_recall(e.labels, precisions, f"Precision-recall curve; {precisions[0].label}."),
        draw_calibration.reliability(
            e.labels,
            e.probability,
            f"Reliability diagram; ECE {s.calibration['all_views']['ece_verdict']['ece']:.3f}.",
            level=s.draws.level,
        ),
        draw.risk_coverage(
            correct, operating, f"Risk-coverage curve; the policy decides {policy['coverage'].value:.0%} of the images."
        ),
        draw.confidence_histogram(
            e.argmax == e.labels, e.decisions.accepted, confidence, "Confidence of right and of wrong answers."
        ),
    ]
    if sum(m.excess is not None for m in s.methods) > 1:
        plots.append(draw_calibration.calibrators(s.methods, "Calibrators that were tried, by out-of-fold NLL."))
    if slices.rows:
        plots.append(_forest(s, slices))
        panels = _reliability_panels(e, slices)
        if panels:
            plots.append(
                draw_calibration.reliability_grid(panels, "Reliability diagram of each slice.", level=s.draws.level)
            )
    return {plot.name: plot for plot in plots}


def _label(title: str, interval: Interval) -> str:
    return f"{title} {interval.value:.3f}" if np.isfinite(interval.value) else f"{title} not defined"


def _ends(interval: Interval) -> tuple[float, float] | None:
    return (interval.low, interval.high) if np.isfinite(interval.low) else None


def _forest(s: Summary, slices: Slices) -> Plot:
    rows: list[draw.ForestRow] = []
    column = None
    for row in slices.rows:
        if row.column != column:
            column = row.column
            rows.append(draw.ForestRow(printable(column.replace("_", " ").replace(PAIR, " x ")), (), heading=True))
        panels = []
        for name in ("fnr", "fpr"):
            value = row.argmax[name]
            low, high = (value.low, value.high) if np.isfinite(value.low) else (value.value, value.value)
            panels.append((value.value, low, high) if np.isfinite(value.value) else None)
        rows.append(
            draw.ForestRow(f"{printable(row.value, 26)}  ({row.n_positive} / {row.n - row.n_positive})", panels)
        )
    pooled = [v if np.isfinite(v) else None for v in (s.systems["argmax"].natural[m].value for m in ("fnr", "fpr"))]
    return draw.forest(rows, ("roadwork missed", "false alarms"), pooled, "Missed roadwork and false alarms by slice.")


def _reliability_panels(e: Evaluated, slices: Slices) -> list[draw_calibration.Panel]:
    """The largest slices, in their order; a band of confidence or an unknown value has no diagram of its own."""
    able = [
        r
        for r in slices.rows
        if r.column != "confidence" and r.value != UNKNOWN and r.n >= draw_calibration.PANEL_FEWEST
    ]
    largest = sorted(able, key=lambda r: (PAIR in r.column, -r.n))[: draw_calibration.PANELS]
    panels = []
    for row in (r for r in able if r in largest):
        inside = column_values(e, row.column) == row.value
        title = f"{printable(row.column.replace('_', ' ').replace(PAIR, ' x '), 24)}: {printable(row.value, 26)}"
        panels.append(draw_calibration.Panel(title, e.labels[inside], e.probability[inside]))
    return panels


def _confusion(e: Evaluated) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "tables": [
            {"system": title, "truth": ["roadwork", "no_roadwork"], "answers": answers, "counts": counts.tolist()}
            for title, counts, answers in confusion_tables(e)
        ],
    }


def _per_class(s: Summary) -> dict[str, Any]:
    labels, policy = s.systems["argmax"].natural, s.systems["policy"].natural
    n = {"roadwork": s.n_positive, "no_roadwork": s.n - s.n_positive}
    rows = {
        "roadwork": {
            "at_0.5": {
                "recall": labels["recall"],
                "precision": labels["precision"],
                "f1": labels["f1"],
                "missed": labels["fnr"],
            },
            "policy": {
                "found": policy["found"],
                "missed": policy["fnr"],
                "coverage": policy["coverage_roadwork"],
                "precision": policy["precision_decided"],
            },
        },
        "no_roadwork": {
            "at_0.5": {"recall": labels["specificity"], "false_alarms": labels["fpr"]},
            "policy": {"false_alarms": policy["fpr"], "coverage": policy["coverage_no_roadwork"]},
        },
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "n": s.n,
        "prevalence": s.prevalence,
        "classes": {name: {"n": n[name], **plain(row)} for name, row in rows.items()},
    }


def _intervals(s: Summary) -> dict[str, Any]:
    full = s.to_dict()
    return {
        "schema_version": SCHEMA_VERSION,
        "interval": full["interval"],
        "n": s.n,
        "n_groups": s.n_groups,
        "prevalence": s.prevalence,
        "stated_prevalence": s.stated_prevalence,
        "systems": full["systems"],
        "macro": full["macro"],
    }


def _slices(slices: Slices) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "slices": [plain({name: getattr(row, name) for name in type(row).__slots__}) for row in slices.rows],
        "left_out": [{"column": c, "value": v, "n": n} for c, v, n in slices.left_out],
        "not_recorded": list(slices.not_recorded),
        "worst": plain(slices.worst),
        "day_night": plain(slices.day_night),
        "hour_by_weather": plain(slices.grid),
        "fairness": [{"column": column} | plain(asdict(gap)) for column, gap in slices.fairness],
    }
