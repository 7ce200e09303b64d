"""Every key of a run, typed and documented; ``workzone config docs`` is generated from these models.

The models hold no behaviour. Values are checked on construction, unknown keys are refused, and the resolved object is
stored with the run.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from workzone.config.base import Fraction, Positive, Section
from workzone.config.deciding import BY_GROUP, NEEDS_VIEWS, CalibrateConfig, CalibratorName, DecideConfig
from workzone.config.pretraining import PretrainConfig
from workzone.config.training import AdapterConfig, AugmentConfig, FuseConfig, ModelConfig, OptimizerName, TrainConfig
from workzone.config.views import ViewSpec

__all__ = [
    "BY_GROUP",
    "NEEDS_VIEWS",
    "AdapterConfig",
    "AugmentConfig",
    "CacheConfig",
    "CalibrateConfig",
    "CalibratorName",
    "ComputeConfig",
    "DecideConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FuseConfig",
    "ModelConfig",
    "OptimizerName",
    "PretrainConfig",
    "RunConfig",
    "SourceConfig",
    "SplitConfig",
    "TrackingConfig",
    "TrainConfig",
    "ViewSpec",
]

SourceKind = Literal[
    "auto",
    "folder",
    "table",
    "unlabelled",
    "synthetic",
    "natix",
    "roadwork",
    "mapillary_vistas",
    "bdd100k",
    "rdd2022",
    "coco",
    "yolo",
    "voc",
    "phone",
    "video",
]
EngineName = Literal["onnxruntime", "openvino"]
Precision = Literal["fp32", "bf16", "int8"]
Variant = Annotated[str, Field(pattern=r"^(onnxruntime-(fp32|int8)|openvino-(fp32|bf16|int8))$")]


class SourceConfig(Section):
    """How the data are read into a manifest."""

    kind: SourceKind = Field(
        default="auto",
        description="'auto' finds out; a folder per class, a table, a published data set, boxes, photographs or videos",
    )
    class_map: str | None = Field(
        default=None, description="for coco, yolo, voc: NAME=roadwork|ambiguous|other,... or a JSON file"
    )
    rest: Literal["negative", "unlabelled", "drop"] | None = Field(
        default=None, description="for coco, yolo, voc: what images without roadwork are; empty takes negative"
    )
    assume_negative: bool = Field(default=False, description="for bdd100k, rdd2022: label their images 0")
    options: tuple[str, ...] = Field(
        default=(), description="further options of the source, NAME=VALUE, as --set of data import"
    )
    accept_licence: bool = Field(
        default=False, description="you accept the licence of the published data set that is read"
    )
    positive: tuple[str, ...] = Field(
        default=(), description="further names of folders or label words that mean roadwork"
    )
    negative: tuple[str, ...] = Field(
        default=(), description="further names of folders or label words that mean no roadwork"
    )
    synthetic_images: int = Field(
        default=1200, ge=60, le=1_000_000, description="number of drawn scenes for data=synthetic"
    )
    skip_unreadable: bool = Field(
        default=True, description="leave unreadable images out and list them, instead of stopping"
    )
    review: Path | None = Field(
        default=None, description="a review.csv of data quality to obey: images to drop and labels to change"
    )


class SplitConfig(Section):
    """Shares of the four split roles; groups never straddle two roles."""

    train: Fraction = Field(default=0.70, description="training, augmentation search, pretraining, fusion")
    val_select: Fraction = Field(default=0.10, description="early stopping and model selection only")
    val_calib: Fraction = Field(default=0.10, description="calibrators, policies and gates only")
    val_test: Fraction = Field(default=0.10, description="final evaluation only")
    near_duplicates: bool = Field(default=True, description="keep near duplicates by perceptual hash in one role")
    metres: float = Field(
        default=0.0, ge=0, le=100_000, description="keep images of one square of this size in one role, 0 for none"
    )
    columns: tuple[str, ...] = Field(
        default=(), description="columns, such as sequence, of which equal values keep images in one role"
    )
    similarity: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="keep images of this cosine of embeddings in one role, 0 for none; neighbouring frames need it",
    )
    file: Path | None = Field(default=None, description="a splits.json to obey instead of making one")

    @model_validator(mode="after")
    def _sum(self) -> SplitConfig:
        total = self.train + self.val_select + self.val_calib + self.val_test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"the four shares must sum to 1, they sum to {total:g}")
        return self


class ExportConfig(Section):
    """Phase export: the engines, and how close they must be to the trained network."""

    engine: EngineName = Field(default="onnxruntime", description="engine of the bundle")
    precision: Precision = Field(default="fp32", description="precision of the bundle; bf16 with openvino only")
    also: tuple[Variant, ...] = Field(
        default=(), description="further variants, each a bundle of its own under variants/"
    )
    int8_images: int = Field(default=100, ge=8, le=5000, description="training images that set the ranges of int8")
    golden: int = Field(default=8, ge=2, le=64, description="golden cases stored in the bundle")
    tolerance: Positive = Field(
        default=2e-3, description="largest difference of log-odds between torch and an fp32 engine"
    )
    int8_tolerance: Positive = Field(
        default=0.25, description="difference of log-odds that verify accepts for int8 or bf16 on another processor"
    )

    @model_validator(mode="after")
    def _pairs(self) -> ExportConfig:
        if self.engine == "onnxruntime" and self.precision == "bf16":
            raise ValueError("onnxruntime has no bf16 here: take engine openvino, or precision fp32 or int8")
        return self


class EvaluateConfig(Section):
    """Phase evaluate: figures with intervals, slices and the report."""

    resamples: int = Field(default=1000, ge=100, le=100_000, description="bootstrap resamples")
    interval: Literal["percentile", "bca"] = Field(default="percentile", description="bootstrap interval")
    level: Fraction = Field(default=0.95, description="confidence level of intervals")
    by_group: bool = Field(default=True, description="resample groups rather than images")
    prevalence: Fraction = Field(default=0.5, description="prevalence at which figures are also stated")
    slices: tuple[str, ...] = Field(
        default=("source", "hour_band", "weather", "domain", "evidence", "hard_negative"),
        description="metadata columns to slice by; a*b for pairs of two columns",
    )
    min_slice: int = Field(default=10, ge=1, description="fewest images of a slice that is shown")
    gallery: int = Field(
        default=24, ge=0, le=500, description="worst mistakes and abstentions shown with their picture"
    )
    explained: int = Field(
        default=4, ge=0, le=500, description="worst mistakes shown with the places that counted; some seconds each"
    )
    robustness: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="images whose changed copies are measured in a run, 0 for none; ten corruptions and StreetVision",
    )
    robustness_levels: tuple[Annotated[int, Field(ge=1, le=5)], ...] = Field(
        default=(1, 2, 3, 4, 5), min_length=1, description="levels of the corruptions that are measured, of 1 to 5"
    )

    @model_validator(mode="after")
    def _sample(self) -> EvaluateConfig:
        if self.robustness == 1:
            raise ValueError("robustness needs at least 2 images, or 0 for none")
        return self


class TrackingConfig(Section):
    """Where curves and parameters are written besides the run folder."""

    loggers: tuple[Literal["csv", "tensorboard", "mlflow", "wandb"], ...] = Field(
        default=("csv", "tensorboard"), description="loggers"
    )
    uri: str | None = Field(default=None, description="MLflow tracking URI")
    experiment: str = Field(default="workzone", description="experiment or project name for MLflow and W&B")


class ComputeConfig(Section):
    """Threads, processes and devices."""

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where torch trains")
    threads: int = Field(default=0, ge=0, le=1024, description="threads of an engine, 0 for all cores")
    workers: int = Field(default=0, ge=0, le=256, description="threads that decode images, 0 for all cores")
    max_pixels: int = Field(default=120_000_000, ge=10_000, description="largest image that is decoded, in pixels")


class CacheConfig(Section):
    """Features of frozen backbones, kept across runs and addressed by content."""

    folder: Path | None = Field(
        default=None, description="cache folder; empty takes $WORKZONE_CACHE or the user's cache folder"
    )


FINER = ((5, 5),)
"""The pyramid of a run that names none, beside 3 x 3 tiles: measured with ``benchmarks/views.py``."""


class RunConfig(Section):
    """One run: everything that decides its result."""

    data: str = Field(description="folder of images, table of images, or 'synthetic'")
    out: Path = Field(description="folder of the run")
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of everything that draws")
    source: SourceConfig = Field(default_factory=SourceConfig, description="how the data are read")
    split: SplitConfig = Field(default_factory=SplitConfig, description="split roles")
    views: ViewSpec = Field(default_factory=ViewSpec, validate_default=True, description="views of an image")
    model: ModelConfig = Field(default_factory=ModelConfig, description="backbone")
    train: TrainConfig = Field(default_factory=TrainConfig, description="phase train")
    augment: AugmentConfig = Field(default_factory=AugmentConfig, description="phase augment")
    fuse: FuseConfig = Field(default_factory=FuseConfig, description="phase fuse")
    pretrain: PretrainConfig = Field(default_factory=PretrainConfig, description="phase pretrain")
    export: ExportConfig = Field(default_factory=ExportConfig, description="phase export")
    calibrate: CalibrateConfig = Field(default_factory=CalibrateConfig, description="phase calibrate")
    decide: DecideConfig = Field(default_factory=DecideConfig, description="phase decide")
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig, description="phase evaluate")
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="loggers")
    compute: ComputeConfig = Field(default_factory=ComputeConfig, description="threads and devices")
    cache: CacheConfig = Field(default_factory=CacheConfig, description="feature cache")

    @field_validator("views")
    @classmethod
    def _finer_tiles_beside_the_default(cls, views: ViewSpec) -> ViewSpec:
        if views.pyramid is None and views.grids == ((3, 3),):
            return views.model_copy(update={"pyramid": FINER})
        return views

    @model_validator(mode="after")
    def _synthetic_or_not(self) -> RunConfig:
        if self.source.kind == "synthetic" and self.data != "synthetic":
            raise ValueError("source.kind=synthetic goes with data=synthetic only")
        return self

    @model_validator(mode="after")
    def _options_of_the_source(self) -> RunConfig:
        own = self.source
        boxes = ("auto", "coco", "yolo", "voc")
        if (own.class_map or own.rest) and own.kind not in boxes:
            raise ValueError(f"source.class_map and source.rest are for coco, yolo and voc, not for {own.kind}")
        if own.assume_negative and own.kind not in ("auto", "bdd100k", "rdd2022"):
            raise ValueError(f"source.assume_negative is for bdd100k and rdd2022, not for {own.kind}")
        return self

    @model_validator(mode="after")
    def _joined_backbones_stay_frozen(self) -> RunConfig:
        if "+" in self.model.backbone and self.train.method != "frozen":
            raise ValueError(
                f"train.method={self.train.method} adapts one backbone, and model.backbone joins several: use "
                "train.method=frozen"
            )
        return self

    @model_validator(mode="after")
    def _wide_views_stay_frozen(self) -> RunConfig:
        wide = self.model.image_width not in (0, self.model.image_size)
        if wide and (self.train.method != "frozen" or self.pretrain.method != "none"):
            raise ValueError(
                f"model.image_width={self.model.image_width} makes views that are not square, and backbones are "
                "trained on square ones: use train.method=frozen and pretrain.method=none, or image_width=0"
            )
        return self

    @model_validator(mode="after")
    def _training_on_images(self) -> RunConfig:
        if self.augment.search and self.train.method == "frozen":
            raise ValueError(
                "augment.search chooses how images are augmented, and train.method=frozen trains on none: take another "
                "train.method"
            )
        if self.train.method == "frozen" and (self.train.augment_by or self.train.cutmix_sets == "other"):
            raise ValueError(
                "train.augment_by and train.cutmix_sets change images, and train.method=frozen trains on none: take "
                "another train.method"
            )
        tiles = self.views.fixed_tiles
        if self.train.views > tiles:
            raise ValueError(
                f"train.views={self.train.views} tiles of an image, and views.layout={self.views.layout} cuts {tiles}: "
                "use views.layout=grid with enough rows and columns"
            )
        return self

    @model_validator(mode="after")
    def _stages_of_the_cascade(self) -> RunConfig:
        chosen, views = self.decide, self.views
        if chosen.policy != "cascade":
            return self
        if views.layout == "adaptive":
            raise ValueError(
                "policy 'cascade' needs the same views of every image, and views.layout=adaptive chooses them by "
                "shape: use views.layout=grid"
            )
        count = (len(views.scales) + views.fixed_tiles) * (2 if views.flip else 1)
        if count == 1:
            raise ValueError("policy 'cascade' looks at several views, and there is one: use views.layout=grid")
        stages = chosen.stages
        rising = all(a < b for a, b in pairwise(stages))
        if stages and (not rising or stages[0] < 1 or stages[-1] != count):
            raise ValueError(f"decide.stages must rise from at least 1 to the number of views, {count}, not {stages}")
        if not 1 / count <= chosen.budget <= count:
            raise ValueError(
                f"decide.budget={chosen.budget:g} is no share of the cost of {count} views: from {1 / count:.3g} to "
                "1, or a number of views"
            )
        return self

    @model_validator(mode="after")
    def _views_to_compare(self) -> RunConfig:
        chosen, views = self.decide, self.views
        one_view = views.layout == "global" and not views.flip and len(views.scales) == 1
        by = chosen.select_by if chosen.policy == "scrc" else None
        if one_view and (chosen.policy == "gate" or by in NEEDS_VIEWS):
            what = "policy 'gate'" if by is None else f"decide.select_by={by}"
            raise ValueError(
                f"{what} compares the views of an image, and views.layout=global has one: use views.layout=grid, or a "
                "policy of the probability alone, such as sgr"
            )
        return self
