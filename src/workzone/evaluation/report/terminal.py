"""The summary as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from workzone.evaluation.figures import shown
from workzone.evaluation.report.words import certificate_line, count, percent
from workzone.evaluation.summary import Summary

if TYPE_CHECKING:
    from rich.table import Table

_POLICY = (
    ("coverage", "decided (coverage)"),
    ("risk", "wrong among decided"),
    ("fnr", "roadwork missed"),
    ("fpr", "false alarms"),
)
_LABELS = (("mcc", "MCC at 0.5"), ("auroc", "AUROC"))


def summary_rows(s: Summary) -> list[tuple[str, str, str]]:
    """Name, figure with its interval, and what it rests on."""
    n = f"n {s.n:,}, {s.prevalence:.1%} roadwork"
    rows = [
        (title, percent(value), count(value.n, "image"))
        for name, title in _POLICY
        for value in (s.systems["policy"].natural[name],)
    ]
    rows += [(title, shown(s.systems["argmax"].natural[name]), n) for name, title in _LABELS]
    stated = s.systems["argmax"].stated["mcc"]
    rows.append(("MCC at 0.5, restated", shown(stated), f"at {s.stated_prevalence:.0%} roadwork"))
    both = sum(row.both_classes for row in s.sources)
    if both > 1:
        rows += [
            (f"{title}, mean over sources", shown(s.macro["argmax"][name]), f"{both} sources with both classes")
            for name, title in _LABELS
        ]
    if "one_view" in s.systems:
        rows.append(("MCC at 0.5, one view", shown(s.systems["one_view"].natural["mcc"]), n))
    verdict = s.calibration["all_views"]["ece_verdict"]
    rows.append(("ECE", f"{verdict['ece']:.3f}", f"calibrated model: below {verdict['null_95']:.3f}"))
    rows += [
        (
            f"promise: {p.risk.replace('_', ' ')} at most {p.alpha:.1%}",
            p.status.replace("_", " ")
            + (
                f"{', but' if p.contradicted else ';'} {percent(p.measured)} here"
                if np.isfinite(p.measured.value)
                else ""
            ),
            f"{p.events} of {count(p.measured.n, p.unit)}" if p.measured.n else "not measured here",
        )
        for p in s.promises
    ]
    if not s.promises:
        rows.append(("promise", certificate_line(s)[0].lower(), ""))
    return rows


def caption(s: Summary) -> str:
    """How the intervals are made."""
    unit = "groups" if s.draws.by_group else "images"
    return f"{s.draws.level:.0%} intervals, {s.draws.resamples:,} resamples of {unit}"


def summary_table(s: Summary) -> Table:
    """``summary_rows`` as a rich table; the caption says how intervals are made."""
    return stored_table({"rows": summary_rows(s), "caption": caption(s)})


def stored_table(terminal: Mapping[str, Any]) -> Table:
    """The table from what ``metrics_summary.json`` keeps under ``terminal``."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, caption=terminal["caption"])
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("of", style="dim")
    for name, value, of in terminal["rows"]:
        table.add_row(Text(name), Text(value), Text(of))
    return table
