"""A comparison as a table for the terminal and as a page with a forest plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workzone.evaluation.compare import Comparison
from workzone.evaluation.report.style import Palette, Plot, printable
from workzone.evaluation.rows import Row
from workzone.metrics.bootstrap import Interval
from workzone.metrics.comparison import DeLong, McNemar

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

BETTER = {"A": "A", "B": "B", "none": "not told", "undefined": "not defined"}


def comparison_table(c: Comparison) -> Table:
    """Every figure of both models, their difference and its p-values."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("figure")
    for name in ("A", "B", "B - A", "interval", "p", "p, Holm", "better"):
        table.add_column(name, justify="right")
    for row in c.rows:
        gap = row.difference.difference
        cells = [
            row.title + ("" if row.higher_is_better else " (lower is better)"),
            _number(row.difference.a.value),
            _number(row.difference.b.value),
            _number(gap.value, "+.3f"),
            _ends(gap, "+.3f"),
            p_value(row.difference.p),
            "primary" if row.p_holm is None else p_value(row.p_holm),
            BETTER[row.winner],
        ]
        table.add_row(*map(Text, cells))
    return table


def classical_tests(c: Comparison) -> list[tuple[str, str]]:
    """Name and result of the classical tests."""
    return [("McNemar, exact", mcnemar_words(c.mcnemar, "A", "B")), ("DeLong", delong_words(c.delong))]


def mcnemar_words(m: McNemar, first: str, second: str) -> str:
    """The images that tell the two apart, and the p-value."""
    return f"{m.only_a:,} images only {first} has right, {m.only_b:,} only {second}; p {p_value(m.p)}"


def delong_words(d: DeLong) -> str:
    """Both areas, their difference, and the p-value."""
    if not np.isfinite(d.p):
        return "cannot be estimated on these images"
    gap = f"AUROC {d.a:.3f} and {d.b:.3f}, difference {d.difference:+.4f}, standard error {d.standard_error:.4f}"
    return f"{gap}, p {p_value(d.p)}"


def forest(c: Comparison) -> Plot:
    """Differences with their intervals, turned so that right is in favour of B."""
    rows = [r for r in c.rows if r.winner != "undefined" and np.isfinite(r.difference.difference.low)]

    def draw(figure: Figure, colours: Palette) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=colours.muted, linewidth=1)
        reach = 0.0
        for place, row in enumerate(rows):
            gap, sign = row.difference.difference, 1 if row.higher_is_better else -1
            value, ends = sign * gap.value, (sign * gap.low, sign * gap.high)
            reach = max(reach, *(abs(v) for v in ends))
            told = row.winner in ("A", "B")
            colour = colours.clear if place else colours.roadwork
            axes.plot(ends, [place, place], color=colour, linewidth=1.4, solid_capstyle="butt")
            face = colour if told else colours.paper
            axes.plot(value, place, "o", markerfacecolor=face, markeredgecolor=colour, markersize=5)
        reach = 1.08 * reach or 1.0
        axes.set(xlim=(-reach, reach), xlabel="in favour of A   |   in favour of B")
        axes.set_yticks(range(len(rows)), [printable(r.title) for r in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")

    return Plot("differences", draw, (5.6, 1.1 + 0.24 * max(len(rows), 3)), c.verdict)


def render(c: Comparison, *, reports: Sequence[str | None] = (None, None)) -> str:
    """The page as text; nothing is loaded from elsewhere and everything from data is escaped.

    Args:
        c: the comparison.
        reports: addresses of the reports of A and B, None where there is none.
    """
    from markupsafe import Markup

    from workzone import __version__
    from workzone.evaluation.report.templates import environment, source

    template = environment().get_template("comparison.html.j2")
    about = [
        (f"{letter}: {kind}", text)
        for letter, path, answers in zip("AB", c.paths, c.answers, strict=True)
        for kind, text in (("table", path), ("answers", answers))
    ]
    return template.render(
        c=c,
        style=Markup(source("report.css")),
        reports=[(letter, name, to) for letter, name, to in zip("AB", c.names, reports, strict=True) if to],
        plot=Markup(forest(c).render()[1]),
        level=f"{c.level:.0%}",
        rows=[_cells(row) for row in c.rows],
        tests=classical_tests(c),
        about=[*about, ("seed", str(c.seed))],
        version=__version__,
    )


def _cells(row: Row) -> dict[str, Any]:
    d = row.difference
    return {
        "title": row.title,
        "hint": "higher is better" if row.higher_is_better else "lower is better",
        "cells": [
            (_number(d.a.value), _ends(d.a)),
            (_number(d.b.value), _ends(d.b)),
            (_number(d.difference.value, "+.3f"), _ends(d.difference, "+.3f")),
        ],
        "p": p_value(d.p),
        "p_holm": "primary" if row.p_holm is None else p_value(row.p_holm),
        "better": BETTER[row.winner],
    }


def _number(value: float, form: str = ".3f") -> str:
    return format(value, form) if np.isfinite(value) else "not defined"


def _ends(interval: Interval, form: str = ".3f") -> str:
    if not np.isfinite(interval.low):
        return ""
    return f"[{interval.low:{form}}, {interval.high:{form}}]"


def p_value(p: float) -> str:
    """Three digits, or that it is smaller; empty where there is none."""
    if not np.isfinite(p):
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
