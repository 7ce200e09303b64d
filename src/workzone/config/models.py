"""Every key of a run, typed and documented; ``workzone config docs`` is generated from these models.

The models hold no behaviour. Values are checked on construction, unknown keys are refused, and the resolved object is
stored with the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from workzone.config.views import ViewSpec

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
EngineName = Literal["onnxruntime", "openvino"]
Precision = Literal["fp32", "int8"]
Variant = Annotated[str, Field(pattern=r"^(onnxruntime|openvino)-(fp32|int8)$")]


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class SourceConfig(Section):
    """How the data are read into a manifest."""

    kind: Literal["auto", "folder", "table", "synthetic"] = Field(
        default="auto",
        description="'auto' takes a folder with one sub-folder per class, a table, or 'synthetic' for drawn scenes",
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


class SplitConfig(Section):
    """Shares of the four split roles; groups never straddle two roles."""

    train: Fraction = Field(default=0.70, description="training, augmentation search, pretraining, fusion")
    val_select: Fraction = Field(default=0.10, description="early stopping and model selection only")
    val_calib: Fraction = Field(default=0.10, description="calibrators, policies and gates only")
    val_test: Fraction = Field(default=0.10, description="final evaluation only")
    near_duplicates: bool = Field(default=True, description="keep near duplicates by perceptual hash in one role")
    file: Path | None = Field(default=None, description="a splits.json to obey instead of making one")

    @model_validator(mode="after")
    def _sum(self) -> SplitConfig:
        total = self.train + self.val_select + self.val_calib + self.val_test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"the four shares must sum to 1, they sum to {total:g}")
        return self


class ModelConfig(Section):
    """The backbone and its weights."""

    backbone: str = Field(default="efficientnet_lite0", description="name in the backbone registry")
    weights: str | None = Field(
        default=None,
        description="safetensors file, or 'hub'; empty takes the weights that come as a package, where there are any",
    )
    image_size: int = Field(
        default=224, ge=32, le=1024, description="side of one view in pixels, a multiple of the patch size"
    )
    pooling: Literal["auto", "cls", "avg", "cls_avg"] = Field(
        default="auto", description="how patch tokens become one embedding"
    )


class AdapterConfig(Section):
    """Low-rank adaptation of the backbone's linear layers."""

    rank: int = Field(default=16, ge=1, le=256, description="rank of the update")
    alpha: float = Field(default=32.0, gt=0, description="scale of the update; with PiSSA take alpha equal to rank")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="dropout on the adapter's input")
    init: Literal["zero", "pissa", "pissa_niter_4"] = Field(
        default="pissa_niter_4", description="initialisation of the factors"
    )


class TrainConfig(Section):
    """Phase train: adaptation of the backbone, and the head that looks once."""

    method: Literal["frozen", "lora", "dora", "full"] = Field(
        default="frozen", description="what of the backbone is trained"
    )
    adapter: AdapterConfig = Field(default_factory=AdapterConfig, description="for method lora and dora")
    epochs: int = Field(default=30, ge=1, le=10_000, description="most epochs; early stopping may end sooner")
    batch_size: int = Field(default=32, ge=1, le=65_536, description="images in one step")
    accumulate: int = Field(default=1, ge=1, le=1024, description="steps whose gradients are added before an update")
    lr: Positive = Field(default=1e-3, description="peak learning rate of the head")
    backbone_lr: Positive = Field(default=1e-4, description="peak learning rate of adapters or of the backbone")
    weight_decay: float = Field(default=0.05, ge=0, description="decoupled weight decay on matrices")
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of the steps for linear warm-up")
    min_lr: float = Field(default=1e-6, ge=0, description="floor of the cosine schedule")
    clip: float = Field(default=1.0, ge=0, description="largest gradient norm, 0 for none")
    hidden: int = Field(default=512, ge=0, le=8192, description="hidden width of the head, 0 for a linear head")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout in the head")
    patience: int = Field(default=15, ge=1, description="epochs without a better validation MCC before stopping")
    min_delta: float = Field(default=0.001, ge=0, description="gain of MCC that counts as better")
    keep: int = Field(default=3, ge=1, description="best checkpoints kept")
    ema: float = Field(default=0.0, ge=0, lt=1, description="decay of the moving average of the weights, 0 for none")
    drop_path: float = Field(default=0.0, ge=0, lt=1, description="stochastic depth of the backbone")
    checkpointing: bool = Field(default=False, description="recompute activations to save memory")
    augment: Literal["none", "light", "standard"] = Field(
        default="light", description="augmentation when images are trained on"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="'auto' takes what the hardware does best"
    )
    compile: bool = Field(default=False, description="torch.compile; worth its time on CUDA only")
    deterministic: bool = Field(default=True, description="ask torch for deterministic kernels")


