"""The bundle that is served, and whether its certificate still holds here and now."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.bundle import Detector, schema
from workzone.bundle.cascade import budget_sentences
from workzone.bundle.engines.base import Engine, FloatViews, Scores
from workzone.bundle.slices import unknown_slices
from workzone.decisions import Decision
from workzone.errors import BundleError, WorkzoneError
from workzone.monitoring.void import VoidMark, mark_path, read_mark
from workzone.vision.batch import Source


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision, the mean embedding (D,) of the views that were seen, and the hash of the picture where asked for."""

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


@dataclass(slots=True)
class Model:
    """A detector with the state of its certificate; safe to use from several threads."""

    detector: Detector
    void: tuple[str, ...] = ()
    mark: VoidMark | None = None
    _watched: _Watched = field(init=False)

    def __post_init__(self) -> None:
        self._watched = _Watched(self.detector.engine)
        self.detector = replace(self.detector, engine=self._watched)

    @classmethod
    def load(cls, folder: Path, *, threads: int = 0) -> Model:
        """Open the bundle in ``folder`` and answer its golden cases; raises BundleError as ``Detector.load`` does."""
        model = cls(Detector.load(folder, threads=threads))
        model.check(every_case=True)
        return model

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
        return Answer(decision if self.mark is None else self.mark.honour(decision), self._watched.last_mean())

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
        stored = self.detector.policy.to_dict().get("parameters", {})
        names = ("t_low", "t_high", "threshold")
        return {n: float(stored[n]) for n in names if isinstance(stored.get(n), (int, float))}

    def check(self, *, every_case: bool = False) -> None:
        """Hash every file and answer golden cases again; what fails makes the certificate void until it passes.

        So does the mark of ``workzone monitor`` beside the bundle, whose policy then also decides what is answered.

        Args:
            every_case: all golden cases, else the first.
        """
        folder = self.detector.folder
        failed = schema.check_files(folder, self.detector.manifest)
        try:
            if schema.read_manifest(folder).sha256 != self.sha256:
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
        try:
            golden = schema.read_model(folder / schema.GOLDEN_CASES, schema.Golden)
            for case in golden.cases[:most]:
                answer = self.detector(folder / case.image, columns=unknown_slices(self.detector.calibrator))
                if abs(answer.log_odds - case.log_odds) > golden.tolerance:
                    wrong.append(f"{case.image}: log-odds {answer.log_odds:.4f}, expected {case.log_odds:.4f}")
                if golden.compare_decisions and answer.label != case.decision:
                    wrong.append(f"{case.image}: decision {answer.label}, expected {case.decision}")
        except WorkzoneError as error:
            wrong.append(f"the golden images could not be answered: {error.what}")
        return tuple(wrong)
