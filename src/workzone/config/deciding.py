"""Keys of the phases calibrate and decide."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from workzone.config.base import Fraction, Section

CalibratorName = Literal[
    "none",
    "temperature",
    "platt",
    "isotonic",
    "beta",
    "classwise_temperature",
    "vector",
    "dirichlet",
    "ets",
    "spline",
    "histogram",
    "stack",
    "per_slice",
    "per_dataset",
]


class CalibrateConfig(Section):
    """Phase calibrate: from the scores of the exported engine to probabilities."""

    method: Literal["auto", CalibratorName] = Field(
        default="auto", description="'auto' chooses by cross-validated NLL with the one-standard-error rule"
    )
    candidates: tuple[CalibratorName, ...] = Field(
        default=("temperature", "platt", "beta", "isotonic"), description="members that 'auto' chooses from"
    )
    slice_column: str = Field(
        default="hour_band",
        min_length=1,
        description="per_slice: metadata column that names the slice; must be known when an image is decided",
    )
    fraction: Fraction = Field(
        default=0.4, description="share of val_calib for the calibrator; the rest is kept for the certificate"
    )
    folds: int = Field(default=5, ge=2, le=50, description="folds of the choice between methods")


BY_GROUP = ("argmax", "threshold", "crc", "lac", "mondrian", "aps", "cascade")
"""Policies that can count a group as one unit, and argmax, which promises nothing."""
NEEDS_VIEWS = ("view_variance", "max_minus_mean", "view_disagreement", "mutual_information", "p_norm_max_logit")
"""Measures that are the same for every image with one view."""


class DecideConfig(Section):
    """Phase decide: the policy and its certificate."""

    policy: Literal[
        "threshold", "argmax", "ltt", "crc", "lac", "mondrian", "aps", "scrc", "crcp", "sgr", "gate", "cascade"
    ] = Field(default="threshold", description="the one policy of the bundle")
    target_fnr: Fraction = Field(default=0.02, description="certified limit of the false-negative rate")
    target_fpr: Fraction | None = Field(
        default=None, description="certified limit of the false-positive rate, empty for no promise"
    )
    delta: Fraction = Field(
        default=0.05, description="probability that a promise fails over the draw of calibration images"
    )
    min_coverage: float = Field(
        default=0.70, ge=0, le=1, description="share of images that should be decided; reported when missed"
    )
    if_not_certifiable: Literal["uncertified", "abstain", "stop"] = Field(
        default="uncertified", description="decide without a promise and say so, abstain, or stop the run"
    )
    unit: Literal["image", "group"] = Field(
        default="image", description="what the bound counts as one independent draw"
    )
    alpha: Fraction = Field(
        default=0.05, description="lac, mondrian, aps, scrc, crcp: share of images whose set may lack the true label"
    )
    alpha_roadwork: Fraction | None = Field(
        default=None, description="mondrian: the same among roadwork images, empty for alpha"
    )
    target_risk: Fraction = Field(default=0.05, description="sgr, gate: certified limit of wrong among given answers")
    gate_model: Literal["logistic", "mlp"] = Field(
        default="logistic", description="gate: model of mistakes, a logistic regression or a small network"
    )
    max_abstention: Fraction | None = Field(
        default=None, description="ltt: certified limit of the share of abstentions, empty for no promise"
    )
    family: Literal["fixed_sequence", "holm", "bonferroni"] = Field(
        default="fixed_sequence", description="ltt: how the error over all pairs of thresholds is kept"
    )
    selected: Fraction = Field(default=0.70, description="scrc: share of images selected before the promise is made")
    select_by: Literal[
        "max_probability",
        "entropy",
        "view_variance",
        "max_minus_mean",
        "view_disagreement",
        "expected_entropy",
        "mutual_information",
        "p_norm_max_logit",
    ] = Field(default="max_probability", description="scrc: measure that selects")
    promise: Literal["confidence", "expectation"] = Field(
        default="confidence", description="scrc: for the draw at hand with confidence, or for the mean over draws"
    )
    epsilon: float = Field(
        default=0.05, ge=0, lt=1, description="crcp: share of labels replaced at random, twice the share of wrong ones"
    )
    stages: tuple[int, ...] = Field(
        default=(),
        max_length=64,
        description="cascade: views seen by each stage, the last one all; empty takes 0.2 and 0.4 of them, and all, or "
        "with focus the first grid, a few more, and all",
    )
    focus: bool = Field(
        default=True,
        description="cascade with views.pyramid: after the first grid each image has its own order of the finer tiles, "
        "the places first that the first grid calls suspicious",
    )
    budget: float = Field(
        default=0.35,
        gt=0,
        description="cascade: mean share of the views to spend, above 1 a mean number of views; chooses the point",
    )

    @model_validator(mode="after")
    def _unit_of_the_policy(self) -> DecideConfig:
        if self.unit == "group" and self.policy not in BY_GROUP:
            raise ValueError(
                f"policy {self.policy!r} makes its promise about images only: use decide.unit=image, or one of the "
                f"policies {', '.join(BY_GROUP)}"
            )
        return self
