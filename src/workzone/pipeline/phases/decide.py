"""Phase decide: fit the one policy on the other part of val_calib and issue the certificate, for each engine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from workzone import calibration, decisions
from workzone.bundle.cascade import stage_log_odds
from workzone.bundle.schema import hash_engine
from workzone.calibration import Calibrator
from workzone.config import RunConfig
from workzone.data.roles import CalibData
from workzone.decisions import Policy, fit_policy, issue
from workzone.decisions.failure import FailureModel, FitMistakes, compare_measures
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.decisions.policies.gate import GatePolicy
from workzone.decisions.policies.scrc import SelectivePolicy
from workzone.decisions.uncertainty import from_views
from workzone.decisions.uncertainty.names import EMBEDDING_VARIANCE, MAX_PROBABILITY
from workzone.files import read_json, sha256_file, sha256_json, write_json
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.cascade import plan_cascade
from workzone.pipeline.phase import Context, PhaseSpec
from workzone.pipeline.phases.calibrate import calibration_parts
from workzone.pipeline.phases.embedding import embed_role, open_variant
from workzone.pipeline.variants import ENGINE_KEYS, variants
from workzone.predictions import FloatArray, Predictions


def _run(context: Context) -> None:
    artifacts = context.artifacts
    data = context.open(CalibData)
    for variant in variants(context.config):
        predictions = Predictions.load(artifacts.calibration_scores(variant))
        first, second = calibration_parts(data.with_scores(predictions), context.config)
        calibrator = calibration.from_dict(read_json(artifacts.calibrator(variant)))
        p = calibrator.apply(second)
        measured = measures(predictions, second, p)
        policy, given = make_policy(context.config), measured
        if isinstance(policy, CascadePolicy):
            policy, given = plan_policy(context, data, variant, policy, calibrator, first, second)
        policy = fit_policy(policy, calibrator, second, calibration=first, uncertainty=given)
        name, _, precision = variant.partition("-")
        certificate = issue(
            policy,
            calibrator,
            calibration=first,
            certification=second,
            engine=variant,
            engine_sha256=hash_engine(name, precision, engine_files(artifacts, variant)),
            preprocessing_sha256=sha256_json(read_json(artifacts.preprocessing)),
            split_sha256=sha256_file(artifacts.splits),
        )
        write_json(artifacts.policy(variant), policy.to_dict())
        write_json(artifacts.certificate(variant), certificate.model_dump(mode="json"))
        table = compare_uncertainty(predictions, second, p, measured, policy, seed=context.config.seed)
        write_json(artifacts.uncertainty(variant), table)
        context.progress.message(f"  {variant}: " + " ".join(certificate.sentences()[:-1]))


def make_policy(config: RunConfig) -> Policy:
    """The unfitted policy of the configuration."""
    return unfitted(config.decide.policy, config.decide.model_dump(), config.seed)


def unfitted(name: str, settings: Mapping[str, Any], seed: int) -> Policy:
    """A policy with those of ``settings`` that it knows; ``seed`` is that of the network of a gate."""
    wants_network = name == GatePolicy.name and settings.get("gate_model") == "mlp"
    return decisions.unfitted(name, settings, **({"fit_model": network(seed)} if wants_network else {}))


def plan_policy(
    context: Context,
    data: CalibData,
    variant: str,
    policy: CascadePolicy,
    calibrator: Calibrator,
    first: CalibData,
    second: CalibData,
) -> tuple[CascadePolicy, dict[str, FloatArray]]:
    """The cascade planned on ``first``, not yet certified, and the log-odds of its stages on ``second``.

    The views come from the cache of embeddings that phase calibrate filled.
    """
    engine = open_variant(context, variant)
    views = embed_role(context, data, engine, f"export/{variant}")
    one, two = (np.array(rows_of(data, part), dtype=np.int64) for part in (first, second))
    plan = plan_cascade(context.config, engine, first, views.take(one), calibrator)
    return policy.with_plan(plan, context.config.decide.budget), stage_log_odds(engine, views.take(two), plan)


def network(seed: int) -> FitMistakes:
    """What trains the network of the failure gate."""
    from workzone.training.gate import fit_mlp

    return partial(fit_mlp, seed=seed)


def compare_uncertainty(
    predictions: Predictions,
    data: CalibData,
    probability: FloatArray,
    measured: dict[str, FloatArray] | None,
    policy: Policy,
    *,
    seed: int,
) -> dict[str, Any]:
    """The table of ``compare_measures`` on the images of ``data``, with what ``policy`` uses marked as chosen.

    ``policy`` is its name, ``gate`` its own comparison where it is a failure gate: that one rests on half of the
    images, as the promise needs the other half, and decides. The table is made after the fact and changes nothing.
    """
    about = {"policy": policy.name, "gate": None}
    if measured is None:
        sentence = "The views were not scored, so there is nothing to compare."
        return {**about, "n": len(data), "used": MAX_PROBABILITY, "sentence": sentence, "rows": []}
    used = MAX_PROBABILITY
    if isinstance(policy, SelectivePolicy):
        used = policy.select_by
    elif isinstance(policy, GatePolicy) and policy.comparison is not None:
        about["gate"] = policy.comparison.sentence()
        used = MAX_PROBABILITY if policy.model is None else f"{policy.gate_model} gate"
    shown = dict(measured)
    if EMBEDDING_VARIANCE in predictions.columns:
        shown[EMBEDDING_VARIANCE] = predictions.columns[EMBEDDING_VARIANCE][rows_of(predictions, data)].astype(float)
    # Sums in another order round differently; the result belongs to the images, not to their order.
    order = np.argsort(data.ids)
    table = compare_measures(
        {name: values[order] for name, values in shown.items()},
        ((probability >= 0.5) != (data.labels == 1))[order],
        data.groups[order],
        models={"logistic": FailureModel.fit, "mlp": network(seed)},
        inputs=tuple(measured),
        used=used,
    )
    return {**about, **table}


def measures(predictions: Predictions, data: CalibData, probability: FloatArray) -> dict[str, FloatArray] | None:
    """Uncertainty measures of the images of ``data``, None where the views were not scored."""
    if predictions.view_log_odds is None:
        return None
    return from_views(probability, predictions.view_log_odds[rows_of(predictions, data)])


def rows_of(whole: Predictions | CalibData, data: CalibData) -> list[int]:
    """Row in ``whole`` of each image of ``data``."""
    row = {image_id: i for i, image_id in enumerate(whole.ids.tolist())}
    return [row[image_id] for image_id in data.ids.tolist()]


def engine_files(artifacts: Artifacts, variant: str) -> dict[str, str]:
    """Hash of each file of an exported network, named as in the bundle."""
    return {f"engine/{p.name}": sha256_file(p) for p in sorted(artifacts.engine(variant).iterdir()) if p.is_file()}


SPEC = PhaseSpec(
    name="decide",
    version=3,
    config=("seed", "decide", "calibrate.fraction", *ENGINE_KEYS),
    inputs=lambda a, c: [
        *([a.manifest] if c.decide.policy == CascadePolicy.name else []),
        a.splits,
        a.preprocessing,
        *(p for v in variants(c) for p in (a.engine(v), a.calibration_scores(v), a.calibrator(v))),
    ],
    outputs=lambda a, c: [p for v in variants(c) for p in (a.policy(v), a.certificate(v), a.uncertainty(v))],
    roles=(CalibData.role,),
    run=_run,
)
