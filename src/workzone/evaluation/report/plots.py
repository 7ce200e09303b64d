"""Plots of the scores: ranking, confidence and abstention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workzone.evaluation.report.style import Palette, Plot
from workzone.metrics.selective import risk_coverage_curve
from workzone.predictions import FloatArray, IntArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SQUARE = (4.6, 4.0)


@dataclass(frozen=True, slots=True)
class Curve:
    """One model's scores on the same images, with the label it has in the legend."""

    label: str
    probability: FloatArray


@dataclass(frozen=True, slots=True)
class Point:
    """A marked point with optional intervals (low, high) along both axes."""

    label: str
    x: float
    y: float
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None


def _steps(y: IntArray, p: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Running hits and false alarms by falling score, one step per distinct score, starting with none."""
    order = np.argsort(-p, kind="stable")
    last = np.r_[p[order][1:] != p[order][:-1], True]
    hits, alarms = np.cumsum(y[order])[last], np.cumsum(1 - y[order])[last]
    return np.r_[0.0, hits], np.r_[0.0, alarms]


def _mark(axes: Any, point: Point, colour: str, marker: str = "D", *, hollow: bool = False) -> None:
    def error(value: float, interval: tuple[float, float] | None) -> list[list[float]] | None:
        return None if interval is None else [[max(0.0, value - interval[0])], [max(0.0, interval[1] - value)]]

    axes.errorbar(
        point.x,
        point.y,
        xerr=error(point.x, point.x_interval),
        yerr=error(point.y, point.y_interval),
        fmt=marker,
        color=colour,
        markersize=9 if hollow else 6,
        capsize=3,
        linewidth=1.2,
        label=point.label,
        zorder=5,
        markerfacecolor="none" if hollow else colour,
        clip_on=False,
    )


def roc(y: IntArray, curves: Sequence[Curve], points: Sequence[Point], alt: str) -> Plot:
    """Hit rate against false alarm rate, with the points at which decisions are made."""

    def draw(figure: Figure, c: Palette) -> None:
        n_pos = int(y.sum())
        axes = _ranking(
            figure,
            ("false alarms among images without roadwork", "roadwork found"),
            "needs images of both classes" if n_pos in (0, len(y)) else "",
        )
        axes.plot([0, 1], [0, 1], color=c.muted, linewidth=1, linestyle=(0, (2, 3)))
        if n_pos in (0, len(y)):
            return
        _draw_curves(axes, c, y, curves, lambda hits, alarms: (alarms / (len(y) - n_pos), hits / n_pos), "default")
        for point, marker in zip(points, "Do", strict=False):
            _mark(axes, point, c.ink, marker, hollow=marker == "o")
        axes.legend(loc="best")

    return Plot("roc_curve", draw, _SQUARE, alt)


def precision_recall(y: IntArray, curves: Sequence[Curve], alt: str) -> Plot:
    """Precision against recall, with the precision of answering roadwork always."""

    def draw(figure: Figure, c: Palette) -> None:
        n_pos = int(y.sum())
        axes = _ranking(
            figure,
            ("roadwork found (recall)", "right among answers 'roadwork' (precision)"),
            "needs images with roadwork" if n_pos == 0 else "",
        )
        if n_pos == 0:
            return
        rate = n_pos / len(y)
        axes.axhline(rate, color=c.muted, linewidth=1, linestyle=(0, (2, 3)), label=f"prevalence {rate:.2f}")
        _draw_curves(
            axes, c, y, curves, lambda hits, alarms: (hits[1:] / n_pos, (hits / (hits + alarms))[1:]), "steps-pre"
        )
        axes.legend(loc="best")

    return Plot("pr_curve", draw, _SQUARE, alt)


def _ranking(figure: Figure, labels: tuple[str, str], missing: str) -> Any:
    """Axes over the unit square; ``missing`` says why they stay empty."""
    axes = figure.subplots()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=labels[0], ylabel=labels[1])
    if missing:
        axes.text(0.5, 0.5, missing, ha="center", va="center", transform=axes.transAxes, wrap=True)
    return axes


def _draw_curves(
    axes: Any,
    c: Palette,
    y: IntArray,
    curves: Sequence[Curve],
    place: Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]],
    steps: str,
) -> None:
    """Each curve at the places that ``place`` makes of running hits and false alarms."""
    for curve, (colour, line) in zip(curves, ((c.roadwork, "-"), (c.clear, "--")), strict=False):
        with np.errstate(invalid="ignore"):  # no answer yet: the first step has no precision, and is not drawn
            x, height = place(*_steps(y, curve.probability))
        axes.plot(x, height, color=colour, linestyle=line, label=curve.label, drawstyle=steps)


def risk_coverage(correct: Sequence[tuple[str, NDArray[np.bool_], FloatArray]], policy: Point | None, alt: str) -> Plot:
    """Share of wrong among the most confident, and where the policy works.

    Args:
        correct: label, (N,) right or wrong, (N,) confidence, for each model.
        policy: coverage and risk of the policy with their intervals.
        alt: description.
    """

    def draw(figure: Figure, c: Palette) -> None:
        axes = figure.subplots()
        top = 0.02
        for (label, right, confidence), (colour, line) in zip(
            correct, ((c.roadwork, "-"), (c.clear, "--")), strict=False
        ):
            curve = risk_coverage_curve(right, confidence)
            axes.plot(curve.coverage, curve.risk, color=colour, linestyle=line, label=label, drawstyle="steps-post")
            # A mistake among the very first images makes a spike that says nothing and hides the rest.
            settled = curve.risk[curve.coverage >= min(0.1, float(curve.coverage[-1]))]
            top = max(top, float(settled.max()))
        if policy is not None:
            _mark(axes, policy, c.ink)
            top = max(top, policy.y_interval[1] if policy.y_interval else policy.y)
        axes.set(xlim=(-0.01, 1.01), ylim=(0, min(1.0, top * 1.15)), xlabel="share of images decided (coverage)")
        axes.set_ylabel("wrong among decided (risk)")
        axes.legend(loc="best")

    return Plot("risk_coverage", draw, _SQUARE, alt)


def confidence_histogram(
    correct: NDArray[np.bool_], accepted: NDArray[np.bool_], confidence: FloatArray, alt: str
) -> Plot:
    """Confidence of right and of wrong decisions, and how many of them the policy let pass."""

    def draw(figure: Figure, c: Palette) -> None:
        edges = np.linspace(0.5, 1.0, 21)
        panels = figure.subplots(2, 1, sharex=True)
        for axes, mask, name, colour in zip(
            panels, (correct, ~correct), ("right", "wrong"), (c.right, c.wrong), strict=True
        ):
            total = int(mask.sum())
            passed = np.histogram(confidence[mask & accepted], edges)[0]
            held = np.histogram(confidence[mask & ~accepted], edges)[0]
            axes.bar(
                edges[:-1], passed, 0.023, align="edge", color=colour, label=f"decided by the policy ({passed.sum()})"
            )
            axes.bar(
                edges[:-1],
                held,
                0.023,
                passed,
                align="edge",
                color=colour,
                alpha=0.35,
                label=f"abstained ({held.sum()})",
            )
            axes.set_title(f"{name} at 0.5: {total} of {len(correct)} images")
            axes.set_ylabel("images")
            axes.yaxis.get_major_locator().set_params(integer=True)
            axes.set_ylim(0, max(1.0, 1.65 * float((passed + held).max())))
            axes.legend(loc="upper left")
        panels[1].set(xlim=(0.495, 1.005), xlabel="confidence max(p, 1 - p)")

    return Plot("confidence_histogram", draw, (4.6, 4.4), alt)


def confusion(tables: Sequence[tuple[str, NDArray[np.int64], Sequence[str]]], alt: str) -> Plot:
    """Counts and row shares of each table: rows roadwork and no_roadwork, columns the answers.

    Args:
        tables: title, (2, K) counts, K names of answers.
        alt: description.
    """

    def draw(figure: Figure, c: Palette) -> None:
        from matplotlib.colors import to_rgb

        panels = figure.subplots(1, len(tables), squeeze=False, width_ratios=[len(names) for *_, names in tables])[0]
        for axes, (title, counts, answers) in zip(panels, tables, strict=True):
            rows = counts.sum(axis=1, keepdims=True)
            share = np.divide(counts, rows, out=np.zeros(counts.shape), where=rows > 0)
            for (i, j), value in np.ndenumerate(share):
                name = answers[j]
                hue = c.band if name == "abstain" else c.right if (name == "roadwork") == (i == 0) else c.wrong
                axes.add_patch(_cell(j, i, (*to_rgb(hue), 0.08 + 0.5 * float(value))))
                text = f"{counts[i, j]}\n{value:.1%}" if rows[i, 0] else "0"
                axes.text(j, i, text, ha="center", va="center", linespacing=1.4)
            axes.set(xlim=(-0.5, len(answers) - 0.5), ylim=(1.5, -0.5), title=title, xlabel="answer")
            axes.set_xticks(range(len(answers)), [a.replace("_", "\n") for a in answers])
            axes.set_yticks([0, 1], ["roadwork", "no\nroadwork"] if axes is panels[0] else ["", ""])
            axes.tick_params(length=0)
            axes.grid(visible=False)
            for spine in axes.spines.values():
                spine.set_visible(False)
        panels[0].set_ylabel("truth")

    return Plot("confusion", draw, (1.4 + 1.05 * sum(len(names) for *_, names in tables), 3.0), alt)


def _cell(x: float, y: float, colour: tuple[float, float, float, float]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, facecolor=colour, linewidth=0)


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One line of a forest plot; each panel holds (value, low, high) or None where it is undefined."""

    label: str
    panels: Sequence[tuple[float, float, float] | None]
    heading: bool = False


def forest(rows: Sequence[ForestRow], titles: Sequence[str], pooled: Sequence[float | None], alt: str) -> Plot:
    """Figures with their intervals, slice by slice, against the value over all images."""

    def draw(figure: Figure, c: Palette) -> None:
        panels = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
        places = np.arange(len(rows))
        for k, (axes, title) in enumerate(zip(panels, titles, strict=True)):
            if pooled[k] is not None:
                axes.axvline(pooled[k], color=c.muted, linewidth=1, linestyle=(0, (2, 3)))
            for place, row in zip(places.tolist(), rows, strict=True):
                value = row.panels[k] if row.panels else None
                if value is not None:
                    axes.plot(value[1:], [place, place], color=c.roadwork, linewidth=1.4, solid_capstyle="butt")
                    axes.plot(value[0], place, "o", color=c.roadwork, markersize=4)
                elif not row.heading:
                    axes.text(0.5, place, "none", color=c.muted, fontsize=7.5, va="center", ha="center")
            axes.set(xlim=(-0.06, 1.06), title=title)
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            axes.grid(visible=False, axis="y")
        panels[0].set_yticks(places, [r.label for r in rows])
        panels[0].set_ylim(len(rows) - 0.4, -0.6)
        for axes in panels:
            axes.tick_params(axis="y", length=0)
        for tick, row in zip(panels[0].get_yticklabels(), rows, strict=True):
            tick.set_color(c.ink if row.heading else c.muted)
            tick.set_fontweight("bold" if row.heading else "normal")

    return Plot("slices", draw, (5.0, 0.9 + 0.2 * max(len(rows), 4)), alt)
