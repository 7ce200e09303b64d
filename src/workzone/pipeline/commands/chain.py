"""A cascade of the bundles of several runs: planned and certified on their val_calib, measured on their val_test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from workzone.bundle.cascade import chain_log_odds
from workzone.bundle.chain import bound_parts
from workzone.bundle.chain_write import ChainParts, write_chain
from workzone.bundle.embedding import ViewEmbeddings, embed_files
from workzone.bundle.engines import Engine
from workzone.calibration import Calibrator
from workzone.config import RunConfig
from workzone.config.run import DecideConfig
from workzone.data.roles import CalibData, TestData
from workzone.decisions import Certificate, fit_policy, issue
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.decisions.types import Decisions
from workzone.errors import ConfigError
from workzone.files import read_json, sha256_file
from workzone.pipeline.cascade import plan_chain
from workzone.pipeline.commands.chain_card import chain_card
from workzone.pipeline.commands.chain_members import Member, certification_parts, look_cost, open_member, same_role
from workzone.pipeline.environment import environment, git_commit
from workzone.pipeline.phase import Progress
from workzone.pipeline.phases.bundle import golden_rows, steady_answers
from workzone.pipeline.phases.decide import rows_of, unfitted
from workzone.predictions import Predictions


@dataclass(frozen=True, slots=True)
class ChainOptions:
    """How a cascade of several bundles is made.

    Attributes:
        looks: views seen by each stage of each model; empty for the whole picture and all views by the first, and all
            views by the others.
        costs: of one look by each model, in any unit; empty to measure the time of one.
        mean: whether later models add to the score of earlier ones instead of replacing it.
        decide: keys of section ``decide``, over those of the last run.
    """

    looks: tuple[tuple[int, ...], ...] = ()
    costs: tuple[float, ...] = ()
    mean: bool = True
    decide: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ChainResult:
    """Where the cascade lies, its certificate, and what was measured."""

    bundle: Path
    certificate: Certificate
    sentence: str


def build_chain(runs: Sequence[Path], out: Path, options: ChainOptions, progress: Progress) -> ChainResult:
    """Make ``out/bundle`` and ``out/evaluate`` from the bundles of ``runs``, the cheapest model first.

    The calibrators of all stages and the operating points come from the images of val_calib that fitted the calibrator
    of any run; the certificate rests on those that fitted none. val_test is opened once, for the figures.

    Raises:
        ArtifactError: a run is not finished, or was changed since it made its bundle.
        DataError: the runs have other images, labels or splits, or too little is left for a certificate.
        ConfigError: stages, costs or keys that do not fit.
        BundleError: a bundle is not good, or ``out/bundle`` holds something else.
    """
    if len(runs) < 2:
        raise ConfigError("a cascade of models needs at least two runs", fix="name the run of the cheapest model first")
    members = [open_member(run, progress) for run in runs]
    last = members[-1].config
    config = last.model_copy(update={"decide": _decide(last.decide, options.decide or {})})
    data, first, second = certification_parts(members)
    progress.message(f"  {len(first)} images for calibrators and plan, {len(second)} for the certificate")
    parts = [m.embed(data) for m in members]
    costs = options.costs or tuple(look_cost(m.detector.engine) for m in members)
    looks = options.looks or _looks(parts)
    for what, given in (("costs", costs), ("stages", looks)):
        if len(given) != len(members):
            raise ConfigError(f"there are {len(members)} runs and {what} for {len(given)}", where=what)
    plan, calibrator = plan_chain(config, _rows(parts, data, first), first, looks, costs, mean=options.mean)
    settings = unfitted(CascadePolicy.name, config.decide.model_dump(), config.seed)
    assert isinstance(settings, CascadePolicy)
    policy = settings.with_plan(plan, config.decide.budget)
    stages, final = chain_log_odds(_rows(parts, data, second), plan)
    scored = replace(second, log_odds=final)
    policy = fit_policy(policy, calibrator, scored, calibration=first, uncertainty=stages)
    bound = bound_parts([m.detector for m in members])
    certificate = issue(
        policy,
        calibrator,
        calibration=first,
        certification=scored,
        split_sha256=sha256_file(members[-1].context.artifacts.splits),
        engine=bound["engine"],
        engine_sha256=bound["engine_sha256"],
        preprocessing_sha256=bound["preprocessing_sha256"],
    )
    progress.message("  " + " ".join(certificate.sentences()[:-1]))
    report, metrics = _evaluate(members, config, policy, calibrator, certificate, out, progress)
    images, steady, tolerance = _golden(members, policy, calibrator)
    write_chain(
        ChainParts(
            name=out.name,
            members=[m.context.artifacts.bundle for m in members],
            calibrator=calibrator.to_dict(),
            policy=policy.to_dict(),
            certificate=certificate.model_dump(mode="json"),
            metrics=metrics,
            card=chain_card(out.name, [m.detector.manifest for m in members], policy, report, certificate),
            golden_images=images,
            compare_decisions=steady,
            tolerance=tolerance,
            lineage=_lineage(members, costs),
        ),
        out / "bundle",
    )
    return ChainResult(out / "bundle", certificate, report["sentence"])


def _looks(parts: Sequence[tuple[Engine, ViewEmbeddings]]) -> tuple[tuple[int, ...], ...]:
    counts = [int(views.mask.shape[1]) for _, views in parts]
    return (tuple(sorted({1, counts[0]})), *((count,) for count in counts[1:]))


def _decide(base: DecideConfig, words: Mapping[str, Any]) -> DecideConfig:
    if "stages" in words or words.get("policy", CascadePolicy.name) != CascadePolicy.name:
        raise ConfigError(
            "the stages of several models are no key of the configuration, and their policy is a cascade",
            fix="name the stages with --stages, and leave decide.policy out",
        )
    if unknown := sorted(set(words) - set(DecideConfig.model_fields)):
        raise ConfigError(f"unknown configuration key 'decide.{unknown[0]}'", fix="see 'workzone config show'")
    values = {**base.model_dump(mode="json"), **words, "policy": CascadePolicy.name, "stages": ()}
    try:
        return DecideConfig.model_validate(values)
    except ValueError as error:
        what = f"a key of section decide cannot be used: {error}"
        raise ConfigError(what, fix="see 'workzone config show'") from error


def _rows(
    parts: Sequence[tuple[Engine, ViewEmbeddings]], data: CalibData, some: CalibData
) -> list[tuple[Engine, ViewEmbeddings]]:
    index = np.array(rows_of(data, some), dtype=np.int64)
    return [(engine, views.take(index)) for engine, views in parts]


def _evaluate(
    members: Sequence[Member],
    config: RunConfig,
    policy: CascadePolicy,
    calibrator: Calibrator,
    certificate: Certificate,
    out: Path,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write ``out/evaluate`` from the test images; returns the report of the cascade and the figures."""
    from workzone.evaluation.cascade import cascade_report, write_cascade
    from workzone.evaluation.evaluate import evaluate
    from workzone.evaluation.inputs import Evaluated
    from workzone.pipeline.phases.evaluate import save_scores

    data = same_role(members, TestData)
    parts = [m.embed(data) for m in members]
    stages, final = chain_log_odds(parts, policy.plan)
    p = calibrator(final)
    decided = policy.decide(p, stages)
    assert data.paths is not None
    columns = {**data.columns, "group": data.groups, "path": data.paths}
    evaluated = Evaluated(
        predictions=Predictions(ids=data.ids, log_odds=final, labels=data.labels, columns=columns),
        probability=decided.probability,
        decisions=decided,
        policy=policy.to_dict(),
        certificate=certificate,
        meta={
            "run": out.name,
            "data": config.data,
            "engine": certificate.engine,
            "backbone": " > ".join(m.config.model.backbone for m in members),
        },
    )
    settings, folder = config.evaluate, out / "evaluate"
    report = cascade_report(
        policy,
        p,
        stages,
        evaluated.labels,
        evaluated.groups if settings.by_group else evaluated.predictions.ids,
        n_resamples=settings.resamples,
        level=settings.level,
        seed=config.seed,
    )
    with progress.bar("figures and report"):
        write_cascade(report, folder)
        save_scores(folder / "predictions.parquet", evaluated.predictions, decided)
        summary = evaluate(evaluated, settings, folder, seed=config.seed)
    return report, summary.to_dict()


