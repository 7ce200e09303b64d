"""The certificate: what is promised, on which evidence, for which engine, and when it is void."""

from __future__ import annotations

import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from workzone.errors import BundleError

Status = Literal["certified", "not_certifiable", "none"]
Unit = Literal["image", "group"]
Kind = Literal["confidence", "expectation"]

_DEPENDENT = 1.5
"""Images per group above which the independence behind a bound on images is in doubt."""
_NAMES = {
    ("false_negative_rate", "image"): "the share of roadwork images that are answered 'no_roadwork'",
    ("false_positive_rate", "image"): "the share of images without roadwork that are answered 'roadwork'",
    ("false_negative_rate", "group"): "the share of groups with any roadwork image answered 'no_roadwork'",
    ("false_positive_rate", "group"): "the share of groups with any image without roadwork answered 'roadwork'",
    ("miscoverage", "image"): "the share of images whose true label is not in the prediction set",
    ("miscoverage", "group"): "the share of groups with any image whose true label is not in its prediction set",
    ("miscoverage_roadwork", "image"): "the share of roadwork images whose prediction set lacks 'roadwork'",
    ("miscoverage_roadwork", "group"): "the share of groups with any roadwork image whose set lacks 'roadwork'",
    ("miscoverage_no_roadwork", "image"): "the share of images without roadwork whose set lacks 'no_roadwork'",
    ("miscoverage_no_roadwork", "group"): (
        "the share of groups with any image without roadwork whose set lacks 'no_roadwork'"
    ),
    ("selected_miscoverage", "image"): "among selected images, the share whose true label is not in the prediction set",
    ("selective_error", "image"): "among answered images, the share that is answered wrongly",
    ("abstention", "image"): "the share of images that are not answered",
}