class FuseConfig(Section):
    """Phase fuse: the aggregator over the views of an image, on cached features."""

    aggregator: Literal["attention", "topk_mean", "logsumexp"] = Field(
        default="logsumexp", description="how views become one score"
    )
    k: int = Field(default=3, ge=1, le=64, description="views averaged by topk_mean")
    epochs: int = Field(default=60, ge=1, le=10_000, description="most epochs; early stopping may end sooner")
    batch_size: int = Field(default=64, ge=1, le=65_536, description="images in one step")
    lr: Positive = Field(default=1e-3, description="peak learning rate")
    weight_decay: float = Field(default=0.05, ge=0, description="decoupled weight decay on matrices")
    hidden: int = Field(default=128, ge=0, le=8192, description="hidden width of the view scorer, 0 for linear")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="dropout on features and hidden units")
    view_dropout: float = Field(default=0.1, ge=0, lt=1, description="share of tiles hidden in training")
    patience: int = Field(default=15, ge=1, description="epochs without a better validation score before stopping")
    members: int = Field(default=5, ge=1, le=64, description="heads trained from different seeds and averaged")


class ExportConfig(Section):
    """Phase export: the engines, and how close they must be to the trained network."""

    engine: EngineName = Field(default="onnxruntime", description="engine of the bundle")
    precision: Precision = Field(default="fp32", description="precision of the bundle")
    also: tuple[Variant, ...] = Field(
        default=(), description="further variants, each a bundle of its own under variants/"
    )
    int8_images: int = Field(default=100, ge=8, le=5000, description="training images that set the ranges of int8")
    golden: int = Field(default=8, ge=2, le=64, description="golden cases stored in the bundle")
    tolerance: Positive = Field(
        default=2e-3, description="largest difference of log-odds between torch and an fp32 engine"
    )
    int8_tolerance: Positive = Field(
        default=0.25, description="difference of log-odds that verify accepts for int8 on another processor"
    )


# Calibrators by slice are not offered: the engine decides without slices, and would use their global map.
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
]


class CalibrateConfig(Section):
    """Phase calibrate: from the scores of the exported engine to probabilities."""

    method: Literal["auto", CalibratorName] = Field(
        default="auto", description="'auto' chooses by cross-validated NLL with the one-standard-error rule"
    )
    candidates: tuple[CalibratorName, ...] = Field(
        default=("temperature", "platt", "beta", "isotonic"), description="members that 'auto' chooses from"
    )
    fraction: Fraction = Field(
        default=0.5, description="share of val_calib for the calibrator; the rest is kept for the certificate"
    )
    folds: int = Field(default=5, ge=2, le=50, description="folds of the choice between methods")


class DecideConfig(Section):
    """Phase decide: the policy and its certificate."""

    policy: Literal["threshold", "argmax", "ltt", "crc", "lac", "mondrian", "aps", "scrc", "crcp", "sgr", "gate"] = (
        Field(default="threshold", description="the one policy of the bundle")
    )
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


class RunConfig(Section):
    """One run: everything that decides its result."""

    data: str = Field(description="folder of images, table of images, or 'synthetic'")
    out: Path = Field(description="folder of the run")
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of everything that draws")
    source: SourceConfig = Field(default_factory=SourceConfig, description="how the data are read")
    split: SplitConfig = Field(default_factory=SplitConfig, description="split roles")
    views: ViewSpec = Field(default_factory=ViewSpec, description="views of an image")
    model: ModelConfig = Field(default_factory=ModelConfig, description="backbone")
    train: TrainConfig = Field(default_factory=TrainConfig, description="phase train")
    fuse: FuseConfig = Field(default_factory=FuseConfig, description="phase fuse")
    export: ExportConfig = Field(default_factory=ExportConfig, description="phase export")
    calibrate: CalibrateConfig = Field(default_factory=CalibrateConfig, description="phase calibrate")
    decide: DecideConfig = Field(default_factory=DecideConfig, description="phase decide")
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig, description="phase evaluate")
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="loggers")
    compute: ComputeConfig = Field(default_factory=ComputeConfig, description="threads and devices")
    cache: CacheConfig = Field(default_factory=CacheConfig, description="feature cache")

    @model_validator(mode="after")
    def _synthetic_or_not(self) -> RunConfig:
        if self.source.kind == "synthetic" and self.data != "synthetic":
            raise ValueError("source.kind=synthetic goes with data=synthetic only")
        return self
