"""Phase evaluate: the only one that opens val_test; figures with intervals, slices, plots and the report."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from workzone import __version__, calibration, decisions
from workzone.calibration import Calibrator
from workzone.data.roles import TestData
from workzone.decisions import Certificate, Policy
from workzone.files import read_json, write_json
from workzone.pipeline.phase import Context, PhaseSpec
from workzone.pipeline.phases.embedding import one_view_log_odds, open_variant, score_role
from workzone.pipeline.tracking import track
from workzone.pipeline.variants import ENGINE_KEYS, main_variant, variants
from workzone.predictions import Predictions

if TYPE_CHECKING:
    from workzone.evaluation.summary import Summary


def _run(context: Context) -> None:
    from workzone.evaluation.evaluate import evaluate
    from workzone.evaluation.inputs import Evaluated, OneView
    from workzone.evaluation.summary import summarise

    config, artifacts = context.config, context.artifacts
    # Figures of variants and slices that are no longer asked for must not stay beside the new ones.
    shutil.rmtree(artifacts.evaluate, ignore_errors=True)
    data = context.open(TestData)
    for variant in reversed(variants(config)):
        predictions, views = score_role(context, data, open_variant(context, variant), variant)
        calibrator, policy = read_decision(context, variant)
        probability = calibrator(predictions.log_odds)
        small = one_view_log_odds(context, views)
        small_p = calibration.from_dict(read_json(artifacts.one_view_calibrator(variant)))(small)
        evaluated = Evaluated(
            predictions=predictions,
            probability=probability,
            decisions=decisions.apply_policy(policy, probability, predictions.view_log_odds),
            policy=policy.to_dict(),
            one_view=OneView(small, small_p, decisions.apply_policy(policy, small_p, small[:, None])),
            calibrators=read_json(artifacts.calibration(variant))["methods"],
            certificate=Certificate.model_validate(read_json(artifacts.certificate(variant))),
            meta=_meta(context, variant),
        )
        if variant != main_variant(config):
            summary = summarise(evaluated, config.evaluate, seed=config.seed, progress=lambda _: None)
            write_json(artifacts.evaluate_variant(variant), summary.to_dict())
            continue
        _save_scores(artifacts.test_scores, predictions, probability, evaluated.decisions)
        with context.progress.bar("figures and report") as advance:
            steps = [0]

            def step(_: str, steps: list[int] = steps) -> None:
                steps[0] += 1
                advance(min(steps[0], 19), 20)

            summary = evaluate(evaluated, config.evaluate, artifacts.evaluate, seed=config.seed, progress=step)
            advance(20, 20)
        track(config, artifacts.tracking, context.spec.name, figures=_figures(summary))


def _figures(summary: Summary) -> dict[str, float]:
    values = {f"{name}/{key}": v.value for name, s in summary.systems.items() for key, v in s.natural.items()}
    return {key: float(value) for key, value in values.items() if np.isfinite(value)}


def read_decision(context: Context, variant: str) -> tuple[Calibrator, Policy]:
    """Calibrator and policy of a variant."""
    a = context.artifacts
    return calibration.from_dict(read_json(a.calibrator(variant))), decisions.from_dict(read_json(a.policy(variant)))


def _save_scores(path: Any, predictions: Predictions, probability: Any, decided: decisions.Decisions) -> None:
    names = np.array([decisions.types.NAMES[int(c)] for c in decided.codes])
    columns = {**predictions.columns, "probability": probability, "decision": names}
    replace(predictions, columns=columns).save(path)


def _meta(context: Context, variant: str) -> dict[str, Any]:
    config = context.config
    return {
        "run": config.out.name,
        "data": config.data,
        "engine": variant,
        "backbone": config.model.backbone,
        "training": config.train.method,
        "aggregator": config.fuse.aggregator,
        "views": config.views.model_dump(mode="json"),
        "seed": config.seed,
        "version": __version__,
    }


SPEC = PhaseSpec(
    name="evaluate",
    version=1,
    config=(
        "seed",
        "evaluate",
        *ENGINE_KEYS,
        # Named in the report.
        "data",
        "views",
        "model.backbone",
        "train.method",
        "fuse.aggregator",
    ),
    inputs=lambda a, c: [
        a.manifest,
        a.splits,
        a.preprocessing,
        a.one_view_head,
        *(p for v in variants(c) for p in (a.engine(v), a.calibrator(v), a.one_view_calibrator(v), a.calibration(v))),
        *(p for v in variants(c) for p in (a.policy(v), a.certificate(v))),
    ],
    outputs=lambda a, c: [a.evaluate],
    roles=(TestData.role,),
    run=_run,
)
