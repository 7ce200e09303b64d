"""Plots of calibration: reliability diagrams, and the calibrators that were tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workzone.evaluation.calibrators import Method
from workzone.evaluation.report.style import Palette, Plot, printable
from workzone.metrics.calibration import ReliabilityCurve, reliability_curve
from workzone.predictions import FloatArray, IntArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def reliability(y: IntArray, p: FloatArray, alt: str, *, level: float, n_bins: int = 10) -> Plot:
    """Observed rate against stated probability, with intervals, the band of a calibrated model and the counts."""

    def draw(figure: Figure, c: Palette) -> None:
        from scipy.special import bdtrik

        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
        curve = reliability_curve(y, p, n_bins, level=level)
        width = 0.92 / n_bins
        tail = (1 - level) / 2
        # Within a bin the draws are nearly alike, so the number of hits of a calibrated model is close to binomial.
        chance = np.clip(curve.probability, 1e-12, 1 - 1e-12)
        low, high = (np.ceil(bdtrik(q, curve.count, chance)) / curve.count for q in (tail, 1 - tail))
        left = curve.edges[np.clip(np.searchsorted(curve.edges, curve.probability, side="right") - 1, 0, n_bins - 1)]
        top.bar(
            left + 0.04 / n_bins,
            high - low,
            width,
            low,
            align="edge",
            color=c.band,
            alpha=0.28,
            linewidth=0,
            label="a calibrated model",
        )
        _observed(top, curve, c, markersize=4, linewidth=1.2, elinewidth=1, capsize=2, label="observed")
        top.set(ylim=(-0.02, 1.02), ylabel="share that is roadwork")
        top.legend(loc="best")
        edges = np.linspace(0, 1, n_bins + 1)
        counts = [np.histogram(p[y == label], edges)[0] for label in (1, 0)]
        start = edges[:-1] + 0.04 / n_bins
        bottom.bar(start, counts[0], width, align="edge", color=c.roadwork, alpha=0.85, label="roadwork")
        bottom.bar(start, counts[1], width, counts[0], align="edge", color=c.clear, alpha=0.6, label="no roadwork")
        bottom.set(xlim=(-0.01, 1.01), xlabel="stated probability of roadwork", ylabel="images")
        bottom.legend(loc="upper center", ncols=2, fontsize=7.5)
        bottom.margins(y=0.6)

    return Plot("reliability", draw, (4.6, 4.6), alt)


def _observed(axes: Axes, curve: ReliabilityCurve, c: Palette, **style: Any) -> None:
    """The diagonal, and the observed shares with their intervals."""
    axes.plot([0, 1], [0, 1], color=c.muted, linewidth=1, linestyle=(0, (2, 3)))
    error = np.clip([curve.rate - curve.low, curve.high - curve.rate], 0, None)
    axes.errorbar(curve.probability, curve.rate, yerr=error, fmt="o-", color=c.roadwork, **style)


_FAR = 4.0
PANELS = 12
PANEL_FEWEST = 20


@dataclass(frozen=True, slots=True)
class Panel:
    """One of several small diagrams: labels and probabilities of the images it shows."""

    title: str
    y: IntArray
    p: FloatArray


def reliability_grid(panels: Sequence[Panel], alt: str, *, level: float, n_bins: int = 5) -> Plot:
    """Small reliability diagrams side by side, with intervals and the number of images in each bin."""
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)

    def draw(figure: Figure, c: Palette) -> None:
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            curve = reliability_curve(panel.y, panel.p, n_bins, level=level)
            _observed(axes, curve, c, markersize=3, linewidth=1, elinewidth=0.8)
            for x, count in zip(curve.probability.tolist(), curve.count.tolist(), strict=True):
                axes.text(x, -0.16, f"{int(count)}", ha="center", va="center", fontsize=6.5, color=c.muted)
            axes.set(xlim=(-0.06, 1.06), ylim=(-0.24, 1.04))
            axes.set_title(f"{panel.title}\nn {len(panel.y)}, {int(panel.y.sum())} with roadwork", fontsize=7.5)
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        figure.supxlabel("stated probability of roadwork", fontsize=9)
        figure.supylabel("share that is roadwork", fontsize=9)

    return Plot("slice_calibration", draw, (0.6 + 2.1 * columns, 0.6 + 1.9 * lines), alt)


def calibrators(methods: Sequence[Method], alt: str) -> Plot:
    """Out-of-fold NLL of every calibrator above the lowest, with one standard error of the paired difference."""
    rows = [m for m in methods if m.cv_nll is not None and m.excess is not None]
    rows = sorted(rows, key=lambda m: m.excess or 0.0)

    def draw(figure: Figure, c: Palette) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=c.muted, linewidth=1, linestyle=(0, (2, 3)))
        gaps = [(m.excess or 0.0, m.excess_se or 0.0) for m in rows]
        # One that is far off would squeeze the others into a point.
        far = _FAR * float(np.median([gap + error for gap, error in gaps]))
        near = [m.chosen or gap <= far for m, (gap, _) in zip(rows, gaps, strict=True)]
        reach = max((gap + error for (gap, error), k in zip(gaps, near, strict=True) if k), default=0.0) or 0.01
        low = min(0.0, *(gap - error for (gap, error), k in zip(gaps, near, strict=True) if k))
        axes.set(xlim=(low - 0.05 * reach, 1.08 * reach), xlabel="out-of-fold NLL above the lowest, nats")
        for place, (m, (gap, error), shown) in enumerate(zip(rows, gaps, near, strict=True)):
            if not shown:
                text = f"{gap:.3f}, beyond the right end  >"
                axes.text(1.07 * reach, place, text, ha="right", va="center", fontsize=7.5, color=c.muted)
                continue
            colour = c.roadwork if m.chosen else c.clear if m.eligible else c.band
            axes.plot([gap - error, gap + error], [place, place], color=colour, linewidth=1.4)
            axes.plot(gap, place, "D" if m.chosen else "o", color=colour, markersize=6 if m.chosen else 4.5)
        names = [printable(m.name, 24) + ("" if m.eligible else " (barred)") for m in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")

    return Plot("calibrators", draw, (5.0, 1.0 + 0.26 * max(len(rows), 3)), alt)
