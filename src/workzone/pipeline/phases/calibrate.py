"""Phase calibrate: from the scores of each exported engine to probabilities, on a part of val_calib."""

from __future__ import annotations

from dataclasses import replace

from workzone.calibration.choice import choose, table
from workzone.config import RunConfig
from workzone.data.roles import CalibData
from workzone.decisions.uncertainty import embedding_variance
from workzone.decisions.uncertainty.names import EMBEDDING_VARIANCE
from workzone.files import write_json
from workzone.pipeline.phase import Context, PhaseSpec
from workzone.pipeline.phases.embedding import one_view_log_odds, open_variant, score_role
from workzone.pipeline.variants import ENGINE_KEYS, variants
from workzone.predictions import Predictions


def _run(context: Context) -> None:
    artifacts = context.artifacts
    data = context.open(CalibData)
    for variant in variants(context.config):
        engine = open_variant(context, variant)
        predictions, views = score_role(context, data, engine, variant)
        # Views are embedded here and not in phase decide, which compares this measure with the others.
        spread = {EMBEDDING_VARIANCE: embedding_variance(views.embeddings, views.mask)}
        predictions = replace(predictions, columns={**predictions.columns, **spread})
        predictions.save(artifacts.calibration_scores(variant))
        part, _ = calibration_parts(data.with_scores(predictions), context.config)
        settings, seed = context.config.calibrate, context.config.seed
        chosen = choose(part, settings, seed=seed)
        one_view = Predictions(ids=data.ids, log_odds=one_view_log_odds(context, views), labels=data.labels)
        small, _ = calibration_parts(data.with_scores(one_view), context.config)
        write_json(artifacts.calibrator(variant), chosen.best.to_dict())
        write_json(artifacts.one_view_calibrator(variant), choose(small, settings, seed=seed).best.to_dict())
        write_json(artifacts.calibration(variant), table(chosen, part, settings))
        context.progress.message(f"  {variant}: {chosen.best.name} on {len(part)} images, {part.n_positive} roadwork")


def calibration_parts(data: CalibData, config: RunConfig) -> tuple[CalibData, CalibData]:
    """The part for the calibrator and the part for the certificate; the same for phase calibrate and phase decide."""
    return data.disjoint_parts(config.calibrate.fraction, seed=config.seed)


SPEC = PhaseSpec(
    name="calibrate",
    version=4,
    config=("seed", "calibrate", *ENGINE_KEYS),
    inputs=lambda a, c: [a.manifest, a.splits, a.preprocessing, a.one_view_head, *(a.engine(v) for v in variants(c))],
    outputs=lambda a, c: [
        path
        for v in variants(c)
        for path in (a.calibration_scores(v), a.calibrator(v), a.one_view_calibrator(v), a.calibration(v))
    ],
    roles=(CalibData.role,),
    run=_run,
)
