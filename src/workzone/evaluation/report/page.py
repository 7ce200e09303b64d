"""The report: one HTML file that needs nothing from outside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workzone.decisions.types import Code
from workzone.evaluation.contrasts import resamples_needed
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.report.gallery import Gallery, reasons
from workzone.evaluation.report.more import Page
from workzone.evaluation.report.sections import calibrators, contrast_tables, selective_table, uncertainty_table
from workzone.evaluation.report.tables import (
    LABEL_ROWS,
    POLICY_ROWS,
    calibration_table,
    fairness_table,
    slice_table,
    source_table,
    system_table,
    tiles,
)
from workzone.evaluation.report.words import cautions, certificate_line, headline
from workzone.evaluation.slices import Slices
from workzone.evaluation.summary import Summary


def confusion_tables(e: Evaluated) -> list[tuple[str, Any, list[str]]]:
    """Title, counts (2, K) with roadwork first, and the answers: of the policy and of 0.5, all views and one view."""
    views = "" if e.one_view is None else ", all views"
    systems = [(f"policy{views}", e.decisions.codes), (f"at 0.5{views}", e.argmax)]
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
    e: Evaluated,
    s: Summary,
    slices: Slices,
    pictures: Gallery,
    plots: Mapping[str, str],
    *,
    version: str,
    pages: Sequence[Page] = (),
) -> str:
    """The page as text. Everything that comes from data is escaped; nothing is loaded from elsewhere.

    Args:
        e: what was evaluated.
        s: its figures.
        slices: its slices.
        pictures: mistakes and abstentions.
        plots: inline SVG by name, as ``Plot.render`` makes it.
        version: of this package.
        pages: what belongs to the report and was made apart from it.
    """
    from markupsafe import Markup

    from workzone.evaluation.report.templates import environment, source

    template = environment().get_template("report.html.j2")
    title, promise = certificate_line(s)
    return template.render(
        name=str(e.meta.get("run", "evaluation")),
        style=Markup(source("report.css")),
        plots={name: Markup(svg) for name, svg in plots.items()},
        s=s,
        status="contradicted" if any(p.contradicted for p in s.promises) else s.certified,
        status_title=title,
        status_sentence=promise,
        headline=headline(s),
        cautions=cautions(e, s, slices),
        tiles=tiles(s),
        policy_table=system_table(s, POLICY_ROWS, "policy", "one_view_policy"),
        label_table=system_table(s, LABEL_ROWS, "argmax", "one_view"),
        confusion=[(t, c.tolist(), c.sum(axis=1).tolist(), a) for t, c, a in confusion_tables(e)],
        calibration_table=calibration_table(s),
        calibrators=calibrators(e, s),
        selective_table=selective_table(s),
        uncertainty=uncertainty_table(e),
        contrasts=contrast_tables(s),
        resamples_needed=resamples_needed(len(s.contrasts), s.draws),
        pages=pages,
        source_table=source_table(s),
        slices=slices,
        slice_table=slice_table(slices),
        fairness=fairness_table(slices),
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
