"""Findings as one HTML file that needs nothing from outside itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from workzone.evaluation.report.style import Palette, Plot, printable
from workzone.monitoring.alerts import Delivery
from workzone.monitoring.daily import Tested, standing
from workzone.monitoring.drift import DRIFT_TESTS
from workzone.monitoring.drift.psi import size_word
from workzone.monitoring.run import Findings
from workzone.monitoring.watch import TITLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RATES = {
    "accuracy": "right among the answered",
    "false_negative_rate": "roadwork answered 'no_roadwork'",
    "false_positive_rate": "no roadwork, answered 'roadwork'",
    "selective_error": "wrong among the answered",
    "prevalence": "share of roadwork",
    "abstention": "not answered",
}


def render(f: Findings, deliveries: Sequence[Delivery] = ()) -> str:
    """The page as text; everything from data is escaped."""
    from markupsafe import Markup

    from workzone import __version__
    from workzone.evaluation.report.templates import environment, source

    last, off = standing(f.days)
    text = (files("workzone.monitoring") / "templates" / "monitor.html.j2").read_text(encoding="utf-8")
    made = f.estimates.get(last.day) if last is not None else None
    return environment().from_string(text).render(
        f=f,
        style=Markup(source("report.css")),
        status=status(f),
        signals=Markup(signals_plot(f).render()[1]) if any(d.tests for d in f.days) else "",
        missed=Markup(estimate_plot(f).render()[1]) if f.estimates else "",
        last=last,
        off=off,
        estimate=made,
        rates=[] if made is None else [(_RATES[k], _pct(r.value), _ends(r.low, r.high)) for k, r in made.rates.items()],
        tests=[] if last is None else [_row(t) for t in sorted(last.tests, key=lambda t: (t.adjusted, t.signal))],
        days=[
            (d.day.isoformat(), d.n, d.verdict, ", ".join(d.off) or "-", ", ".join(d.alarms) or "-")
            for d in reversed(f.days)
        ],
        promises=[
            (TITLES[k], f"{e.alpha:.2%}", f"{e.errors:g} of {e.total:g}", f"{e.e_value:.3g}", f"{e.highest:.3g}",
             f"{1 / e.delta:g}", "refuted" if e.fired is not None else "stands" if e.step else "no labels yet")
            for k, e in f.watch.processes.items()
        ],
        calibration="too few labels" if math.isnan(f.calibration_p) else f"p {f.calibration_p:.2g}",
        notes=[*f.notes, *(f"{d.day}: {note}" for d in f.days[-2:] for note in d.notes)],
        deliveries=deliveries,
        time=f.time.strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )  # fmt: skip


def status(f: Findings) -> tuple[str, str]:
    """Style and sentence of the verdict."""
    if f.mark is not None:
        then = "its answers become abstain" if f.mark.policy == "abstain" else "every answer says so"
        return "not_certifiable", f"The certificate is void since {f.mark.time}; where the mark is honoured, {then}."
    if f.alarms:
        names = ", ".join(a.name for a in f.alarms)
        return "not_certifiable", f"{len(f.alarms)} alarm{'s' if len(f.alarms) > 1 else ''}: {names}."
    last, _ = standing(f.days)
    if last is None:
        held = [d for d in f.days if d.n]
        if not held:
            return "", f"No day could be judged: the log holds no image of these {len(f.days)} days."
        newest = held[-1]
        so_far = f" Off so far: {', '.join(newest.off)}." if newest.off else ""
        words = f"{newest.day} with {newest.n:,} images is {newest.verdict}"
        if newest.verdict == "not enough images":
            words = f"{newest.day} has {newest.n:,} images, {f.settings.drift.fewest} are needed"
        return "", f"No day could be judged yet: {words}.{so_far}"
    if last.off:
        return "", f"No alarm. On {last.day} off for the first time: {', '.join(last.off)}."
    return "certified", f"No alarm. {last.day}: {last.n:,} images, in line with the reference."


def signals_plot(f: Findings) -> Plot:
    """Each signal on each day: in line, off, or an alarm."""
    names = list(dict.fromkeys(t.signal for d in f.days for t in d.tests))

    def draw(figure: Figure, c: Palette) -> None:
        axes = figure.subplots()
        for x, day in enumerate(f.days):
            tested = {t.signal for t in day.tests}
            for y, name in enumerate(names):
                if name not in tested:
                    axes.plot(x, y, "_", color=c.muted, markersize=5)
                    continue
                edge = c.wrong if name in day.alarms else c.roadwork if name in day.off else c.right
                face = edge
                if day.verdict == "not finished":
                    edge, face = c.band, "none"
                shape = "s" if name in day.alarms else "o"
                axes.plot(x, y, shape, markersize=8, markerfacecolor=face, markeredgecolor=edge)
        axes.set_yticks(range(len(names)), [printable(n) for n in names])
        axes.set_xticks(range(len(f.days)), [d.day.strftime("%m-%d") for d in f.days], rotation=90)
        axes.set(xlim=(-0.6, len(f.days) - 0.4), ylim=(len(names) - 0.4, -0.6))
        axes.grid(visible=False)
        axes.tick_params(length=0)

    alt = "Signals by day: green in line, orange off, red square alarm, hollow not finished, dash not tested."
    return Plot("signals", draw, (6.6, 1.1 + 0.28 * max(len(names), 3)), alt)


def estimate_plot(f: Findings) -> Plot:
    """Expected false-negative rate by day, with its interval and the limit."""
    limit = f.bundle.limits.get("false_negative_rate")

    def draw(figure: Figure, c: Palette) -> None:
        axes = figure.subplots()
        top = 1.5 * (limit or 0.02)
        for x, day in enumerate(f.days):
            made = f.estimates.get(day.day)
            if made is None or not np.isfinite(made.rates["false_negative_rate"].value):
                continue
            rate = made.rates["false_negative_rate"]
            colour = c.clear if made.valid else c.band
            axes.plot([x, x], [rate.low, rate.high], color=colour, linewidth=1.6)
            axes.plot(x, rate.value, "o", markersize=5, color=colour, markerfacecolor=colour if made.valid else "none")
            top = max(top, 1.1 * rate.high)
        if limit is not None:
            axes.axhline(limit, color=c.wrong, linewidth=1.1, linestyle=(0, (4, 3)), label=f"limit {limit:.2%}")
            axes.legend(loc="upper left")
        axes.set_xticks(range(len(f.days)), [d.day.strftime("%m-%d") for d in f.days], rotation=90)
        axes.set(xlim=(-0.6, len(f.days) - 0.4), ylim=(0, min(top, 1.0)), ylabel="missed roadwork, expected")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")

    alt = "Expected share of roadwork answered no_roadwork by day with 95% interval; hollow where not valid."
    return Plot("missed", draw, (6.6, 2.6), alt)


def _row(t: Tested) -> tuple[str, str, str, str, str, str, str]:
    size = f" ({size_word(t.statistic)})" if t.test == "psi" else ""
    images = f"{t.n_new:,} / {t.n_reference:,}"
    title = DRIFT_TESTS[t.test].title
    return t.signal, t.reference, title, f"{t.statistic:.3g}{size}", _p(t.p), _p(t.adjusted), images


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _pct(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "-"


def _ends(low: float, high: float) -> str:
    return f"{low:.1%} to {high:.1%}" if math.isfinite(low) else ""
