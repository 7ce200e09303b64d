"""Keys of the phase pretrain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from workzone.config.base import Fraction, Positive, Section

Weight = Annotated[float, Field(ge=0.0, le=1000.0)]
PretrainMethod = Literal["none", "byol", "swav", "dino", "hybrid", "distil"]


class ExploraConfig(Section):
    """Adapters of ``pretrain.trains=explora``: LoRA on queries and values, the last blocks and all norms open."""

    rank: int = Field(default=32, ge=1, le=256, description="rank of the update")
    alpha: Positive = Field(default=32.0, description="scale of the update")
    open_blocks: int = Field(default=1, ge=0, le=8, description="last blocks that are trained whole")


class SelfSupervisedConfig(Section):
    """Methods byol, swav, dino and hybrid: crops, heads and terms of the loss."""

    byol: Weight = Field(default=0.5, description="weight of BYOL in hybrid")
    swav: Weight = Field(default=0.5, description="weight of SwAV in hybrid")
    dino: Weight = Field(default=1.0, description="weight of DINO in hybrid")
    koleo: Weight = Field(default=0.1, description="weight of the term that spreads features, 0 for none")
    local_crops: int = Field(default=8, ge=0, le=32, description="small crops beside the two large ones")
    local_size: int = Field(default=0, ge=0, le=512, description="side of a small crop, 0 for 3/7 of the large one")
    global_scale: Fraction = Field(default=0.4, description="smallest share of the picture that a large crop shows")
    local_scale: Fraction = Field(default=0.05, description="smallest share of the picture that a small crop shows")
    momentum: float = Field(default=0.996, ge=0, lt=1, description="of the teacher at the start; it rises to 1")
    student_temperature: Positive = Field(default=0.1, le=10, description="DINO: of the student")
    teacher_temperature: Positive = Field(default=0.04, le=10, description="DINO: of the teacher at the start")
    last_teacher_temperature: Positive = Field(
        default=0.07, le=10, description="DINO: of the teacher from a third of the training on"
    )
    prototypes: int = Field(default=128, ge=2, le=65_536, description="outputs of DINO and prototypes of SwAV")
    queue: int = Field(default=1024, ge=0, le=1_048_576, description="SwAV: earlier features that join in")
    hidden: int = Field(default=512, ge=8, le=8192, description="hidden width of the heads")
    bottleneck: int = Field(default=128, ge=4, le=4096, description="output width of the projectors")
    keep: Literal["teacher", "student"] = Field(
        default="teacher", description="whose weights are the result: the moving average, or the network itself"
    )

    @model_validator(mode="after")
    def _sharpened(self) -> SelfSupervisedConfig:
        warmest = max(self.teacher_temperature, self.last_teacher_temperature)
        if warmest >= self.student_temperature:
            raise ValueError(
                f"the teacher's temperature ({warmest:g}) must stay below the student's "
                f"({self.student_temperature:g}): "
                "otherwise nothing sharpens the targets and the outputs drift to uniform"
            )
        return self


class DistilConfig(Section):
    """Method distil: what the student is asked to reproduce."""

    token: Weight = Field(default=1.0, description="weight of the class token (pooled features of a convolution)")
    feature: Weight = Field(default=1.0, description="weight of all tokens")
    patch: Weight = Field(default=1.0, description="weight of tokens whose patches were hidden from the student")
    mask_images: float = Field(default=0.5, ge=0, le=1, description="share of the images that are partly hidden")
    mask_ratio: Fraction = Field(default=0.5, description="share of the patches that are hidden in them")
    views: int = Field(default=1, ge=1, le=32, description="fixed crops of each image; the first shows all of it")

    @model_validator(mode="after")
    def _something_to_learn(self) -> DistilConfig:
        if not self.token + self.feature + self.patch:
            raise ValueError("token, feature and patch are all 0, so there is nothing to learn")
        return self


class PretrainConfig(Section):
    """Phase pretrain: the backbone learns from images without their labels, before it is trained."""

    method: PretrainMethod = Field(
        default="none", description="none skips the phase; hybrid adds byol, swav and dino; distil copies a teacher"
    )
    start: Literal["weights", "scratch"] = Field(
        default="weights", description="begin with the weights of model.weights, or with random ones"
    )
    trains: Literal["full", "explora"] = Field(
        default="full", description="every weight, or adapters and the last blocks"
    )
    explora: ExploraConfig = Field(default_factory=ExploraConfig, description="for trains=explora")
    unlabelled: Path | None = Field(
        default=None, description="folder or table of further images without labels, besides those of role train"
    )
    max_unlabelled: int = Field(default=0, ge=0, description="most of these images, drawn by the seed; 0 for all")
    image_size: int = Field(default=0, ge=0, le=1024, description="side of a large crop, 0 for model.image_size")
    epochs: int = Field(default=30, ge=1, le=100_000, description="passes over the images")
    batch_size: int = Field(default=64, ge=2, le=65_536, description="images in one step, on each device")
    lr: Positive = Field(default=5e-4, description="peak learning rate")
    weight_decay: float = Field(default=0.05, ge=0, description="decoupled weight decay on matrices")
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of the steps for linear warm-up")
    min_lr: float = Field(default=1e-6, ge=0, description="floor of the cosine schedule")
    clip: float = Field(default=3.0, ge=0, description="largest gradient norm, 0 for none")
    drop_path: float = Field(default=0.0, ge=0, lt=1, description="stochastic depth of the student")
    check_every: int = Field(
        default=5, ge=1, description="epochs between two checks of the features on the labelled images of role train"
    )
    folds: int = Field(default=5, ge=2, le=50, description="folds over groups of that check")
    patience: int = Field(default=20, ge=1, description="steps that outputs may look collapsed before the phase stops")
    checkpoint_seconds: Positive = Field(default=300.0, description="longest time between two checkpoints")
    ssl: SelfSupervisedConfig = Field(default_factory=SelfSupervisedConfig, description="byol, swav, dino, hybrid")
    distil: DistilConfig = Field(default_factory=DistilConfig, description="distil")
    teacher: str | None = Field(default=None, description="distil: backbone that is copied, such as dinov2_vits14")
    teacher_weights: str | None = Field(
        default=None, description="distil: safetensors file of the teacher, 'hub', or empty for a package"
    )
    teacher_size: int = Field(
        default=0, ge=0, le=1024, description="distil: side of the teacher's view, 0 for the student's patch grid"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> PretrainConfig:
        terms, codes = self.ssl, 2 * self.batch_size + self.ssl.queue
        if self.method in ("swav", "hybrid") and codes < terms.prototypes:
            raise ValueError(
                f"{terms.prototypes} prototypes cannot share {codes} features (two crops of a batch and the queue) "
                "evenly: take a longer ssl.queue or fewer ssl.prototypes"
            )
        if self.method == "hybrid" and not terms.byol + terms.swav + terms.dino:
            raise ValueError("byol, swav and dino are all 0, so hybrid has nothing to learn")
        if self.method == "distil" and self.teacher is None:
            raise ValueError("method distil copies a teacher: set pretrain.teacher, such as dinov2_vits14")
        if self.trains == "explora" and self.start == "scratch":
            raise ValueError("adapters on random weights make no sense: take start=weights or trains=full")
        return self
