"""Every key of a run, typed and documented; ``workzone config docs`` is generated from these models.

The models hold no behaviour. Values are checked on construction, unknown keys are refused, and the resolved object is
stored with the run.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from workzone.config.pretraining import PretrainConfig
from workzone.config.terms import loss_text
from workzone.config.views import ViewSpec

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
EngineName = Literal["onnxruntime", "openvino"]
LossText = Annotated[str, BeforeValidator(loss_text)]
AugmentName = Literal[
    "none",
    "light",
    "standard",
    "streetvision",
    "autoaugment",
    "trivialaugment",
    "randaugment_3",
    "randaugment_5",
    "randaugment_7",
    "augmix_3",
    "augmix_5",
    "augmix_7",
]
OptimizerName = Literal["adamw", "sam", "asam", "sophia", "schedule_free", "ademamix", "muon"]
Precision = Literal["fp32", "bf16", "int8"]
Variant = Annotated[str, Field(pattern=r"^(onnxruntime-(fp32|int8)|openvino-(fp32|bf16|int8))$")]


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
    file: Path | None = Field(default=None, description="a splits.json to obey instead of making one")

    @model_validator(mode="after")
    def _sum(self) -> SplitConfig:
        total = self.train + self.val_select + self.val_calib + self.val_test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"the four shares must sum to 1, they sum to {total:g}")
        return self


class ModelConfig(Section):
    """The backbone and its weights."""

    backbone: str = Field(
        default="efficientnet_lite0",
        description="name in the backbone registry; names joined by + put frozen backbones side by side",
    )
    weights: str | None = Field(
        default=None,
        description="safetensors file, or 'hub'; empty takes the weights that come as a package, where there are any; "
        "for joined backbones joined by + as well, 'package' for a part without a file",
    )
    image_size: int = Field(
        default=224, ge=32, le=1024, description="side of one view in pixels, a multiple of the patch size"
    )
    pooling: Literal["auto", "cls", "avg", "max", "cls_avg", "avg_max"] = Field(
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
    rslora: bool = Field(default=False, description="divide alpha by the root of the rank instead of the rank")
    auxiliary: bool = Field(
        default=False, description="doran: make the factors of qkv by small shared networks; needs init=zero"
    )
    open_blocks: int = Field(default=1, ge=0, le=8, description="explora: last blocks that are trained whole")

    @model_validator(mode="after")
    def _start_of_auxiliary(self) -> AdapterConfig:
        if self.auxiliary and self.init != "zero":
            raise ValueError("auxiliary networks start from zero: set init=zero")
        return self


class TrainConfig(Section):
    """Phase train: adaptation of the backbone, and the head that looks once."""

    method: Literal["frozen", "lora", "dora", "doran", "explora", "full"] = Field(
        default="frozen", description="what of the backbone is trained"
    )
    adapter: AdapterConfig = Field(default_factory=AdapterConfig, description="for lora, dora, doran and explora")
    epochs: int = Field(default=30, ge=1, le=10_000, description="most epochs; early stopping may end sooner")
    batch_size: int = Field(default=32, ge=1, le=65_536, description="images in one step")
    loss: LossText = Field(
        default="cross_entropy", description="loss or weighted sum, such as focal or supcon+cross_entropy"
    )
    optimizer: OptimizerName = Field(default="adamw", description="optimiser of head and adapters")
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
    augment: AugmentName = Field(
        default="light",
        description="augmentation of images that are trained on: a preset, what StreetVision does, or a policy",
    )
    mixup: float = Field(default=0.0, ge=0, le=10, description="alpha of MixUp between images, 0 for none")
    cutmix: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="alpha of CutMix, 0 for none; a pasted rectangle may hide the one cone of a picture",
    )
    cutmix_pairs: Literal["same", "any"] = Field(
        default="same", description="whether CutMix pastes within a class, or anywhere with labels by area"
    )
    multiscale: bool = Field(default=False, description="take each step at 0.75 to 1.25 of the image size")
    views: int = Field(
        default=0, ge=0, le=64, description="random tiles beside the whole image in each step, 0 for the whole alone"
    )
    view_pool: Literal["topk_mean", "logsumexp"] = Field(
        default="topk_mean", description="how scores of views become that of the image; topk_mean trains the k highest"
    )
    view_k: int = Field(default=2, ge=1, le=64, description="views averaged by topk_mean")
    strategy: Literal["auto", "ddp", "fsdp2"] = Field(
        default="auto", description="how several processes share the training: copies (ddp), or pieces of the weights"
    )
    processes: int = Field(
        default=1, ge=1, le=64, description="processes that adapt the backbone on each machine, one to a device"
    )
    nodes: int = Field(default=1, ge=1, le=4096, description="machines that adapt the backbone")
    rendezvous: str | None = Field(
        default=None, description="host:port of this machine where the others join in; needed when nodes is above 1"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="'auto' takes what the hardware does best"
    )
    compile: bool = Field(default=False, description="torch.compile; worth its time on CUDA only")
    deterministic: bool = Field(default=True, description="ask torch for deterministic kernels")

    @model_validator(mode="after")
    def _what_goes_together(self) -> TrainConfig:
        if self.views and self.cutmix:
            raise ValueError("cutmix would paste between tiles of different places: with views use mixup, or cutmix=0")
        if self.nodes > 1 and not self.rendezvous:
            raise ValueError("nodes above 1 need a place to meet: set rendezvous=HOST:PORT of the first machine")
        if self.strategy == "fsdp2" and self.ema:
            raise ValueError("a moving average of sharded weights is not kept: use ema=0 with strategy=fsdp2")
        return self


class AugmentConfig(Section):
    """Phase augment: short trainings that choose train.augment, on a part of role train held back for them."""

    search: bool = Field(default=False, description="whether the phase runs at all")
    policies: tuple[AugmentName, ...] = Field(
        default=(
            "autoaugment",
            "trivialaugment",
            "randaugment_3",
            "randaugment_5",
            "randaugment_7",
            "augmix_3",
            "augmix_5",
            "augmix_7",
        ),
        description="what is compared with train.augment",
    )
    epochs: int = Field(default=3, ge=1, le=100, description="epochs of a trial")
    seeds: int = Field(default=1, ge=1, le=20, description="trials of each policy, from different seeds")
    held: Fraction = Field(default=0.2, description="share of role train, in whole groups, that trials are judged on")
    minutes: Positive = Field(default=30.0, le=100_000, description="time after which no further trial starts")


class FuseConfig(Section):
    """Phase fuse: the aggregator over the views of an image, on cached features."""

    aggregator: Literal[
        "attention", "topk_mean", "logsumexp", "attention_mlp", "noisy_or", "view_attention", "mix"
    ] = Field(default="topk_mean", description="how views become one score; mix takes several in turn")
    k: int = Field(default=3, ge=1, le=64, description="views averaged by topk_mean")
    sharpness: Positive = Field(default=1.0, le=100, description="of logsumexp: near 0 a mean, large a maximum")
    learn_sharpness: bool = Field(default=True, description="whether logsumexp trains its sharpness")
    heads: int = Field(default=4, ge=1, le=64, description="heads of view_attention; they divide hidden")
    spatial: Literal["proximity", "learned", "none"] = Field(
        default="proximity", description="how view_attention scores positions"
    )
    backend: Literal["sdpa", "flex"] = Field(
        default="sdpa", description="kernel of view_attention; flex trains on CUDA only"
    )
    epochs: int = Field(default=60, ge=1, le=10_000, description="most epochs; early stopping may end sooner")
    batch_size: int = Field(default=64, ge=1, le=65_536, description="images in one step")
    lr: Positive = Field(default=1e-3, description="peak learning rate")
    weight_decay: float = Field(default=0.05, ge=0, description="decoupled weight decay on matrices")
    hidden: int = Field(default=128, ge=0, le=8192, description="hidden width of the view scorer, 0 for linear")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="dropout on features and hidden units")
    view_dropout: float = Field(default=0.1, ge=0, lt=1, description="share of tiles hidden in training")
    loss: LossText = Field(
        default="cross_entropy", description="loss or weighted sum, such as focal or 0.9*lcron+0.1*koleo"
    )
    optimizer: OptimizerName = Field(default="adamw", description="optimiser")
    class_balance: Literal["none", "weights", "sampler"] = Field(
        default="none", description="let both classes count the same, by weights in the loss or by drawing"
    )
    curriculum: float = Field(
        default=0.0, ge=0, le=1, description="share of the epochs that go from easy images to all, 0 for none"
    )
    mixup: float = Field(default=0.0, ge=0, le=10, description="alpha of MixUp between embeddings, 0 for none")
    hard_negative_weight: Positive = Field(
        default=1.0, le=100, description="weight in the loss of images marked in the column hard_negative"
    )
    mixture: Literal["none", "manifest", "adaptive"] = Field(
        default="none",
        description="obey the columns sample_weight and loss_weight that data fuse wrote; adaptive also moves "
        "the shares of its data sets by their losses",
    )
    mixture_every: int = Field(default=5, ge=1, le=10_000, description="epochs between moves of the shares")
    dann: float = Field(
        default=0.0, ge=0, le=10, description="weight of domain-adversarial training between data sets, 0 for none"
    )
    refine_rounds: int = Field(
        default=0, ge=0, le=10, description="further trainings that also learn from tiles labelled by the one before"
    )
    instance_weight: float = Field(default=0.5, ge=0, le=100, description="weight of those tiles in the loss")
    patience: int = Field(default=15, ge=1, description="epochs without a better validation score before stopping")
    members: int = Field(default=5, ge=1, le=64, description="heads trained from different seeds and averaged")

    @model_validator(mode="after")
    def _one_way_to_weigh(self) -> FuseConfig:
        if self.mixture != "none" and (self.class_balance != "none" or self.curriculum or "lcron" in self.loss):
            raise ValueError(
                "mixture weighs the images already: use class_balance=none, curriculum=0 and no lcron loss"
            )
        if self.dann and self.mixup:
            raise ValueError("dann needs images of one data set each: use mixup=0")
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
        default=0.5, description="share of val_calib for the calibrator; the rest is kept for the certificate"
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
        description="cascade: views seen by each stage, the last one all; empty takes 0.2 and 0.4 of them, and all",
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

    @model_validator(mode="after")
    def _synthetic_or_not(self) -> RunConfig:
        if self.source.kind == "synthetic" and self.data != "synthetic":
            raise ValueError("source.kind=synthetic goes with data=synthetic only")
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
    def _training_on_images(self) -> RunConfig:
        if self.augment.search and self.train.method == "frozen":
            raise ValueError(
                "augment.search chooses how images are augmented, and train.method=frozen trains on none: take another "
                "train.method"
            )
        tiles = self.views.rows * self.views.cols if self.views.layout == "grid" else 0
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
        tiles = views.rows * views.cols if views.layout == "grid" else 0
        count = (len(views.scales) + tiles) * (2 if views.flip else 1)
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
