"""The detector: opens a bundle without torch and decides on images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from workzone import calibration, decisions
from workzone.bundle import schema
from workzone.bundle.embedding import ViewEmbeddings
from workzone.bundle.engines import Engine, Scores, open_engine
from workzone.bundle.engines.base import FloatViews
from workzone.bundle.parallel import embed_views, in_order
from workzone.calibration import Calibrator
from workzone.decisions import Certificate, Decision, Policy, ViewScore
from workzone.decisions.types import NAMES, Decisions
from workzone.errors import BundleError, ImageError
from workzone.files import sha256_json
from workzone.predictions import LABELS
from workzone.vision import Preprocessing, open_views
from workzone.vision.batch import Source
from workzone.vision.decode import MAX_PIXELS
from workzone.vision.views import Boxes, Pixels


@dataclass(frozen=True, slots=True)
class Detector:
    """A loaded bundle.

    Attributes:
        manifest: content of ``bundle.json``.
        preprocessing: from image file to views.
        engine: the opened network.
        calibrator: log-odds to probability.
        policy: the one rule that decides.
        certificate: what is promised; bound to engine, calibrator, policy and preprocessing, which was checked.
    """

    folder: Path
    manifest: schema.BundleManifest
    preprocessing: Preprocessing
    engine: Engine
    calibrator: Calibrator
    policy: Policy
    certificate: Certificate

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu", threads: int = 0, check_hashes: bool = True) -> Self:
        """Open the bundle in ``folder``; no code from the file is run.

        Args:
            folder: the folder that holds ``bundle.json``.
            device: "cpu", or "cuda" where the engine offers it.
            threads: passes of the network that run side by side, 0 for as many as there are cores.
            check_hashes: compare every file with its hash first (about a second per gigabyte).

        Raises:
            BundleError: unknown schema, changed or missing files, void certificate.
        """
        root = Path(folder)
        manifest = schema.read_manifest(root)
        if check_hashes and (problems := schema.check_files(root, manifest)):
            raise BundleError("; ".join(problems[:3]), where=str(root), fix="take the original bundle or export again")
        pre, calibrator, policy, certificate = read_parts(root)
        if problems := void_reasons(manifest, pre, calibrator, policy, certificate):
            raise BundleError(
                f"the certificate is void: {'; '.join(problems)}", where=str(root), fix="export the run again"
            )
        engine = open_engine(
            manifest.engine.name,
            root / schema.ENGINE,
            precision=manifest.engine.precision,
            device=device,
            threads=threads,
        )
        require_fit(engine, manifest, pre, root)
        return cls(root, manifest, pre, engine, calibrator, policy, certificate)

    def predict(
        self,
        sources: Iterable[Source | str],
        *,
        on_error: Callable[[int, ImageError], None] | None = None,
        workers: int = 0,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[tuple[int, Decision]]:
        """Decide on images, in order; yields (index of the source, decision).

        Args:
            sources: paths, file contents or Pillow images.
            on_error: called with index and error for each unusable image; without it the first one is raised.
            workers: images in work at the same time, 0 for as many as the engine has threads.
            max_pixels: largest image that is decoded.
        """

        def work(source: Source | str) -> tuple[Scores, Boxes]:
            pixels, boxes = self._open(source, max_pixels)
            return self._score_one(embed_views(self.engine, pixels), boxes), boxes

        count = workers or self.engine.threads
        for index, (scores, boxes) in in_order(sources, work, workers=count, on_error=on_error):
            yield index, one_decision(scores, self.decide(scores), 0, boxes)

    def __call__(self, source: Source | str, *, max_pixels: int = MAX_PIXELS) -> Decision:
        """Decide on one image, its views on all threads of the engine; raises ImageError when it cannot be used."""
        pixels, boxes = self._open(source, max_pixels)
        scores = self._score_one(embed_views(self.engine, pixels, side_by_side=True), boxes)
        return one_decision(scores, self.decide(scores), 0, boxes)

    def score(self, views: ViewEmbeddings) -> Scores:
        """Scores of images from the embeddings of their views."""
        return self.engine.aggregate(views.embeddings, views.boxes, views.mask)

    def decide(self, scores: Scores) -> Decisions:
        """Decisions for the scores of this bundle's engine."""
        return decisions.apply_policy(self.policy, self.calibrator(scores.log_odds), scores.view_log_odds)

    def _open(self, source: Source | str, max_pixels: int) -> tuple[Pixels, Boxes]:
        return open_views(
            Path(source) if isinstance(source, str) else source, self.preprocessing, max_pixels=max_pixels
        )

    def _score_one(self, embeddings: FloatViews, boxes: Boxes) -> Scores:
        mask = np.ones((1, len(boxes)), dtype=np.bool_)
        scores = self.score(ViewEmbeddings(embeddings[None], boxes[None], mask))
        if not (np.isfinite(scores.log_odds).all() and np.isfinite(scores.view_log_odds).all()):
            raise BundleError("the network gave a score that is not a number", where=str(self.folder / schema.ENGINE))
        return scores


