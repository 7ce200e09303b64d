"""The detector: opens a bundle without torch and decides on images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from workzone import calibration, decisions
from workzone.bundle import schema
from workzone.bundle.cascade import Look, Looked, early_exits, look, with_budget
from workzone.bundle.embedding import ViewEmbeddings
from workzone.bundle.engines import Engine, Scores, open_engine
from workzone.bundle.engines.base import FloatViews
from workzone.bundle.parallel import embed_views
from workzone.bundle.slices import exif_hour_band, require_columns, row
from workzone.calibration import Calibrator
from workzone.data.hours import HOUR_BAND
from workzone.decisions import Certificate, Decision, Policy, ViewScore
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.decisions.types import NAMES, Decisions
from workzone.errors import BundleError, ImageError
from workzone.files import sha256_json
from workzone.predictions import LABELS, FloatArray
from workzone.vision import Preprocessing, decode, open_views
from workzone.vision.batch import Given, Source, at_hand, in_order
from workzone.vision.decode import MAX_PIXELS
from workzone.vision.views import Boxes, needed_side


@dataclass(frozen=True, slots=True)
class Decider:
    """The parts that decide, whether or not they were packed into a bundle.

    Attributes:
        folder: where the network lies, for messages.
        preprocessing: from image file to views.
        engine: the opened network.
        calibrator: log-odds to probability.
        policy: the one rule that decides.
        certificate: what is promised.
    """

    folder: Path
    preprocessing: Preprocessing
    engine: Engine
    calibrator: Calibrator
    policy: Policy
    certificate: Certificate

    def predict(
        self,
        sources: Iterable[Given],
        *,
        on_error: Callable[[int, ImageError], None] | None = None,
        workers: int = 0,
        max_pixels: int = MAX_PIXELS,
        columns: Mapping[str, Any] | None = None,
    ) -> Iterator[tuple[int, Decision]]:
        """Decide on images, in order; yields (index of the source, decision).

        Args:
            sources: paths, file contents, Pillow images or addresses (``vision.remote.Remote``).
            on_error: called with index and error for each unusable image; without it the first one is raised.
            workers: images in work at the same time, 0 for as many as the engine has threads.
            max_pixels: largest image that is decoded.
            columns: metadata that the calibrator needs (``calibrator.needs``): one value for all images, or a sequence
                indexed like the sources. The band of the day is read from EXIF where it is not given; an unknown slice
                gets the global map.

        Raises:
            DataError: the calibrator needs a column that was not given.
        """
        given = require_columns(self.calibrator, columns)

        def work(source: Given) -> tuple[Look, str]:
            picture = at_hand(source)
            return self._see(picture, max_pixels), self._band(picture, given)

        count = workers or self.engine.threads
        for index, (seen, band) in in_order(sources, work, workers=count, on_error=on_error):
            yield index, self._answer(seen, row(given, index, band))

    def __call__(
        self, source: Given, *, max_pixels: int = MAX_PIXELS, columns: Mapping[str, Any] | None = None
    ) -> Decision:
        """Decide on one image, its views on all threads of the engine; raises ImageError when it cannot be used."""
        return self.trace(source, max_pixels=max_pixels, columns=columns)[0]

    def trace(
        self, source: Given, *, max_pixels: int = MAX_PIXELS, columns: Mapping[str, Any] | None = None
    ) -> tuple[Decision, tuple[Looked, ...]]:
        """Decide on one image, and tell whose scores of which views the answer rests on; raises as the call does."""
        given = require_columns(self.calibrator, columns)
        picture = at_hand(source)
        seen = self._see(picture, max_pixels, side_by_side=True)
        return self._answer(seen, row(given, 0, self._band(picture, given))), seen.looked

    @property
    def models(self) -> tuple[Decider, ...]:
        """The models that may look, the cheapest first."""
        return (self,)

    @property
    def title(self) -> str:
        """What people know it by."""
        return self.certificate.engine

    def at_budget(self, budget: float) -> Self:
        """The same bundle at the operating point of its cascade that ``budget`` pays for, see ``CascadePolicy.at``.

        ``policy.guarantees`` of the result says what is promised there.

        Raises:
            ConfigError: the policy is no cascade, or the budget is out of range.
        """
        return replace(self, policy=with_budget(self.policy, budget))

    @property
    def certified(self) -> bool:
        """Whether every promise is given, at the operating point that is in use."""
        if isinstance(self.policy, CascadePolicy):
            return self.policy.results[self.policy.active].status == "certified"
        return self.certificate.certified

    def score(self, views: ViewEmbeddings) -> Scores:
        """Scores of images from the embeddings of their views."""
        return self.engine.aggregate(views.embeddings, views.boxes, views.mask)

    def decide(
        self,
        scores: Scores,
        columns: Mapping[str, NDArray[Any]] | None = None,
        stages: Mapping[str, FloatArray] | None = None,
    ) -> Decisions:
        """Decisions for the scores of this bundle's engine; without ``columns`` every slice is unknown.

        ``stages`` are the log-odds of the earlier stages of a cascade (``workzone.bundle.cascade.stage_log_odds``).
        """
        p = self.calibrator(scores.log_odds) if columns is None else self.calibrator.on(scores.log_odds, columns)
        return decisions.apply_policy(self.policy, p, scores.view_log_odds, stages)

    def _band(self, picture: Source, given: Mapping[str, Any]) -> str:
        """Band of the day of an image that was given without one; empty where nobody asks for it."""
        asked = HOUR_BAND in self.calibrator.needs and HOUR_BAND not in given
        return exif_hour_band(picture) if asked else ""

    def _see(self, picture: Source, max_pixels: int, *, side_by_side: bool = False) -> Look:
        """What is needed of one image."""
        cascade = early_exits(self.policy)
        if cascade is None:
            pixels, boxes = open_views(picture, self.preprocessing, max_pixels=max_pixels)
            scores = self._score_one(embed_views(self.engine, pixels, side_by_side=side_by_side), boxes)
            own = Looked(0, tuple(range(len(boxes))), float(scores.log_odds[0]))
            seen = Look(scores, boxes, None, (own,))
        else:
            image = decode(picture, max_pixels=max_pixels, min_side=needed_side(self.preprocessing))
            seen = look(image, self.preprocessing, self.engine, cascade, side_by_side=side_by_side)
        self._require_numbers(seen.scores)
        return seen

    def _answer(self, seen: Look, columns: Mapping[str, NDArray[Any]] | None) -> Decision:
        return one_decision(seen.scores, self.decide(seen.scores, columns, seen.stages), 0, seen.boxes)

    def _score_one(self, embeddings: FloatViews, boxes: Boxes) -> Scores:
        mask = np.ones((1, len(boxes)), dtype=np.bool_)
        return self.score(ViewEmbeddings(embeddings[None], boxes[None], mask))

    def _require_numbers(self, scores: Scores) -> None:
        if not (np.isfinite(scores.log_odds).all() and np.isfinite(scores.view_log_odds).all()):
            raise BundleError("the network gave a score that is not a number", where=str(self.folder / schema.ENGINE))


@dataclass(frozen=True, slots=True)
class Detector(Decider):
    """A loaded bundle: its certificate is bound to engine, calibrator, policy and preprocessing, which was checked.

    Attributes:
        manifest: content of ``bundle.json``.
    """

    manifest: schema.BundleManifest

    @property
    def title(self) -> str:
        """See ``Decider``."""
        return f"{self.manifest.name} ({self.manifest.engine.backbone}, {self.certificate.engine})"

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
        return cls(root, pre, engine, calibrator, policy, certificate, manifest)


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
        stage=None if decided.stage is None else int(decided.stage[row]),
        cost=None if decided.cost is None else float(decided.cost[row]),
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
    if isinstance(policy, CascadePolicy) and policy.plan.models:
        raise BundleError("the policy is a cascade of several models, and the bundle holds one", where=str(root))
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
        ("views of width", pre.width, engine.image_width),
        ("embeddings of width", manifest.engine.embedding_dim, engine.embedding_dim),
    ):
        if stated != found:
            raise BundleError(
                f"the bundle states {name} {stated}, but its network has {found}",
                where=str(root),
                fix="export the run again",
            )
