"""The bundle that is served, and whether its certificate still holds here and now."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.bundle import CascadeDetector, Detector, open_bundle, schema
from workzone.bundle.cascade import budget_sentences
from workzone.bundle.chain import check_bundle_files, read_bundle
from workzone.bundle.engines.base import Engine, FloatViews, Scores
from workzone.bundle.slices import unknown_slices
from workzone.decisions import Decision
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.errors import BundleError, WorkzoneError
from workzone.monitoring.void import VoidMark, mark_path, read_mark
from workzone.vision.batch import Source


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision, the mean embedding (D,) of the views that were seen, and the hash of the picture where asked for.

    Where several models may look, the embedding is that of the first, which every picture gets.
    """

    decision: Decision
    embedding: NDArray[np.float32]
    sha256: str = ""


class _Watched(Engine):
    """An engine that remembers, for each thread, the embeddings it was last asked to aggregate."""

    def __init__(self, engine: Engine) -> None:
        self.inner = engine
        self.name, self.precision, self.threads = engine.name, engine.precision, engine.threads  # type: ignore[misc]
        self.embedding_dim = engine.embedding_dim
        self.image_size, self.image_width = engine.image_size, engine.image_width
        self.views_per_pass = engine.views_per_pass
        self._last = threading.local()

    @classmethod
    def open(cls, folder: Path, *, precision: str = "fp32", device: str = "cpu", threads: int = 0) -> _Watched:
        raise NotImplementedError("a watched engine is made from an open one")

    def embed(self, pixels: NDArray[np.uint8]) -> FloatViews:
        return self.inner.embed(pixels)

    def aggregate(self, embeddings: FloatViews, boxes: FloatViews, mask: NDArray[np.bool_]) -> Scores:
        self._last.mean = embeddings[0, mask[0]].mean(axis=0)
        return self.inner.aggregate(embeddings, boxes, mask)

    def last_mean(self) -> NDArray[np.float32]:
        """Mean embedding (D,) of the image that this thread aggregated last."""
        return np.asarray(self._last.mean, dtype=np.float32)


def _watched(engine: Engine) -> _Watched:
    return _Watched(engine.inner if isinstance(engine, _Watched) else engine)


