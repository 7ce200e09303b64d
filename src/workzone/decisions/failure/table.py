"""Every measure and every model of mistakes against max-probability, on the same held-out images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.decisions.failure.comparison import FEWEST, RESAMPLES, SEED, out_of_fold
from workzone.decisions.failure.logistic import FailureModel
from workzone.decisions.failure.model import FitMistakes
from workzone.decisions.uncertainty.names import CERTAINTY, MAX_PROBABILITY, MEASURES
from workzone.predictions import FloatArray, StrArray

MODELS: Mapping[str, FitMistakes] = {"logistic": FailureModel.fit}
_MOST_WEIGHTS = 2_000_000
"""Resampled weights in all: beyond this many images there are fewer resamples, so that the table stays cheap."""
_FIGURES = ("auroc", "auprc", "augrc")


def compare_measures(
    measures: Mapping[str, FloatArray],
    wrong: NDArray[np.bool_],
    groups: StrArray,
    *,
    models: Mapping[str, FitMistakes] = MODELS,
    inputs: tuple[str, ...] | None = None,
    used: str | None = None,
) -> dict[str, Any]:
    """How well each measure, and each model of mistakes out of fold, finds the wrong answers.

    Figures: AUROC and average precision of finding mistakes, and AUGRC, where less is better. Intervals are 95 %
    percentile bootstrap over groups; one set of draws serves all rows, so differences are paired. Models are fitted out
    of fold by group once, not in every draw.

    Args:
        measures: (N,) arrays by name; ``max_probability`` is the reference and must be among them. A name of your own
            is compared as well, must rise with doubt, and is not read by the models.
        wrong: (N,) whether the answer was wrong.
        groups: (N,) whole groups are drawn and kept in one fold.
        models: how to fit models of mistakes, by name.
        inputs: measures that the models read; all where None.
        used: row that decides; where None the best model that is better beyond its interval, else max-probability.

    Returns:
        ``n``, ``mistakes``, ``groups``, ``resamples``, ``inputs``, ``used``, ``sentence`` and ``rows``. A row has
        ``name``, ``kind`` ("measure" or "model"), ``auroc``, ``auprc``, ``augrc`` (each ``value``, ``low``, ``high``),
        ``difference`` (the same three, to max-probability), ``better`` (AUROC beyond its interval), ``chosen``,
        ``sentence``. Figures are null, ``rows`` is empty, where there are fewer than ``FEWEST`` mistakes or right ones.

    Raises:
        ValueError: ``max_probability`` is missing, or ``used`` is no row.
    """
    from workzone.metrics.resampling import group_weights  # the predict path imports this module

    if MAX_PROBABILITY not in measures:
        raise ValueError(f"{MAX_PROBABILITY!r} is the reference and must be among the measures")
    ours = [name for name in MEASURES if name in measures]
    known = [*ours, *(name for name in measures if name not in MEASURES)]
    read = tuple(name for name in ours if inputs is None or name in inputs)
    n, mistakes = len(wrong), int(wrong.sum())
    head = {"n": n, "mistakes": mistakes, "groups": len(np.unique(groups)), "inputs": list(read)}
    if min(mistakes, n - mistakes) < FEWEST:
        sentence = (
            f"With {mistakes} mistakes and {n - mistakes} right answers in {n} images, measures of uncertainty are not "
            f"compared: at least {FEWEST} of each are needed."
        )
        return {**head, "resamples": 0, "used": used or MAX_PROBABILITY, "sentence": sentence, "rows": []}
    trust = {name: measures[name] if name in CERTAINTY else -measures[name] for name in known}
    kinds = dict.fromkeys(known, "measure")
    x = np.column_stack([measures[name] for name in read])
    for name, fit in models.items():
        score = out_of_fold(read, x, wrong, groups, fit)
        if score is not None:
            trust[f"{name} gate"], kinds[f"{name} gate"] = -score, "model"
    if used is not None and used not in trust:
        raise ValueError(f"used is {used!r}, which is none of the rows {', '.join(trust)}")
    resamples = int(np.clip(_MOST_WEIGHTS // n, 200, RESAMPLES))
    weights = group_weights(groups, resamples, SEED)
    found = {name: _figures(wrong, value, weights) for name, value in trust.items()}
    rows = [_row(name, kinds[name], found[name], found[MAX_PROBABILITY]) for name in trust]
    winners = [r for r in rows if r["kind"] == "model" and r["better"]]
    best = max(winners, key=lambda r: float(r["auroc"]["value"]))["name"] if winners else MAX_PROBABILITY
    chosen = best if used is None else used
    for row in rows:
        row["chosen"] = row["name"] == chosen
        row["sentence"] = _sentence(row, mistakes)
    sentence = f"Of {n} images {mistakes} were answered wrongly. " + _verdict(rows, best)
    return {**head, "resamples": resamples, "used": chosen, "sentence": sentence, "rows": rows}


def _figures(wrong: NDArray[np.bool_], trust: FloatArray, weights: NDArray[np.int64]) -> FloatArray:
    """AUROC, average precision and AUGRC (3, 1 + B); the first column is the sample itself."""
    from workzone.metrics.sample import Rows, Sample  # the predict path imports this module
    from workzone.metrics.selective import augrc_rows, auprc_f_rows, auroc_f_rows

    sample = Sample(np.ones(len(wrong), dtype=np.int64), np.zeros(len(wrong)), ~wrong, trust)
    weights = weights[:, sample.order]
    step = max(1, 200_000 // len(wrong))
    parts = []
    for start in range(0, len(weights), step):
        rows = Rows(sample, weights[start : start + step])
        parts.append(np.stack([auroc_f_rows(rows), auprc_f_rows(rows), augrc_rows(rows)]))
    return np.concatenate(parts, axis=1)


def _row(name: str, kind: str, found: FloatArray, plain: FloatArray) -> dict[str, Any]:
    values = {key: _interval(found[i]) for i, key in enumerate(_FIGURES)}
    difference = {key: _interval(found[i] - plain[i]) for i, key in enumerate(_FIGURES)}
    # Two measures of one ranking, such as entropy and max-probability, differ by rounding.
    better = difference["auroc"]["low"] > 1e-9
    return {"name": name, "kind": kind, **values, "difference": difference, "better": better}


def _interval(values: FloatArray) -> dict[str, float]:
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def _sentence(row: Mapping[str, Any], mistakes: int) -> str:
    name, a, d = str(row["name"]).replace("_", " "), row["auroc"], row["difference"]["auroc"]
    text = f"{name} finds mistakes with AUROC {a['value']:.3f} ({a['low']:.3f} to {a['high']:.3f}; {mistakes} mistakes)"
    if row["name"] == MAX_PROBABILITY:
        return f"{text}; it is the reference."
    against = f"{d['value']:+.3f} against max-probability, 95 % interval {d['low']:+.3f} to {d['high']:+.3f}"
    verdict = "better beyond the interval" if row["better"] else "not better beyond the interval"
    return f"{text}, {against}: {verdict}."


def _verdict(rows: list[dict[str, Any]], best: str) -> str:
    models = [r for r in rows if r["kind"] == "model"]
    if best != MAX_PROBABILITY:
        return f"The {best} finds them better than max-probability beyond the interval of the difference."
    if not models:
        return "No failure gate was compared."
    names = " or ".join(str(r["name"]) for r in models)
    return f"No gate ({names}) finds them better than max-probability beyond the interval of the difference."
