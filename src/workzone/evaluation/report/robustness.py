"""The measurement on changed pictures as JSON, as tables and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workzone.evaluation.changes import CLEAN
from workzone.evaluation.figures import plain
from workzone.evaluation.report.style import Palette, Plot
from workzone.evaluation.robustness import Measured, Robustness
from workzone.evaluation.summary import SCHEMA_VERSION
from workzone.files import write_atomic, write_json
from workzone.metrics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EMPTY: dict[str, Any] = {"text": "", "interval": "", "broken": False}


def write_robustness(found: Robustness, folder: Path) -> None:
    """Write ``robustness.png`` and ``robustness.json`` into ``folder``, and put them on the report that is there."""
    from workzone.evaluation.report.more import refresh

    folder.mkdir(parents=True, exist_ok=True)
    png, _ = robustness_plot(found).render()
    write_atomic(folder / "robustness.png", png)
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "n": found.n,
        "n_positive": found.n_positive,
        "level": found.level,
        "sentence": found.sentence(),
        "certified": list(found.certified),
        "broken_when_clean": list(found.broken_when_clean),
        "breaks": [plain(asdict(b)) for b in found.breaks],
        "tables": robustness_tables(found),
        "rows": [
            {
                "change": row.change,
                "kind": row.kind,
                "level": row.level,
                "argmax": plain(row.argmax),
                "policy": plain(row.policy),
                "promises": [plain(asdict(p)) for p in row.promises],
            }
            for row in found.rows
        ],
    }
    write_json(folder / "robustness.json", record)
    refresh(folder)


def robustness_tables(found: Robustness) -> list[dict[str, Any]]:
    """For each certified risk a table of changes by levels; missed roadwork and false alarms where none is certified.

    Each cell holds the rate, its interval, and whether the lower end lies above the limit.
    """
    clean = found.rows[0]
    if found.certified:
        risks = [(p.risk, f"{p.risk.replace('_', ' ')}, promised at most {p.alpha:.1%}") for p in clean.promises]
    else:
        risks = [("fnr", "roadwork answered no roadwork; no limit is certified")]
        risks.append(("fpr", "false alarms; no limit is certified"))
    rows = [row for row in found.rows if row.change != CLEAN]
    levels = sorted({row.level for row in rows})
    tables = []
    for risk, title in risks:
        lines = []
        for name in dict.fromkeys(row.change for row in rows):
            at = {row.level: row for row in rows if row.change == name}
            cells = [_cell(at[level], risk) if level in at else _EMPTY for level in levels]
            first = next((level for level, cell in zip(levels, cells, strict=True) if cell["broken"]), None)
            breaks = "no" if first is None else f"at {first}"
            lines.append({"name": name.replace("_", " "), "cells": cells, "breaks": breaks})
        about = {"title": title, "limited": bool(found.certified), "clean": _cell(clean, risk)}
        tables.append({**about, "levels": levels, "rows": lines})
    return tables


def _cell(row: Measured, risk: str) -> dict[str, Any]:
    promise = next((p for p in row.promises if p.risk == risk), None)
    value = row.policy[risk] if promise is None else promise.measured
    if not np.isfinite(value.value):
        return {"text": "not defined", "interval": "", "broken": False}
    ends = f"{value.low:.1%} to {value.high:.1%}" if np.isfinite(value.low) else "no interval"
    return {"text": f"{value.value:.1%}", "interval": ends, "broken": bool(promise and promise.beyond_chance)}


def robustness_plot(found: Robustness) -> Plot:
    """One panel per change: missed roadwork, false alarms and coverage of the policy by level."""
    names = list(dict.fromkeys(row.change for row in found.rows if row.change != CLEAN))
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    limits = {p.risk: p.alpha for p in found.rows[0].promises}
    clean = found.rows[0]

    def draw(figure: Figure, c: Palette) -> None:
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
        shown = (
            ("fnr", "missed", c.wrong, "o-"),
            ("fpr", "false alarms", c.clear, "s--"),
            ("coverage", "decided", c.muted, ":"),
        )
        for axes, name in zip(grid.flat, names, strict=False):
            rows = [row for row in found.rows if row.change == name]
            x = [rows[0].level - 1, *(row.level for row in rows)]
            for key, label, colour, style in shown:
                value, low, high = _ends([clean, *rows], key)
                axes.plot(x, value, style, color=colour, markersize=3, linewidth=1.2, label=label)
                if key != "coverage":
                    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            for risk, label, colour in (
                ("false_negative_rate", "limit of missed", c.wrong),
                ("false_positive_rate", "limit of false alarms", c.clear),
            ):
                if risk in limits:
                    axes.axhline(limits[risk], color=colour, linewidth=0.8, linestyle=(0, (1, 2)), label=label)
            broken = [b.level for b in found.breaks if b.change == name]
            axes.set_title(name.replace("_", " ") + (f": breaks at {min(broken)}" if broken else ""), fontsize=7)
            axes.set(ylim=(-0.03, 1.03))
            axes.set_xticks(x, ["clean", *(str(row.level) for row in rows)], fontsize=7)
        for axes in list(grid.flat)[len(names) :]:
            axes.set_visible(False)
        figure.legend(*grid[0][0].get_legend_handles_labels(), fontsize=7, loc="outside upper left", ncols=5)
        figure.supxlabel("level of the change", fontsize=9)
        figure.supylabel("share of the images concerned", fontsize=9)

    return Plot("robustness", draw, (0.6 + 2.2 * columns, 0.6 + 1.9 * lines), found.sentence())


def _ends(rows: Sequence[Measured], key: str) -> tuple[list[float], list[float], list[float]]:
    intervals: list[Interval] = [row.policy[key] for row in rows]
    return [i.value for i in intervals], [i.low for i in intervals], [i.high for i in intervals]