def one_decision(scores: Scores, decided: Decisions, row: int, boxes: Boxes) -> Decision:
    """Record of image ``row`` with its views (boxes (V, 4))."""
    p = float(decided.probability[row])
    entropy = -sum(q * float(np.log(q)) for q in (p, 1.0 - p) if q > 0)
    per_view = scores.view_log_odds[row, : len(boxes)]
    return Decision(
        label=NAMES[int(decided.codes[row])],
        probability=p,
        log_odds=float(scores.log_odds[row]),
        prediction_set=frozenset(name for name, inside in zip(LABELS, decided.sets[row], strict=True) if inside),
        reason=decided.reasons[row],
        uncertainty={"entropy": entropy, "view_spread": float(np.std(per_view))},
        views=tuple(
            ViewScore(
                box=(float(b[0]), float(b[1]), float(b[2]), float(b[3])),
                log_odds=float(per_view[v]),
                weight=float(scores.weights[row, v]),
            )
            for v, b in enumerate(boxes)
        ),
    )


def read_parts(root: Path) -> tuple[Preprocessing, Calibrator, Policy, Certificate]:
    """Read the small files of a bundle.

    Raises:
        BundleError: malformed content, or not exactly one policy.
    """
    stored = schema.read_json_bounded(root / schema.CALIBRATOR)
    if not isinstance(stored, dict):
        raise BundleError("calibrator.json is not an object", where=str(root))
    pre = schema.read_model(root / schema.PREPROCESSING, Preprocessing)
    certificate = schema.read_model(root / schema.CERTIFICATE, Certificate)
    policy = decisions.from_dict(schema.read_json_bounded(root / schema.POLICY))
    return pre, calibration.from_dict(stored), policy, certificate


def void_reasons(
    manifest: schema.BundleManifest,
    pre: Preprocessing,
    calibrator: Calibrator,
    policy: Policy,
    certificate: Certificate,
) -> list[str]:
    """Why the certificate does not belong to these parts; empty when it does."""
    pairs = (
        ("engine", certificate.engine_sha256, schema.engine_sha256(manifest)),
        ("engine name", certificate.engine, f"{manifest.engine.name}-{manifest.engine.precision}"),
        ("preprocessing", certificate.preprocessing_sha256, sha256_json(pre.model_dump(mode="json"))),
        ("calibrator", certificate.calibrator_sha256, sha256_json(calibrator.to_dict())),
        ("policy", certificate.policy_sha256, sha256_json(policy.to_dict())),
    )
    return [f"it was issued for another {name}" for name, promised, found in pairs if promised != found]


def require_fit(engine: Engine, manifest: schema.BundleManifest, pre: Preprocessing, root: Path) -> None:
    """Raise BundleError unless the opened network takes the views and gives the embeddings that the bundle states."""
    for name, stated, found in (
        ("views of side", pre.image_size, engine.image_size),
        ("embeddings of width", manifest.engine.embedding_dim, engine.embedding_dim),
    ):
        if stated != found:
            raise BundleError(
                f"the bundle states {name} {stated}, but its network has {found}",
                where=str(root),
                fix="export the run again",
            )