class Guarantee(BaseModel):
    """One promise of a policy, or the reason why it cannot be given.

    ``risk`` names a probability over new images drawn like the certification images, for example
    ``false_negative_rate``: P(decided no_roadwork | roadwork). What is promised depends on ``kind``:

    * ``confidence``: with probability ``1 - delta`` over the draw of the certification images, the risk is at most
      ``alpha``. Each promise holds at its own ``delta``.
    * ``expectation``: the mean of the risk over draws of the certification images is at most ``alpha``. A single draw,
      such as the one at hand, may exceed it, often in a third of the cases; ``delta`` is 1 to say so.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    risk: str
    status: Status
    alpha: float = Field(ge=0, le=1, description="promised upper limit of the risk")
    delta: float = Field(gt=0, le=1, description="probability that the promise fails over the draw of images")
    kind: Kind = Field(default="confidence", description="for this draw with confidence, or for the mean over draws")
    method: str = Field(description="how it was proved, for example 'Clopper-Pearson, fixed sequence'")
    unit: Unit = Field(default="image", description="what is counted: images, or groups with any error as one error")
    n: int = Field(ge=0, description="units the bound rests on (for a false-negative rate: those with roadwork)")
    errors: int = Field(ge=0, description="errors among them at the chosen threshold")
    bound: float = Field(ge=0, le=1, description="upper confidence bound of the risk at the chosen threshold")
    needed: int | None = Field(default=None, description="units needed where not certifiable, at the errors observed")
    needed_without_errors: int | None = Field(default=None, description="the same if there were no error at all")
    tightest: float | None = Field(default=None, description="smallest alpha that n units without an error certify")
    reason: str = Field(default="", description="why it is not certifiable")

    @model_validator(mode="after")
    def _delta_belongs_to_confidence(self) -> Self:
        if (self.kind == "expectation") != (self.delta == 1.0):
            raise ValueError("delta must be 1 for a promise in expectation and below 1 for one with confidence")
        return self

    def sentence(self) -> str:
        """The promise, or its refusal, in plain words."""
        name = _NAMES.get((self.risk, self.unit), f"{self.risk.replace('_', ' ')} (by {self.unit})")
        sure = f"with confidence {1 - self.delta:.4g}"
        if self.kind == "expectation":
            sure = "in expectation over draws of the certification images"
        promise = f"{sure}, {name} is at most {self.alpha:.2%}"
        if self.status == "certified":
            single = "; a single draw may exceed it" if self.kind == "expectation" else ""
            seen = f"{self.errors} {'error' if self.errors == 1 else 'errors'} in {self.n} {self.unit}s"
            return (
                f"{promise[0].upper()}{promise[1:]} on new images like the certification images{single} "
                f"({seen}; upper bound {self.bound:.2%}; {self.method})."
            )
        if self.status == "not_certifiable":
            return f"Not certifiable: that, {promise}. {self.reason}"
        return f"No promise is made about {name}."


class Certificate(BaseModel):
    """Guarantees bound to the exact engine, calibrator, policy and data they were proved with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    guarantees: tuple[Guarantee, ...]
    engine: str = Field(description="engine and precision, for example onnxruntime-fp32")
    engine_sha256: str
    preprocessing_sha256: str
    calibrator_sha256: str
    policy_sha256: str
    split_sha256: str
    calibration_images_sha256: str = Field(description="fingerprint of the images the calibrator was fitted on")
    certification_images_sha256: str = Field(description="fingerprint of the images the promise rests on")
    n_calibration: int = Field(ge=0)
    n_certification: int = Field(ge=0)
    n_certification_groups: int = Field(ge=0, description="groups among them; images of one group are not independent")
    prevalence: float = Field(ge=0, le=1, description="share of roadwork among the certification images")
    created: str = Field(description="UTC, RFC 3339")

    @property
    def certified(self) -> bool:
        """Whether every guarantee is given."""
        return bool(self.guarantees) and all(g.status == "certified" for g in self.guarantees)

    @property
    def warnings(self) -> list[str]:
        """Sentences about what weakens the promises."""
        per_group = self.n_certification / max(self.n_certification_groups, 1)
        by_image = any(g.status == "certified" and g.unit == "image" for g in self.guarantees)
        if per_group <= _DEPENDENT or not by_image:
            return []
        return [
            f"Warning: the {self.n_certification} certification images come from {self.n_certification_groups} groups "
            f"({per_group:.1f} images each on average); images of one group are not independent, as the bound assumes, "
            "so the true confidence is lower. Counting groups instead of images (unit 'group') does not assume it."
        ]

    def sentences(self) -> list[str]:
        """The certificate in plain words, warnings included."""
        lines = [g.sentence() for g in self.guarantees] or ["No promise is made about the error rates."]
        lines.append(
            f"Valid only for engine {self.engine} and for images drawn like the {self.n_certification} certification "
            f"images ({self.n_certification_groups} groups, {self.prevalence:.0%} roadwork); void when engine, "
            "preprocessing, calibrator or policy changes."
        )
        return lines + self.warnings

    def void_reasons(self, **parts: str) -> list[str]:
        """Why the certificate does not cover these parts; empty where it does.

        Args:
            parts: what is about to be used, by field name, for example ``engine="onnxruntime-int8"`` or
                ``policy_sha256=...``.
        """
        unknown = set(parts) - BOUND_PARTS
        if unknown:
            raise ValueError(f"a certificate is not bound to {sorted(unknown)}; use {sorted(BOUND_PARTS)}")
        return [
            f"{name} is {value}, but the certificate was issued for {getattr(self, name)}"
            for name, value in parts.items()
            if value != getattr(self, name)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, stored: object) -> Self:
        """Read what ``to_dict`` wrote.

        Raises:
            BundleError: a field is missing, unknown or impossible.
        """
        try:
            return cls.model_validate_json(json.dumps(stored), strict=True)
        except (ValidationError, TypeError, ValueError) as error:
            raise BundleError(f"the certificate cannot be read: {error}") from error


BOUND_PARTS = frozenset({"engine", *(name for name in Certificate.model_fields if name.endswith("_sha256"))})
"""What a certificate is bound to: a change in any of them makes it void."""
