"""A cascade on the test images: accuracy against mean cost, who stops where, and whether the hard images go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workzone.decisions.policies.cascade import CascadePolicy
from workzone.decisions.types import Code
from workzone.evaluation.figures import plain
from workzone.evaluation.report.style import Palette, Plot
from workzone.files import write_atomic, write_json
from workzone.metrics import bootstrap
from workzone.metrics.cascade import DeferralCurve, cascade_figures, deferral_curve, deferral_figures
from workzone.predictions import FloatArray, IntArray, StrArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1
_FIGURES = ("auroc", "mcc", "accuracy", "nll")


def cascade_report(
    policy: CascadePolicy,
    probability: FloatArray,
    stages: Mapping[str, FloatArray],
    labels: IntArray,
    groups: StrArray,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 42,
) -> dict[str, Any]:
    """Figures of every operating point, and more of the chosen one, fit for JSON.

    The ranking of a cascade is that of the calibrated probabilities of the stages where the images stopped. Accuracy is
    that of the answer at 0.5, so that operating points with different abstentions can be compared.

    Args:
        policy: fitted cascade.
        probability: (N,) calibrated probabilities of all views.
        stages: log-odds (N,) of the earlier stages by name, of all images.
        labels: (N,) 0 or 1.
        groups: (N,) what is resampled as a whole.
        n_resamples: bootstrap resamples.
        level: confidence of intervals.
        seed: of the draws.
    """
    y = np.asarray(labels, dtype=np.int64)
    options: dict[str, Any] = {"groups": groups, "n_resamples": n_resamples, "level": level, "seed": seed}
    known = [name for name in _FIGURES if name != "auroc" or 0 < y.sum() < len(y)]
    curve = []
    for point in range(len(policy.plan.points)):
        at = policy.at_point(point)
        decided = at.decide(probability, stages)
        found = bootstrap(known, y, decided.probability, **options)
        cost, stop = _of(decided.cost), _of(decided.stage)
        positives = y == 1
        missed = decided.codes[positives] == Code.NO_ROADWORK
        curve.append(
            {
                "point": point,
                "chosen": point == policy.active,
                "planned_cost": policy.plan.points[point].cost,
                "cost": plain(cascade_figures(stop, cost, (decided.probability >= 0.5) == y, **options).mean_cost),
                "status": policy.results[point].status,
                "missed": int(missed.sum()),
                "roadwork": int(positives.sum()),
                "coverage": float(decided.accepted.mean()),
                **{name: plain(value) for name, value in found.items()},
            }
        )
    decided = policy.decide(probability, stages)
    right = (decided.probability >= 0.5) == (y == 1)
    found_stages = cascade_figures(_of(decided.stage), _of(decided.cost), right, **options)
    report = {
        "schema_version": SCHEMA_VERSION,
        "n": len(y),
        "n_groups": len(np.unique(groups)),
        "prevalence": float(y.mean()),
        "order": list(policy.plan.order),
        "focus": policy.plan.focus,
        "stages": list(policy.plan.stages),
        "models": [m.to_dict() for m in policy.plan.models],
        "budget": policy.budget,
        "sentence": _sentence(curve, len(y), several=bool(policy.plan.models)),
        "promise": policy.promise(policy.active).sentence(),
        "certified_points": policy.certified_points,
        "curve": curve,
        "chosen": plain(asdict(found_stages)),
    }
    return report | {"deferral": _deferral(policy, probability, stages, y, _of(decided.stage), options)}


def _sentence(curve: list[dict[str, Any]], n: int, *, several: bool) -> str:
    """The chosen point against looking at every view, in words."""
    chosen, full = next(p for p in curve if p["chosen"]), curve[0]
    spent, images = f"{chosen['cost']['value']:.0%}", f"{n:,} images"
    did = f"spends {spent} of its full cost on {images}" if several else f"looks at {spent} of the views of {images}"
    said = f"At its operating point the cascade {did}"
    if "auroc" not in chosen:
        return f"{said}."
    values = [f"{p['auroc']['value']:.3f} [{p['auroc']['low']:.3f}, {p['auroc']['high']:.3f}]" for p in (chosen, full)]
    return f"{said}, with AUROC {values[0]} against {values[1]} at full cost."


def _of(values: Any) -> Any:
    if values is None:
        raise ValueError("the decisions do not come from a cascade")
    return values


def _deferral(
    policy: CascadePolicy,
    probability: FloatArray,
    stages: Mapping[str, FloatArray],
    y: IntArray,
    stop: IntArray,
    options: Mapping[str, Any],
) -> dict[str, Any] | None:
    """The first stage as the small model and all views as the large one; None where there is one stage."""
    if len(policy.plan.stages) < 2:
        return None
    first = policy.plan.calibrators[0](np.asarray(stages[policy.plan.names[0]], dtype=np.float64))
    small, large = (first >= 0.5) == (y == 1), (probability >= 0.5) == (y == 1)
    doubt = np.minimum(first, 1.0 - first)
    figures = deferral_figures(small, doubt, stop > 1, **options)
    share, whole = float(policy.plan.shares[0]), float(policy.plan.shares[-1])
    curve = deferral_curve(small, large, doubt, small_cost=share, large_cost=whole - share)
    found: dict[str, Any] = plain(asdict(figures))
    return found | {"quality": plain(curve.quality), "curve": _thin(curve)}


def _thin(curve: DeferralCurve, most: int = 51) -> dict[str, list[float]]:
    """The curve at even shares deferred: by doubt, at random, and by an oracle."""
    shares = np.linspace(0.0, 1.0, most)
    lines = {
        "by_doubt": np.interp(shares, curve.deferred, curve.accuracy),
        "at_random": np.interp(shares, curve.deferred, curve.random_accuracy),
        "oracle": np.interp(shares, curve.oracle_deferred, curve.oracle_accuracy),
    }
    return {"deferred": shares.tolist(), **{name: line.tolist() for name, line in lines.items()}}


def write_cascade(report: Mapping[str, Any], folder: Path) -> None:
    """Write ``cascade.json`` and ``cascade.png`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "cascade.png", plot_cascade(report).render()[0])
    write_json(folder / "cascade.json", dict(report))


def plot_cascade(report: Mapping[str, Any]) -> Plot:
    """AUROC and accuracy of every operating point against its mean cost, and the accuracy of each stage."""
    rows = report["curve"]
    stages = report["chosen"]["stages"]

    def draw(figure: Figure, colours: Palette) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(2, 1))
        cost = [row["cost"]["value"] for row in rows]
        for name, label, colour in (("auroc", "AUROC", colours.clear), ("accuracy", "accuracy", colours.roadwork)):
            if name not in rows[0] or rows[0][name]["value"] is None:
                continue
            low, value, high = ([row[name][end] for row in rows] for end in ("low", "value", "high"))
            if None not in (*low, *high):
                left.fill_between(cost, low, high, color=colour, alpha=0.15, linewidth=0)
            left.plot(cost, value, color=colour, marker="o", markersize=3, label=label)
        chosen = next(row for row in rows if row["chosen"])
        left.axvline(chosen["cost"]["value"], color=colours.muted, linestyle=":", label="chosen point")
        left.set(title="Accuracy against cost", xlabel="mean cost, share of all views", ylabel="on the test images")
        left.legend(loc="lower right")
        at = np.arange(len(stages))
        right.bar(at, [s["share"]["value"] for s in stages], color=colours.band, label="share of images")
        right.plot(at, [s["accuracy"]["value"] for s in stages], "o", color=colours.roadwork, label="accuracy")
        right.set(title="Where images stop", ylim=(0, 1.05), xlabel="stage")
        right.set_xticks(at, [str(s["stage"]) for s in stages])
        right.legend(loc="lower center")

    alt = f"Accuracy of a cascade against its mean cost at {len(rows)} operating points, and the share of each stage."
    return Plot("cascade", draw, (8.0, 3.4), alt)
