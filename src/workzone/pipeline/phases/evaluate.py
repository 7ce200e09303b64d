"""Phase evaluate: the only one that opens val_test; figures with intervals, slices, plots and the report."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from workzone import __version__, calibration, decisions
from workzone.bundle.cascade import stage_log_odds
from workzone.bundle.runtime import Decider
from workzone.calibration import Calibrator
from workzone.data.roles import TestData
from workzone.decisions import Certificate, Policy
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.files import read_json, write_json
from workzone.pipeline.overlay import overlay_of
from workzone.pipeline.phase import Context, PhaseSpec
from workzone.pipeline.phases.embedding import one_view_log_odds, open_variant, read_preprocessing, score_role
from workzone.pipeline.tracking import track
from workzone.pipeline.variants import ENGINE_KEYS, main_variant, variants
from workzone.predictions import FloatArray, Predictions

if TYPE_CHECKING:
    from workzone.evaluation.inputs import Evaluated
    from workzone.evaluation.summary import Summary


def _run(context: Context) -> None:
    from workzone.evaluation.cascade import cascade_report, write_cascade
    from workzone.evaluation.evaluate import evaluate
    from workzone.evaluation.inputs import Evaluated, OneView
    from workzone.evaluation.selective import policy_confidence
    from workzone.evaluation.summary import summarise

    config, artifacts = context.config, context.artifacts
    # Figures of variants and slices that are no longer asked for must not stay beside the new ones.
    shutil.rmtree(artifacts.evaluate, ignore_errors=True)
    data = context.open(TestData)
    others: dict[str, FloatArray] = {}
    for variant in reversed(variants(config)):
        engine = open_variant(context, variant)
        predictions, views = score_role(context, data, engine, variant)
        calibrator, policy = read_decision(context, variant)
        probability = calibrator.on(predictions.log_odds, predictions.columns)
        cascade = policy if isinstance(policy, CascadePolicy) else None
        stages = None if cascade is None else stage_log_odds(engine, views, cascade.plan)
        decided = decisions.apply_policy(policy, probability, predictions.view_log_odds, stages)
        small = one_view_log_odds(context, views)
        small_calibrator = calibration.from_dict(read_json(artifacts.one_view_calibrator(variant)))
        small_p = small_calibrator.on(small, predictions.columns)
        stored = read_json(artifacts.calibration(variant))
        certificate = Certificate.model_validate(read_json(artifacts.certificate(variant)))
        parts = (read_preprocessing(context), engine, calibrator, policy, certificate)
        decider = Decider(artifacts.engine(variant), *parts)
        evaluated = Evaluated(
            predictions=predictions,
            # Of a cascade: the probability of the stage where the image stopped, by which its images are ranked.
            probability=decided.probability,
            decisions=decided,
            policy=policy.to_dict(),
            # The thresholds of a cascade belong to its own stages, not to the head that is trained to look once.
            one_view=OneView(
                small,
                small_p,
                None if cascade is not None else decisions.apply_policy(policy, small_p, small[:, None]),
            ),
            calibrators=stored["methods"],
            calibrated={
                row["name"]: calibration.from_dict(row["fitted"]).on(predictions.log_odds, predictions.columns)
                for row in stored["methods"]
                if row["fitted"] is not None
            },
            calibration_note=calibration_note(stored),
            confidence=policy_confidence(policy, probability, predictions.view_log_odds),
            # The main variant comes last, when all others are known; they are compared once, on its page.
            others=dict(reversed(others.items())) if variant == main_variant(config) else {},
            uncertainty=read_json(artifacts.uncertainty(variant)),
            certificate=certificate,
            meta=_meta(context, variant),
            overlay=overlay_of(decider),
        )
        if variant != main_variant(config):
            summary = summarise(evaluated, config.evaluate, seed=config.seed, progress=lambda _: None)
            write_json(artifacts.evaluate_variant(variant), summary.to_dict())
            others[variant] = probability
            continue
        save_scores(artifacts.test_scores, predictions, evaluated.decisions)
        if cascade is not None and stages is not None:
            groups = evaluated.groups if config.evaluate.by_group else predictions.ids
            report = cascade_report(
                cascade,
                probability,
                stages,
                evaluated.labels,
                groups,
                n_resamples=config.evaluate.resamples,
                level=config.evaluate.level,
                seed=config.seed,
            )
            write_cascade(report, artifacts.evaluate)
        _robustness(context, evaluated, decider)
        with context.progress.bar("figures and report") as advance:
            steps = [0]

            def step(_: str, steps: list[int] = steps) -> None:
                steps[0] += 1
                advance(min(steps[0], 19), 20)

            summary = evaluate(evaluated, config.evaluate, artifacts.evaluate, seed=config.seed, progress=step)
            advance(20, 20)
        track(config, artifacts.tracking, context.spec.name, figures=_figures(summary))


def _robustness(context: Context, evaluated: Evaluated, decider: Decider) -> None:
    """Changed pictures of some test images; the report that is written next shows what is found."""
    from workzone.evaluation.changes import corruption_changes, streetvision_changes
    from workzone.evaluation.figures import Draws
    from workzone.evaluation.report.robustness import write_robustness
    from workzone.evaluation.robustness import robustness
    from workzone.pipeline.external import picture_scorer

    settings, seed = context.config.evaluate, context.config.seed
    if not settings.robustness:
        return
    draws = Draws(settings.resamples, settings.interval, settings.level, settings.by_group, seed)
    score = picture_scorer(decider, workers=context.config.compute.workers)
    changes = (*corruption_changes(levels=settings.robustness_levels), *streetvision_changes())
    with context.progress.bar("changed pictures") as advance:
        found = robustness(
            evaluated, score, n=settings.robustness, draws=draws, seed=seed, changes=changes, progress=advance
        )
    write_robustness(found, context.artifacts.evaluate)


def calibration_note(stored: Mapping[str, Any]) -> str:
    """On which images, and how, the calibrators were compared."""
    n, roadwork = stored["n"], stored["n_positive"]
    how = f"in {stored['folds']} folds, {stored['repeats']} times" if stored["folds"] else "without folds"
    return (
        f"Measured out of fold ({how}) on {n:,} calibration images, {roadwork:,} with roadwork, never on those of this "
        "report; the last columns show each, fitted on all calibration images, on the images of this report."
    )


def _figures(summary: Summary) -> dict[str, float]:
    values = {f"{name}/{key}": v.value for name, s in summary.systems.items() for key, v in s.natural.items()}
    return {key: float(value) for key, value in values.items() if np.isfinite(value)}


def read_decision(context: Context, variant: str) -> tuple[Calibrator, Policy]:
    """Calibrator and policy of a variant."""
    a = context.artifacts
    return calibration.from_dict(read_json(a.calibrator(variant))), decisions.from_dict(read_json(a.policy(variant)))


def save_scores(path: Any, predictions: Predictions, decided: decisions.Decisions) -> None:
    """Write what was scored and decided, one row per image."""
    names = np.array([decisions.types.NAMES[int(c)] for c in decided.codes])
    columns = {**predictions.columns, "probability": decided.probability, "decision": names}
    if decided.stage is not None and decided.cost is not None:
        columns |= {"stage": decided.stage, "cost": decided.cost}
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
    version=3,
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
        *(p for v in variants(c) for p in (a.policy(v), a.certificate(v), a.uncertainty(v))),
    ],
    outputs=lambda a, c: [a.evaluate],
    roles=(TestData.role,),
    run=_run,
)
