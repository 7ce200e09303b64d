"""What an evaluation is given: the scores of one bundle on the test images, and what is known about the bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workzone.decisions.certificate import Certificate
from workzone.decisions.types import Decisions
from workzone.errors import DataError
from workzone.predictions import FloatArray, IntArray, Predictions, StrArray

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class OneView:
    """The same images scored by the single global view, for comparison.

    Attributes:
        log_odds: (N,) uncalibrated log-odds of the global view.
        probability: (N,) calibrated probability.
        decisions: what the policy would decide on them, or None.
    """

    log_odds: FloatArray
    probability: FloatArray
    decisions: Decisions | None = None


@dataclass(frozen=True)
class Evaluated:
    """Test images with labels, scores and decisions.

    Attributes:
        predictions: N labelled images; columns such as source, group, path, hour, weather.
        probability: (N,) calibrated probability of roadwork, all views.
        decisions: what the policy of the bundle decided.
        policy: name and parameters of the policy.
        one_view: the global view alone, or None.
        calibrators: rows of the choice between calibrators (name, cv_nll, brier, ...); the chosen row has ``chosen``.
        calibrated: (N,) probabilities of these images by each calibrator that was tried, by its name.
        calibrator_in_use: whether the chosen calibrator made the probabilities; False where they were given.
        calibration_note: on which images the calibrators were compared.
        confidence: name and values (N,) of the score the policy abstains by, or None where that is the probability.
        others: (N,) probabilities of the same images by other engines of the run, by name.
        recalibrated: name of the calibrator that would be chosen for probabilities that were given, and what it makes
            of them (N,); None where the probabilities are its own already.
        before: (N,) the probabilities as they were given, where the calibrator in use made others of them, or None.
        uncertainty: how well measures and failure gates found mistakes among the certification images, as
            ``workzone.decisions.failure.compare_measures`` says it; empty where it was not measured.
        certificate: the certificate of the bundle, or None.
        meta: what the run was: run, data, engine, precision, backbone, views, versions, dates.
        root: folder that relative picture paths start from, or None.
        overlay: draws a picture with the places that counted for its score; None where nothing can score pictures.

    Raises:
        DataError: no labels, no images, or arrays of unequal length.
    """

    predictions: Predictions
    probability: FloatArray
    decisions: Decisions
    policy: Mapping[str, Any] = field(default_factory=dict)
    one_view: OneView | None = None
    calibrators: Sequence[Mapping[str, Any]] = ()
    calibrated: Mapping[str, FloatArray] = field(default_factory=dict)
    calibration_note: str = "Measured on the calibration images, never on those of this report."
    calibrator_in_use: bool = True
    confidence: tuple[str, FloatArray] | None = None
    others: Mapping[str, FloatArray] = field(default_factory=dict)
    recalibrated: tuple[str, FloatArray] | None = None
    before: FloatArray | None = None
    uncertainty: Mapping[str, Any] = field(default_factory=dict)
    certificate: Certificate | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    root: Path | None = None
    overlay: Callable[[Path], Image] | None = None

    def __post_init__(self) -> None:
        n = len(self.predictions)
        if n == 0:
            raise DataError("there are no images to evaluate", fix="check the data and the split")
        if self.predictions.labels is None:
            raise DataError("the images have no labels, so nothing can be evaluated", fix="give a labelled manifest")
        lengths = {"probability": len(self.probability), "decisions": len(self.decisions)}
        if self.one_view is not None:
            lengths["one_view"] = len(self.one_view.probability)
            if self.one_view.decisions is not None:
                lengths["one_view.decisions"] = len(self.one_view.decisions)
        lengths |= {f"calibrated {name}": len(p) for name, p in self.calibrated.items()}
        lengths |= {f"engine {name}": len(p) for name, p in self.others.items()}
        if self.before is not None:
            lengths["before"] = len(self.before)
        for name, pair in (("confidence", self.confidence), ("recalibrated", self.recalibrated)):
            if pair is not None:
                lengths[name] = len(pair[1])
        for name, length in lengths.items():
            if length != n:
                raise DataError(f"{name} holds {length} values for {n} images")

    def __len__(self) -> int:
        return len(self.predictions)

    @cached_property
    def labels(self) -> IntArray:
        """(N,) 0 or 1."""
        return np.asarray(self.predictions.labels, dtype=np.int64)

    @cached_property
    def argmax(self) -> NDArray[np.int8]:
        """(N,) decision codes of the calibrated probability at 0.5, without abstaining."""
        return np.asarray(self.probability >= 0.5, dtype=np.int8)

    @cached_property
    def sources(self) -> StrArray:
        """(N,) source of each image, 'unknown' where not recorded."""
        return self.predictions.column("source")

    @cached_property
    def groups(self) -> StrArray:
        """(N,) unit that is resampled: the group within its source; an image without a group is its own."""
        return groups_of(self.predictions)


def groups_of(predictions: Predictions) -> StrArray:
    """(N,) group of each image; one without a group is its own."""
    group = predictions.column("group", default="")
    own = np.where(group == "", np.char.add("image:", predictions.ids), np.char.add("group:", group))
    return np.asarray(own, dtype=np.str_)
