"""Phase bundle: one verifiable folder per engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.bundle.cascade import stage_log_odds
from workzone.bundle.embedding import embed_files
from workzone.bundle.engines import open_engine
from workzone.bundle.write import BundleParts, write_bundle
from workzone.calibration import Calibrator
from workzone.decisions import Certificate, Policy, apply_policy
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.decisions.types import Decisions
from workzone.errors import CheckFailedError
from workzone.files import read_json, sha256_file, sha256_json
from workzone.pipeline.card import model_card
from workzone.pipeline.environment import environment, git_commit
from workzone.pipeline.phase import Context, PhaseSpec
from workzone.pipeline.phases.embedding import open_variant, read_preprocessing
from workzone.pipeline.phases.evaluate import read_decision
from workzone.pipeline.variants import ENGINE_KEYS, main_variant, variants
from workzone.predictions import FloatArray, pad_rows


def _run(context: Context) -> None:
    for variant in variants(context.config):
        target = _target(context, variant)
        write_bundle(bundle_parts(context, variant), target)
        context.progress.message(f"  {target}")


def _target(context: Context, variant: str) -> Path:
    a = context.artifacts
    return a.bundle if variant == main_variant(context.config) else a.variant_bundle(variant)


def bundle_parts(context: Context, variant: str) -> BundleParts:
    """Everything that the bundle of a variant is made of, read from the run."""
    config, a = context.config, context.artifacts
    name, _, precision = variant.partition("-")
    engine = open_engine(name, a.engine(variant), precision=precision)
    tolerance = config.export.tolerance if precision == "fp32" else config.export.int8_tolerance
    parity, images = _golden(context, variant, tolerance)
    metrics = read_json(a.metrics if variant == main_variant(config) else a.evaluate_variant(variant))
    certificate = read_json(a.certificate(variant))
    licence = read_json(a.train_metrics)["licence"]
    return BundleParts(
        name=config.out.name,
        engine=a.engine(variant),
        engine_name=name,
        precision=precision,
        backbone=config.model.backbone,
        embedding_dim=engine.embedding_dim,
        preprocessing=read_json(a.preprocessing),
        calibrator=read_json(a.calibrator(variant)),
        policy=read_json(a.policy(variant)),
        certificate=certificate,
        parity=parity,
        metrics=metrics,
        card=model_card(config, variant, metrics, Certificate.model_validate(certificate), licence),
        golden_images=images,
        compare_decisions=parity["images_away_from_thresholds"] > 0,
        tolerance=tolerance,
        lineage=_lineage(context, licence),
    )


def _golden(context: Context, variant: str, tolerance: float) -> tuple[dict[str, Any], list[Path]]:
    """Parity of decisions on the golden images, and those far enough from a threshold to hold on any processor."""
    config, a = context.config, context.artifacts
    stored = read_json(a.parity)
    calibrator, policy = read_decision(context, variant)

    names = list(stored["log_odds"])
    if isinstance(policy, CascadePolicy):
        names = [name for name in names if name != "torch"]
        files = [a.golden / name for name in stored["images"]]
        known = {name: _scores(context, name, policy, files) for name in names}
    else:
        rows = {name: (stored["log_odds"][name], pad_rows(stored["view_log_odds"][name])) for name in names}
        known = {name: _Scores(np.asarray(z, dtype=np.float64), views) for name, (z, views) in rows.items()}

    answers = {name: _answers(calibrator, policy, scores) for name, scores in known.items()}
    own, steady = steady_answers(answers[variant], tolerance)
    exact = [name for name in names if name == "torch" or name.endswith("fp32")]
    same = {name: bool(_same(answers[name](0.0), own)[steady].all()) for name in exact}
    if variant.endswith("fp32") and not all(same.values()):
        different = ", ".join(n for n, s in same.items() if not s)
        raise CheckFailedError(f"decisions on the golden images differ between {variant} and {different}")
    images = [a.golden / stored["images"][i] for i in golden_rows(steady, config.export.golden)]
    report = {
        "reference": "torch",
        "engine": variant,
        **stored["engines"][variant],
        "tolerance": tolerance,
        "images": len(steady),
        "images_away_from_thresholds": int(steady.sum()),
        "decisions_equal": same if variant.endswith("fp32") or "torch" not in same else {"torch": same["torch"]},
    }
    return report, images


def golden_rows(steady: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """At most ``count`` of the rows where ``steady`` (N,) is True, from first to last; of all rows where it never is.

    A network that ranks hardly anything may have no image away from its thresholds; its log-odds still prove it.
    """
    rows = np.flatnonzero(steady) if steady.any() else np.arange(len(steady))
    return np.asarray(rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)])


@dataclass(frozen=True, slots=True)
class _Scores:
    """Log-odds of images by one engine: of all views, of single views, and after the earlier stages of a cascade."""

    log_odds: FloatArray
    views: FloatArray
    stages: Mapping[str, FloatArray] | None = None


def _scores(context: Context, variant: str, policy: Policy, files: Sequence[Path]) -> _Scores:
    engine, pre = open_variant(context, variant), read_preprocessing(context)
    views = embed_files(files, engine, pre, max_pixels=context.config.compute.max_pixels)
    found = engine.aggregate(views.embeddings, views.boxes, views.mask)
    stages = stage_log_odds(engine, views, policy.plan) if isinstance(policy, CascadePolicy) else None
    return _Scores(found.log_odds, found.view_log_odds, stages)


def steady_answers(answer: Callable[[float], Decisions], tolerance: float) -> tuple[Decisions, NDArray[np.bool_]]:
    """Decisions of ``answer(shift)`` on scores as they are, and where they hold if all scores move by ``tolerance``.

    A stage more or less would be another score, so it counts as another answer.
    """
    own = answer(0.0)
    return own, _same(own, answer(-tolerance)) & _same(own, answer(tolerance))


def _same(one: Decisions, other: Decisions) -> NDArray[np.bool_]:
    same = one.codes == other.codes
    return np.asarray(same if one.stage is None else same & (one.stage == other.stage))


def _answers(calibrator: Calibrator, policy: Policy, scores: _Scores) -> Callable[[float], Decisions]:
    """Decisions on ``scores`` that are moved by a shift."""

    def answer(shift: float) -> Decisions:
        probability = calibrator(scores.log_odds + shift)
        if scores.stages is None:
            return apply_policy(policy, probability, scores.views + shift)
        return apply_policy(policy, probability, None, {key: z + shift for key, z in scores.stages.items()})

    return answer


def choose_golden(context: Context, variant: str, files: Sequence[Path], *, count: int, tolerance: float) -> list[Path]:
    """At most ``count`` of ``files``, of each decision in turn, that keep it where scores move by ``tolerance``."""
    calibrator, policy = read_decision(context, variant)
    scores = _scores(context, variant, policy, files)
    decided, steady = steady_answers(_answers(calibrator, policy, scores), tolerance)
    if not steady.any():
        raise CheckFailedError(f"none of {len(files)} images is away from the thresholds", fix="give more images")
    own = [np.flatnonzero(steady & (decided.codes == code)).tolist() for code in np.unique(decided.codes)]
    turns = [row for turn in zip_longest(*own) for row in turn if row is not None]
    return [files[row] for row in sorted(turns[:count])]


def _lineage(context: Context, licence: str) -> dict[str, Any]:
    config, a = context.config, context.artifacts
    record = read_json(a.record)
    return {
        # Without the keys that say where and how fast, which change no result.
        "config_sha256": sha256_json(config.model_dump(mode="json", exclude={"out", "tracking", "compute", "cache"})),
        "manifest_sha256": sha256_file(a.manifest),
        "split_sha256": sha256_file(a.splits),
        "seed": config.seed,
        "training": config.train.method,
        "aggregator": config.fuse.aggregator,
        "backbone_licence": licence,
        "val_test_opened": record["roles_opened"].get("val_test", 0),
        "git_commit": git_commit(),
        "environment": environment(),
    }


SPEC = PhaseSpec(
    name="bundle",
    version=1,
    config=(
        *ENGINE_KEYS,
        "export.golden",
        "export.tolerance",
        "export.int8_tolerance",
        "model",
        "views",
        "train.method",
        "fuse.aggregator",
        "seed",
    ),
    inputs=lambda a, c: [
        a.manifest,
        a.splits,
        a.preprocessing,
        a.parity,
        a.golden,
        a.train_metrics,
        a.metrics,
        *(a.evaluate_variant(v) for v in variants(c)[1:]),
        *(p for v in variants(c) for p in (a.engine(v), a.calibrator(v), a.policy(v), a.certificate(v))),
    ],
    outputs=lambda a, c: [a.bundle, *(a.variant_bundle(v) for v in variants(c)[1:])],
    roles=(),
    run=_run,
)
