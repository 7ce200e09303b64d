"""Pictures of ablations and sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workzone.evaluation.report.style import Palette, Plot, printable
from workzone.tuning.judge import better_is_higher

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def forest(result: Mapping[str, Any]) -> bytes:
    """PNG of the difference of each variant to the baseline, with its interval; what leaves out 0 is coloured."""
    metric = result["plan"]["metric"]
    rows = [r for r in result["rows"] if r["variant"] != result["baseline"]]
    sign = 1 if better_is_higher(metric) else -1
    rows.sort(key=lambda r: sign * r["differences"][metric]["value"])

    def draw(figure: Figure, colours: Palette) -> None:
        axes = figure.subplots()
        for y, row in enumerate(rows):
            d = row["differences"][metric]
            told = d["low"] > 0 or d["high"] < 0
            better = (d["value"] > 0) == (sign > 0)
            colour = (colours.right if better else colours.wrong) if told else colours.muted
            axes.plot([d["low"], d["high"]], [y, y], color=colour, linewidth=1.6)
            axes.plot([d["value"]], [y], marker="D" if told else "o", markersize=5, color=colour)
        axes.axvline(0.0, color=colours.ink, linewidth=0.9)
        axes.set_yticks(range(len(rows)), [printable(r["variant"], 60) for r in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlabel(f"{metric.replace('_', ' ')} less that of {result['baseline']}, 95% interval by group")
        axes.set_title(f"{result['n']:,} images, {result['n_positive']:,} roadwork, {result['n_groups']:,} groups")

    size = (7.5, 1.3 + 0.34 * max(len(rows), 1))
    return Plot("forest", draw, size, f"Difference in {metric} of each variant to the baseline.").render()[0]


def history(values: Sequence[float | None], metric: str, *, maximise: bool) -> bytes:
    """PNG of the value of each trial in order, and of the best so far; trials without a value are left out."""
    known = [(i, v) for i, v in enumerate(values) if v is not None and np.isfinite(v)]

    def draw(figure: Figure, colours: Palette) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        if known:
            x, y = np.array([i for i, _ in known]), np.array([v for _, v in known], dtype=np.float64)
            best = (np.maximum if maximise else np.minimum).accumulate(y)
            axes.plot(x, y, "o", markersize=4, color=colours.muted, label="trial")
            axes.step(x, best, where="post", color=colours.roadwork, label="best so far")
            axes.legend()
        axes.set_xlabel("trial")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        axes.set_ylabel(f"{metric} on val_select")

    return Plot("history", draw, (6.4, 3.4), f"{metric} of each trial in order.").render()[0]


def slices(trials: Sequence[tuple[Mapping[str, Any], float]], metric: str) -> bytes:
    """PNG with one panel per parameter: its value against the value of the trial."""
    names = sorted({name for params, _ in trials for name in params})

    def draw(figure: Figure, colours: Palette) -> None:
        panels = figure.subplots(1, max(len(names), 1), squeeze=False, sharey=True)[0]
        for axes, name in zip(panels, names, strict=False):
            pairs = [(params[name], value) for params, value in trials if name in params]
            numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v, _ in pairs)
            axes.plot([v if numbers else str(v) for v, _ in pairs], [y for _, y in pairs], "o", color=colours.roadwork)
            positive = [v for v, _ in pairs if numbers and v > 0]
            if numbers and len(positive) == len(pairs) and max(positive) > 30 * min(positive):
                axes.set_xscale("log")
                # The ticks of Matplotlib are formulas, which this look prints as they are written.
                axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            if not numbers:
                axes.set_xticks(axes.get_xticks(), [printable(str(t.get_text()), 22) for t in axes.get_xticklabels()])
                axes.tick_params(axis="x", labelrotation=30)
                for tick in axes.get_xticklabels():
                    tick.set_ha("right")
                    tick.set_rotation_mode("anchor")
                axes.margins(x=0.15)
            axes.set_xlabel(printable(name))
        panels[0].set_ylabel(f"{metric} on val_select")
        panels[0].set_title(f"{len(trials)} trial{'' if len(trials) == 1 else 's'}")

    return Plot("parameters", draw, (2.6 * max(len(names), 1), 3.2), f"{metric} by parameter.").render()[0]
