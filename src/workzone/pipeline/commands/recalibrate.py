"""A bundle in another engine or on other images: the network stays, calibrator, thresholds and certificate are new.

A certificate rests on the scores of one engine and on images of one population. Whoever has a bundle and labelled
images of their own, but not the run, gets both anew here.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workzone.bundle import schema
from workzone.bundle.embedding import EmbeddingCache, default_cache_folder, embed_images
from workzone.bundle.engines import Engine, Scores, network_files, open_engine
from workzone.bundle.parallel import embed_views
from workzone.bundle.runtime import Detector
from workzone.bundle.slices import unknown_slices
from workzone.bundle.write import BundleParts, write_bundle
from workzone.calibration.select import select
from workzone.calibration.slices import PerSliceCalibrator
from workzone.config.deciding import CalibrateConfig
from workzone.config.load import load_config
from workzone.config.run import ExportConfig
from workzone.data.manifest import Manifest
from workzone.data.roles import CalibData, Role
from workzone.data.sources.build import build_manifest
from workzone.data.splits import Splits, make_splits, open_role
from workzone.decisions import Certificate, Policy, apply_policy, fit_policy, issue
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.errors import BundleError, CheckFailedError, ConfigError, LeakageError
from workzone.files import sha256_file, sha256_json
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.card import opening
from workzone.pipeline.phase import Progress
from workzone.pipeline.phases.decide import measures, unfitted
from workzone.pipeline.phases.export import convert, range_views
from workzone.predictions import Predictions
from workzone.vision import Preprocessing, open_views
from workzone.vision.decode import MAX_PIXELS

_BASE = ("onnxruntime", "fp32")


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """What came of it: the certificate, and how far the engine is from the one of the source bundle."""

    certificate: Certificate
    largest_difference: float
    n: int


def recalibrate(
    source: Path,
    data: Path,
    out: Path,
    *,
    engine: str,
    precision: str,
    seed: int = 0,
    threads: int = 0,
    progress: Progress,
) -> Recalibrated:
    """Write to ``out`` the bundle in ``source`` with another engine, calibrated and certified on ``data``.

    About half of the images, by whole groups, choose and fit the calibrator and set the ranges of int8; the others
    certify. The policy keeps its kind and its targets.

    Args:
        source: a bundle of onnxruntime-fp32, of the engine asked for, or the folder of a run.
        data: labelled images (folder, table or manifest) that the network has not been trained or chosen on.
        out: new folder.
        engine: ``onnxruntime`` or ``openvino``.
        precision: as the engine has it.
        seed: of the division of the images.
        threads: passes of the network side by side, 0 for all cores.
        progress: where it is told.

    Raises:
        BundleError: the source cannot be used for this engine.
        ConfigError: the policy is a cascade, whose plan only a run can make.
        LeakageError: images that the run has trained or chosen on.
        DataError: too few labelled images or groups.
        CheckFailedError: fp32 differs from the source by more than the tolerance.
    """
    bundle = source if (source / schema.MANIFEST).is_file() else Artifacts(source).bundle
    origin = Detector.load(bundle, threads=threads)
    if isinstance(origin.policy, CascadePolicy):
        raise ConfigError(
            "a cascade is planned with files that only its run has", where=str(bundle),
            fix="run again with export.also, or with another policy",
        )  # fmt: skip
    with progress.bar("reading images") as advance:
        manifest = build_manifest(data, progress=advance)
    splits = make_splits(manifest, {Role.VAL_CALIB: 1.0}, seed=seed)
    if source != bundle:
        _require_unseen(manifest, splits, Artifacts(source))
    images = open_role(manifest, splits, Role.VAL_CALIB)
    assert isinstance(images, CalibData)
    settings = CalibrateConfig()
    variant = f"{engine}-{precision}"
    with tempfile.TemporaryDirectory(prefix="workzone-export-") as place:
        network_folder = Path(place) / "engine"
        first, second = images.disjoint_parts(settings.fraction, seed=seed)
        _convert(origin, network_folder, engine, precision, first, seed, progress)
        opened = open_engine(engine, network_folder, precision=precision, threads=threads)
        scored = _score(images, opened, origin.preprocessing, network_folder, _cache_folder(source, bundle), progress)
        first, second = images.with_scores(scored).disjoint_parts(settings.fraction, seed=seed)
        chosen = select(first, _candidates(origin, settings), folds=settings.folds, seed=seed, make=_maker(origin)).best
        probability = chosen.apply(second)
        policy = fit_policy(
            unfitted(origin.policy.name, origin.policy.to_dict()["parameters"], seed), chosen, second,
            calibration=first, uncertainty=measures(scored, second, probability),
        )  # fmt: skip
        entries = {f"{schema.ENGINE}/{n}": sha256_file(network_folder / n) for n in network_files(engine)}
        certificate = issue(
            policy,
            chosen,
            calibration=first,
            certification=second,
            engine=variant,
            engine_sha256=schema.hash_engine(engine, precision, entries),
            preprocessing_sha256=sha256_json(schema.read_json_bounded(bundle / schema.PREPROCESSING)),
            split_sha256=splits.fingerprint,
        )
        parity, golden, tolerance = _parity(origin, opened, chosen, policy, variant)
        old = origin.manifest
        write_bundle(
            BundleParts(
                name=old.name,
                engine=network_folder,
                engine_name=engine,
                precision=precision,
                backbone=old.engine.backbone,
                embedding_dim=old.engine.embedding_dim,
                preprocessing=schema.read_json_bounded(bundle / schema.PREPROCESSING),
                calibrator=chosen.to_dict(),
                policy=policy.to_dict(),
                certificate=certificate.model_dump(mode="json"),
                parity=parity,
                metrics={"measured": False, "reason": "calibrated anew; measure it: workzone evaluate BUNDLE DATA"},
                card=_card(old.name, old.sha256, variant, certificate, parity),
                golden_images=golden,
                compare_decisions=precision == "fp32",
                tolerance=tolerance,
                lineage={
                    **{k: v for k, v in old.lineage.items() if k not in ("manifest_sha256", "split_sha256")},
                    "recalibrated_from": old.sha256,
                    "calibration_manifest": manifest.fingerprint,
                },
            ),
            out,
        )
    return Recalibrated(certificate, float(parity["max_difference"]), len(images))


def _require_unseen(manifest: Manifest, splits: Splits, run: Artifacts) -> None:
    """Refuse images whose content the run has used for anything but certifying and testing."""
    used = Manifest.load(run.manifest)
    roles = Splits.load(run.splits)
    seen = {*roles.ids(Role.TRAIN), *roles.ids(Role.VAL_SELECT)}
    contents = {
        sha for i, sha in zip(used.frame["id"].to_list(), used.frame["sha256"].to_list(), strict=True) if i in seen
    }
    mine = zip(manifest.frame["id"].to_list(), manifest.frame["sha256"].to_list(), strict=True)
    known = [i for i, sha in mine if sha in contents and i in splits.assignment]
    if known:
        raise LeakageError(
            f"{len(known)} of the images, the first being {known[0]!r}, were used to train or choose the network",
            fix="give images that the run has not seen, or leave --calib out: the run then takes its own",
        )


def _convert(
    origin: Detector, target: Path, engine: str, precision: str, images: CalibData, seed: int, progress: Progress
) -> None:
    base = origin.folder / schema.ENGINE
    held = (origin.manifest.engine.name, origin.manifest.engine.precision)
    target.mkdir()
    if held == (engine, precision):
        for name in network_files(engine):
            shutil.copyfile(base / name, target / name)
        return
    if held != _BASE:
        raise BundleError(
            f"a network of {'-'.join(held)} cannot be made one of {engine}-{precision}",
            where=str(origin.folder),
            fix="give the bundle of onnxruntime-fp32",
        )
    progress.message(f"  making {engine}-{precision}")
    views = None
    if precision == "int8":
        # Images that certify have no say in the ranges.
        count = ExportConfig().int8_images
        views = range_views(images, origin.preprocessing, count=count, seed=seed, progress=progress)
    convert(base, target, engine, precision, views)


def _cache_folder(source: Path, bundle: Path) -> Path:
    """The cache of the run, where ``source`` is one, else that of the user."""
    file = Artifacts(source).config
    if source == bundle or not file.is_file():
        return default_cache_folder()
    # The folder may have been moved since.
    return load_config([f"out={source.resolve()}"], file=file).cache.folder or default_cache_folder()


def _score(
    images: CalibData, engine: Engine, pre: Preprocessing, folder: Path, cache_folder: Path, progress: Progress
) -> Predictions:
    assert images.paths is not None
    cache = EmbeddingCache(cache_folder, engine, folder / engine.backbone_file, pre)
    with progress.bar(f"scoring images, {engine.name}-{engine.precision}") as advance:
        views = embed_images(
            images.paths.tolist(), images.columns["sha256"].tolist(), engine, pre,
            cache=cache, workers=engine.threads, max_pixels=MAX_PIXELS, progress=advance,
        )  # fmt: skip
    scores = engine.aggregate(views.embeddings, views.boxes, views.mask)
    return Predictions(
        ids=images.ids, log_odds=scores.log_odds, labels=images.labels, view_log_odds=scores.view_log_odds
    )


def _candidates(origin: Detector, settings: CalibrateConfig) -> tuple[str, ...]:
    """Calibrators to choose from: by slice where the bundle is calibrated so, since its users send the column."""
    name = origin.calibrator.name
    return (name,) if isinstance(origin.calibrator, PerSliceCalibrator) else tuple(settings.candidates)


def _maker(origin: Detector) -> Any:
    from workzone.calibration import create

    def make(name: str) -> Any:
        if isinstance(origin.calibrator, PerSliceCalibrator) and name == PerSliceCalibrator.name:
            return PerSliceCalibrator(origin.calibrator.needs[0])
        return create(name)

    return make


def _parity(
    origin: Detector, engine: Engine, calibrator: Any, policy: Policy, variant: str
) -> tuple[dict[str, Any], list[Path], float]:
    """The new engine against that of the source on its golden images, under the new policy."""
    golden = schema.read_model(origin.folder / schema.GOLDEN_CASES, schema.Golden)
    images = [origin.folder / case.image for case in golden.cases]
    held = f"{origin.manifest.engine.name}-{origin.manifest.engine.precision}"
    defaults = ExportConfig()
    tolerance = defaults.tolerance if variant.endswith("fp32") else defaults.int8_tolerance
    columns = unknown_slices(calibrator)
    given = {k: np.array([v], dtype=object) for k, v in columns.items()} if columns else None

    def answers(scores: Scores) -> list[int]:
        """Codes as they are, and with log-odds moved by the tolerance either way."""
        found = []
        for shift in (0.0, -tolerance, tolerance):
            moved = scores.log_odds + shift
            p = calibrator(moved) if given is None else calibrator.on(moved, given)
            found.append(int(apply_policy(policy, p, scores.view_log_odds + shift).codes[0]))
        return found

    apart, same, steady = [], [], []
    for image in images:
        pixels, boxes = open_views(image, origin.preprocessing)
        mask = np.ones((1, len(boxes)), dtype=np.bool_)
        old, new = (
            e.aggregate(embed_views(e, pixels)[None], boxes[None], mask) for e in (origin.engine, engine)
        )
        before, after = answers(old), answers(new)
        apart.append(abs(float(old.log_odds[0]) - float(new.log_odds[0])))
        same.append(before[0] == after[0])
        steady.append(len(set(after)) == 1)
    largest, equal = max(apart), all(s for s, far in zip(same, steady, strict=True) if far)
    if variant.endswith("fp32") and held.endswith("fp32") and (largest > tolerance or not equal):
        raise CheckFailedError(
            f"log-odds differ from the source by up to {largest:.2g}, the tolerance is {tolerance:.2g}",
            where=variant,
            fix="this engine must not be used for this network",
        )
    report = {
        "reference": held,
        "engine": variant,
        "max_difference": largest,
        "mean_difference": float(np.mean(apart)),
        "tolerance": tolerance,
        "images": len(images),
        "images_away_from_thresholds": int(sum(steady)),
        "decisions_equal": {held: equal},
    }
    return report, [i for i, s in zip(images, steady, strict=True) if s] or images, tolerance


def _card(name: str, sha256: str, variant: str, certificate: Certificate, parity: Mapping[str, Any]) -> str:
    lines = [
        *opening(name, certificate),
        "",
        "## How it was made",
        "",
        f"The network of bundle `{sha256[:12]}` as engine `{variant}`; calibrated and certified anew on the scores of",
        f"this engine, on {certificate.n_calibration} and {certificate.n_certification} images. Its log-odds lie at",
        f"most {parity['max_difference']:.2g} from those of that bundle on {parity['images']} golden images.",
        "",
        "## Limits",
        "",
        "Nothing was measured on test images: `workzone evaluate BUNDLE DATA` does that. Whoever made this bundle",
        "vouches that the network was not trained on the calibration images. The promise holds for images drawn like",
        "the certification images.",
        "",
    ]
    return "\n".join(lines)
