"""The parts of the report about choices: which score to abstain by, which calibrator, which way to answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from workzone.decisions.uncertainty.names import MAX_PROBABILITY
from workzone.evaluation.calibrators import Method, choice, lowest_of_test
from workzone.evaluation.contrasts import Contrast
from workzone.evaluation.inputs import Evaluated
from workzone.evaluation.report.compare import BETTER, delong_words, mcnemar_words, p_value
from workzone.evaluation.report.tables import Cell, figure_cell
from workzone.evaluation.rows import Row
from workzone.evaluation.summary import Summary
from workzone.metrics.selective import COVERAGES, RISKS

_SELECTIVE_ROWS = (
    ("aurc", "AURC", "0 is best"),
    ("e_aurc", "e-AURC", "above a perfect order; 0 is best"),
    ("augrc", "AUGRC", "mean risk of an undetected mistake; 0 is best"),
    ("e_augrc", "e-AUGRC", "above a perfect order; 0 is best"),
    ("auroc_f", "AUROC of finding mistakes", "0.5 is chance"),
    *(
        (f"coverage_at_risk_{100 * r:g}pct", f"Answered with {100 * r:g}% risk or less", "more is better")
        for r in RISKS
    ),
    *(
        (f"risk_at_coverage_{100 * c:g}pct", f"Wrong where {100 * c:g}% are answered", "less is better")
        for c in COVERAGES
    ),
)
_SELECTIVE_SYSTEMS = (
    ("argmax", "max(p, 1 - p)"),
    ("policy_score", "the policy's own score"),
    ("one_view", "max(p, 1 - p), one view"),
)
_CALIBRATOR_HEAD = (
    "parameters",
    "NLL out of fold",
    "above the lowest",
    "Brier out of fold",
    "ECE out of fold",
    "NLL on these images",
    "ECE on these images",
)


def selective_table(s: Summary) -> dict[str, Any]:
    """Figures of abstaining by a score, for every score there is."""
    shown = [(key, title) for key, title in _SELECTIVE_SYSTEMS if key in s.systems]
    rows = [
        {
            "title": title,
            "hint": hint,
            "cells": [
                figure_cell(s.systems[key].natural[name], f"systems/{key}/natural/{name}", share="_at_" in name)
                for key, _ in shown
            ],
        }
        for name, title, hint in _SELECTIVE_ROWS
    ]
    return {"head": [title for _, title in shown], "rows": rows}


def uncertainty_table(e: Evaluated) -> dict[str, Any]:
    """How well each measure and each failure gate finds mistakes, next to the largest probability."""

    def cell(value: Mapping[str, float], form: str = ".3f") -> Cell:
        if not np.isfinite(value["value"]):
            return Cell("not defined")
        shown = {name: format(value[name], form) for name in ("value", "low", "high")}
        return Cell(shown["value"], f"{shown['low']} to {shown['high']}", value=value["value"])

    u = e.uncertainty
    return {
        "sentence": u.get("sentence", ""),
        "gate": u.get("gate") or "",
        "n": u.get("n", 0),
        "mistakes": u.get("mistakes", 0),
        "rows": [
            {
                "title": row["name"].replace("_", " "),
                "kind": row["kind"],
                "chosen": row["chosen"],
                "cells": [
                    *(cell(row[name]) for name in ("auroc", "auprc", "augrc")),
                    Cell("reference") if row["name"] == MAX_PROBABILITY else cell(row["difference"]["auroc"], "+.3f"),
                ],
            }
            for row in u.get("rows", ())
        ],
    }


def calibrators(e: Evaluated, s: Summary) -> dict[str, Any]:
    """Every calibrator that was tried, and the choice in words; columns that nothing is known of are left out."""
    rows = [_calibrator_cells(k, m) for k, m in enumerate(s.methods)]
    used = [j for j in range(len(_CALIBRATOR_HEAD)) if any(cells[j].text for cells in rows)]
    return {
        "choice": choice(s.methods, in_use=e.calibrator_in_use),
        "test": lowest_of_test(s.methods),
        "note": e.calibration_note,
        "status": "in use" if e.calibrator_in_use else "would be chosen",
        "head": [_CALIBRATOR_HEAD[j] for j in used],
        "rows": [
            {
                "title": m.name,
                "chosen": m.chosen,
                "members": ", ".join(f"{name} {weight:.2f}" for name, weight in m.members if weight > 0),
                "reason": m.reason,
                "cells": [cells[j] for j in used],
            }
            for m, cells in zip(s.methods, rows, strict=True)
        ],
    }


def _calibrator_cells(k: int, m: Method) -> list[Cell]:
    def number(value: float | None, key: str, error: float | None = None, note: str = "") -> Cell:
        if value is None or not np.isfinite(value):
            return Cell("")
        small = "" if error is None else f"± {error:.4f}"
        return Cell(f"{value:.3f}", small, f"calibrators/{k}/{key}", value, note)

    size = Cell("" if m.n_parameters is None else str(m.n_parameters))
    cells = [
        size,
        number(m.cv_nll, "cv_nll", m.se),
        Cell("") if m.excess is None else Cell(f"{m.excess:.4f}", f"± {m.excess_se or 0.0:.4f}"),
        number(m.brier, "brier", m.brier_se),
        number(m.ece, "ece"),
    ]
    if m.test is None:
        return [*cells, Cell(""), Cell("")]
    line = f"calibrated: below {m.test.ece.null_95:.3f}; {m.test.reading}"
    return [*cells, number(m.test.nll, "test/nll"), number(m.test.ece.ece, "test/ece/ece", note=line)]


def contrast_tables(s: Summary) -> list[dict[str, Any]]:
    """Each comparison: its sentence, its figures and its classical tests."""
    return [
        {
            "title": c.title,
            "sentence": c.sentence,
            "more": c.more,
            "first": c.first,
            "second": c.second,
            "rows": [_contrast_row(c, row, f"contrasts/{k}/rows/{j}") for j, row in enumerate(c.rows)],
            "tests": _tests(c),
        }
        for k, c in enumerate(s.contrasts)
    ]


def _contrast_row(c: Contrast, row: Row, key: str) -> dict[str, Any]:
    d = row.difference
    better = {"A": c.first, "B": c.second}.get(row.winner, BETTER[row.winner])
    return {
        "title": row.title,
        "hint": "higher is better" if row.higher_is_better else "lower is better",
        "cells": [
            figure_cell(v, f"{key}/{name}") for name, v in (("a", d.a), ("b", d.b), ("difference", d.difference))
        ],
        "p": p_value(d.p),
        "p_holm": "" if row.p_holm is None else p_value(row.p_holm),
        "better": better,
    }


def _tests(c: Contrast) -> list[tuple[str, str]]:
    found = []
    if c.mcnemar is not None:
        found.append(("McNemar, exact", mcnemar_words(c.mcnemar, c.first, c.second)))
    if c.delong is not None:
        found.append(("DeLong", delong_words(c.delong)))
    return found