def _golden(
    members: Sequence[Member], policy: CascadePolicy, calibrator: Calibrator
) -> tuple[list[Path], bool, float]:
    """Golden images of the last run whose answers hold when every score moves by the tolerance, whether there are any
    such, and the tolerance."""
    last = members[-1]
    folder = last.context.artifacts.golden
    images = [folder / name for name in read_json(last.context.artifacts.parity)["images"]]
    parts = []
    for member in members:
        pre, engine = member.detector.preprocessing, member.detector.engine
        parts.append((engine, embed_files(images, engine, pre, max_pixels=member.config.compute.max_pixels)))
    stages, final = chain_log_odds(parts, policy.plan)
    export = [m.config.export for m in members]
    tolerance = max(e.tolerance if e.precision == "fp32" else e.int8_tolerance for e in export)

    def answer(shift: float) -> Decisions:
        return policy.decide(calibrator(final + shift), {name: z + shift for name, z in stages.items()})

    _, steady = steady_answers(answer, tolerance)
    return [images[i] for i in golden_rows(steady, last.config.export.golden)], bool(steady.any()), tolerance


def _lineage(members: Sequence[Member], costs: Sequence[float]) -> dict[str, Any]:
    return {
        "members": [m.detector.manifest.lineage for m in members],
        "cost_of_a_look": [float(c) for c in costs],
        "val_test_opened": 1,
        "git_commit": git_commit(),
        "environment": environment(),
    }
