"""Keys of the phases augment, train and fuse, and of the backbone they train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from workzone.config.base import Fraction, Positive, Section
from workzone.config.terms import loss_text

LossText = Annotated[str, BeforeValidator(loss_text)]
PolicyName = Literal[
    "autoaugment",
    "trivialaugment",
    "randaugment_3",
    "randaugment_5",
    "randaugment_7",
    "augmix_3",
    "augmix_5",
    "augmix_7",
]
"""Published policies."""
AugmentName = Literal["none", "light", "standard", "streetvision", PolicyName]
AUGMENTATIONS: tuple[str, ...] = get_args(AugmentName)
OptimizerName = Literal["adamw", "sam", "asam", "sophia", "schedule_free", "ademamix", "muon"]


def augment_of(words: Sequence[str]) -> dict[str, str]:
    """Augmentation by data set from words ``SET=NAME``.

    Raises:
        ValueError: another form, an unknown augmentation, or a data set that is named twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, sign, augmentation = word.rpartition("=")
        if not sign or not name or augmentation not in AUGMENTATIONS:
            raise ValueError(f"{word!r} is no SET=NAME with a name of {', '.join(AUGMENTATIONS)}")
        if name in found:
            raise ValueError(f"the data set {name!r} is named twice")
        found[name] = augmentation
    return found


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
    image_width: int = Field(
        default=0,
        ge=0,
        le=2048,
        description="width of one view where it is not square, image_size then being its height; 0 for square",
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
    augment_by: tuple[str, ...] = Field(
        default=(),
        description="augmentation of single data sets, SET=NAME, by column domain_set or source; others take augment",
    )
    mixture: Literal["none", "manifest"] = Field(
        default="none",
        description="obey the columns sample_weight and loss_weight that data fuse wrote, as fuse.mixture does",
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
    cutmix_sets: Literal["any", "other"] = Field(
        default="any", description="whether CutMix pastes from any image, or from another data set only"
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
    launcher: Literal["auto", "local", "torchrun", "ray"] = Field(
        default="auto",
        description="who starts the processes: torchrun (auto), for one machine alone (local), or a Ray cluster (ray)",
    )
    rendezvous: str | None = Field(
        default=None,
        description="host:port of this machine where the others join in; needed by torchrun when nodes is above 1",
    )
    ray_address: str | None = Field(
        default=None, description="host:port of a running Ray cluster; without it RAY_ADDRESS, or one started here"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="'auto' takes what the hardware does best"
    )
    compile: bool = Field(default=False, description="torch.compile; worth its time on CUDA only")
    deterministic: bool = Field(default=True, description="ask torch for deterministic kernels")

    @field_validator("augment_by")
    @classmethod
    def _known_augmentations(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        augment_of(words)
        return words

    @model_validator(mode="after")
    def _what_goes_together(self) -> TrainConfig:
        if self.cutmix_sets == "other" and not self.cutmix:
            raise ValueError("cutmix_sets=other chooses between images that CutMix pastes: set cutmix above 0")
        if self.views and self.cutmix:
            raise ValueError("cutmix would paste between tiles of different places: with views use mixup, or cutmix=0")
        if self.nodes > 1 and self.launcher == "local":
            raise ValueError("launcher=local is one machine: use launcher=torchrun or ray, or nodes=1")
        if self.nodes > 1 and self.launcher != "ray" and not self.rendezvous:
            raise ValueError("nodes above 1 need a place to meet: set rendezvous=HOST:PORT of the first machine")
        if self.strategy == "fsdp2" and self.ema:
            raise ValueError("a moving average of sharded weights is not kept: use ema=0 with strategy=fsdp2")
        return self


class AugmentConfig(Section):
    """Phase augment: short trainings that choose train.augment, on a part of role train held back for them."""

    search: bool = Field(default=False, description="whether the phase runs at all")
    policies: tuple[AugmentName, ...] = Field(
        default=get_args(PolicyName), description="what is compared with train.augment"
    )
    epochs: int = Field(default=3, ge=1, le=100, description="epochs of a trial")
    seeds: int = Field(default=1, ge=1, le=20, description="trials of each policy, from different seeds")
    held: Fraction = Field(default=0.2, description="share of role train, in whole groups, that trials are judged on")
    minutes: Positive = Field(default=30.0, le=100_000, description="time after which no further trial starts")


class FuseConfig(Section):
    """Phase fuse: the aggregator over the views of an image, on cached features."""

    aggregator: Literal["attention", "topk_mean", "logsumexp", "attention_mlp", "noisy_or", "view_attention", "mix"] = (
        Field(default="topk_mean", description="how views become one score; mix takes several in turn")
    )
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
    stages: tuple[int, ...] = Field(
        default=(),
        max_length=64,
        description="views seen by each early stage of a cascade in training, before the last one that sees all; empty "
        "takes the whole picture alone",
    )
    exit_loss: LossText | None = Field(
        default=None, description="loss of the scores of the early stages, such as gatekeeper; empty for none"
    )
    exit_weight: Positive = Field(default=1.0, le=100, description="weight of exit_loss beside loss")
    refine_rounds: int = Field(
        default=0, ge=0, le=10, description="further trainings that also learn from tiles labelled by the one before"
    )
    instance_weight: float = Field(default=0.5, ge=0, le=100, description="weight of those tiles in the loss")
    patience: int = Field(default=15, ge=1, description="epochs without a better validation score before stopping")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="factors of the products in training steps on a CPU: auto lets them be rounded to bf16 where the "
        "processor has instructions for it; sums, weights and scores are fp32",
    )
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