@dataclass(slots=True)
class Model:
    """A detector, or a cascade of several, with the state of its certificate; safe to use from several threads."""

    detector: Detector | CascadeDetector
    void: tuple[str, ...] = ()
    mark: VoidMark | None = None
    _watched: tuple[_Watched, ...] = field(init=False)
    _budget: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if isinstance(self.detector, CascadeDetector):
            members = tuple(replace(m, engine=_watched(m.engine)) for m in self.detector.members)
            self._watched = tuple(m.engine for m in members if isinstance(m.engine, _Watched))
            self.detector = replace(self.detector, members=members, engine=members[-1].engine)
        else:
            self._watched = (_watched(self.detector.engine),)
            self.detector = replace(self.detector, engine=self._watched[0])

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu", threads: int = 0) -> Model:
        """Open the bundle in ``folder`` and answer its golden cases; raises BundleError as ``open_bundle`` does."""
        model = cls(open_bundle(folder, device=device, threads=threads))
        model.check(every_case=True)
        return model

    def spend(self, budget: float) -> None:
        """Answer at the operating point that ``budget`` pays for; raises ConfigError as ``Decider.at_budget`` does."""
        other = self.detector.at_budget(budget)
        assert isinstance(self.detector.policy, CascadePolicy)
        if self._budget is None:
            self._budget = self.detector.policy.budget
        self.detector = other

    @property
    def name(self) -> str:
        """Name of the bundle."""
        return self.detector.manifest.name

    @property
    def sha256(self) -> str:
        """Hash that stands for every byte of the bundle."""
        return self.detector.manifest.sha256

    def answer(self, source: Source, *, max_pixels: int, columns: Mapping[str, Any] | None) -> Answer:
        """Decide on one image; raises ImageError or DataError as ``Detector`` does."""
        decision = self.detector(source, max_pixels=max_pixels, columns=columns)
        return Answer(decision if self.mark is None else self.mark.honour(decision), self._first().last_mean())

    def _first(self) -> _Watched:
        """The network that looks at every picture."""
        policy = self.detector.policy
        if len(self._watched) == 1 or not isinstance(policy, CascadePolicy):
            return self._watched[0]
        used = policy.plan.used(policy.plan.points[policy.active].bands)
        return self._watched[used.index(True)]

    @property
    def staged(self) -> bool:
        """Whether decisions carry a stage and a cost."""
        return isinstance(self.detector.policy, CascadePolicy)

    @property
    def engine(self) -> str:
        """Name and precision of the engine; of a cascade those of all members, the cheapest first."""
        return self.detector.certificate.engine

    def state(self) -> str:
        """``certified``, ``not_certified`` or ``void``."""
        if self.void:
            return "void"
        return "certified" if self.detector.certified else "not_certified"

    def certificate(self) -> dict[str, Any]:
        """What every answer says about its certificate: status, sentence, and why it is void where it is."""
        if self.void:
            sentence = f"The certificate is void, nothing is promised about this answer: {'; '.join(self.void)}."
        else:
            certificate = self.detector.certificate
            here = budget_sentences(self.detector.policy)
            promised = here or [g.sentence() for g in certificate.guarantees] or certificate.sentences()[:1]
            sentence = " ".join(promised)
        return {"status": self.state(), "sentence": sentence, "void_reasons": list(self.void)}

    def thresholds(self) -> dict[str, float]:
        """Thresholds of the policy on the probability, where it has any."""
        policy = self.detector.policy
        if isinstance(policy, CascadePolicy):
            low = policy.results[policy.active].threshold
            return {**({} if low is None else {"t_low": low}), "t_high": policy.t_high}
        stored = policy.to_dict().get("parameters", {})
        names = ("t_low", "t_high", "threshold")
        return {n: float(stored[n]) for n in names if isinstance(stored.get(n), (int, float))}

    def check(self, *, every_case: bool = False) -> None:
        """Hash every file and answer golden cases again; what fails makes the certificate void until it passes.

        So does the mark of ``workzone monitor`` beside the bundle, whose policy then also decides what is answered.

        Args:
            every_case: all golden cases, else the first.
        """
        folder = self.detector.folder
        failed = check_bundle_files(folder, self.detector.manifest)
        try:
            if read_bundle(folder).sha256 != self.sha256:
                failed.append("the folder holds another bundle than the one that was opened")
        except WorkzoneError as error:
            failed.append(error.what)
        failed += self.golden_answers(1000 if every_case else 1)
        try:
            self.mark = read_mark(mark_path(folder), self.sha256)
        except BundleError as error:  # a mark that cannot be read must not pass for none
            failed.append(error.what)
        self.void = (*failed, *(self.mark.reasons if self.mark else ()))

    def golden_answers(self, most: int = 1) -> tuple[str, ...]:
        """Answer up to ``most`` golden cases with the open network; returns what is wrong, empty where nothing is."""
        folder, wrong = self.detector.folder, []
        # The stored answers are those of the operating point that was chosen when the bundle was made.
        detector = self.detector if self._budget is None else self.detector.at_budget(self._budget)
        try:
            golden = schema.read_model(folder / schema.GOLDEN_CASES, schema.Golden)
            for case in golden.cases[:most]:
                answer = detector(folder / case.image, columns=unknown_slices(detector.calibrator))
                if abs(answer.log_odds - case.log_odds) > golden.tolerance:
                    wrong.append(f"{case.image}: log-odds {answer.log_odds:.4f}, expected {case.log_odds:.4f}")
                if golden.compare_decisions and answer.label != case.decision:
                    wrong.append(f"{case.image}: decision {answer.label}, expected {case.decision}")
        except WorkzoneError as error:
            wrong.append(f"the golden images could not be answered: {error.what}")
        return tuple(wrong)
