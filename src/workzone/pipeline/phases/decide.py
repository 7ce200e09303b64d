"""Phase decide: fit the one policy on the other part of val_calib and issue the certificate, for each engine."""

from __future__ import annotations

import inspect

from workzone import calibration, decisions
from workzone.bundle.schema import hash_engine
from workzone.config import RunConfig
from workzone.data.roles import CalibData
from workzone.decisions import POLICIES, Policy, fit_policy, issue
from workzone.decisions.uncertainty import from_views
from workzone.errors import ConfigError
from workzone.files import read_json, sha256_file, sha256_json, write_json
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.phase import Context, PhaseSpec
from workzone.pipeline.phases.calibrate import calibration_parts
from workzone.pipeline.variants import ENGINE_KEYS, variants
from workzone.predictions import FloatArray, Predictions


def _run(context: Context) -> None:
    artifacts = context.artifacts
    data = context.open(CalibData)
    for variant in variants(context.config):
        predictions = Predictions.load(artifacts.calibration_scores(variant))
        first, second = calibration_parts(data.with_scores(predictions), context.config)
        calibrator = calibration.from_dict(read_json(artifacts.calibrator(variant)))
        policy = fit_policy(
            make_policy(context.config),
            calibrator,
            second,
            calibration=first,
            uncertainty=measures(predictions, second, calibrator(second.scores)),
        )
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
        context.progress.message(f"  {variant}: " + " ".join(certificate.sentences()[:-1]))


def make_policy(config: RunConfig) -> Policy:
    """The unfitted policy of the configuration."""
    chosen = config.decide
    known = inspect.signature(POLICIES[chosen.policy]).parameters
    if chosen.unit == "group" and chosen.policy != "argmax" and "unit" not in known:
        raise ConfigError(
            f"policy {chosen.policy!r} makes its promise about images only",
            where="decide.unit=group",
            fix="use decide.unit=image, or one of the policies threshold, crc, lac, mondrian, aps",
        )
    return decisions.create(chosen.policy, **{k: v for k, v in chosen.model_dump().items() if k in known})


def measures(predictions: Predictions, data: CalibData, probability: FloatArray) -> dict[str, FloatArray] | None:
    """Uncertainty measures of the images of ``data``, None where the views were not scored."""
    if predictions.view_log_odds is None:
        return None
    row = {image_id: i for i, image_id in enumerate(predictions.ids.tolist())}
    order = [row[image_id] for image_id in data.ids.tolist()]
    return from_views(probability, predictions.view_log_odds[order])


def engine_files(artifacts: Artifacts, variant: str) -> dict[str, str]:
    """Hash of each file of an exported network, named as in the bundle."""
    return {f"engine/{p.name}": sha256_file(p) for p in sorted(artifacts.engine(variant).iterdir()) if p.is_file()}


SPEC = PhaseSpec(
    name="decide",
    version=1,
    config=("seed", "decide", "calibrate.fraction", *ENGINE_KEYS),
    inputs=lambda a, c: [
        a.splits,
        a.preprocessing,
        *(p for v in variants(c) for p in (a.engine(v), a.calibration_scores(v), a.calibrator(v))),
    ],
    outputs=lambda a, c: [p for v in variants(c) for p in (a.policy(v), a.certificate(v))],
    roles=(CalibData.role,),
    run=_run,
)
