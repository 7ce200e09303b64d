"""The one factory of Lightning trainers."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from workzone.config.run import TrackingConfig, TrainConfig
from workzone.errors import ConfigError, MissingExtraError
from workzone.files import atomic_path
from workzone.training.distributed import world

if TYPE_CHECKING:
    import lightning as L

LAST = "last.ckpt"
BEST = "best"


def pick_precision(asked: Literal["auto", "fp32", "bf16", "fp16"], device: str) -> str:
    """Lightning's name of the precision; ``auto`` is bf16 or fp16 on CUDA by capability and fp32 on the CPU.

    Raises:
        ConfigError: fp16 was asked for on the CPU.
    """
    if asked == "auto":
        if device != "cuda":
            return "32-true"
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    if asked == "fp16" and device != "cuda":
        raise ConfigError("fp16 needs a CUDA device", where="train.precision", fix="take auto, fp32 or bf16")
    return {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[asked]


def pick_device(asked: Literal["auto", "cpu", "cuda"]) -> str:
    """``cpu`` or ``cuda``; raises ConfigError when CUDA was asked for and is not there."""
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise ConfigError("torch finds no CUDA device", where="compute.device", fix="take cpu or auto")
    return "cuda" if asked != "cpu" and available else "cpu"


def make_trainer(
    config: TrainConfig,
    folder: Path,
    *,
    monitor: str,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    tracking: TrackingConfig | None = None,
    callbacks: Sequence[Any] = (),
    progress: bool | None = None,
) -> L.Trainer:
    """Trainer with early stopping, best and last checkpoints below ``folder``, loggers, EMA and progress bar.

    Under torch's launcher it is one of its processes: DDP, or FSDP2 where ``config.strategy`` says so.

    Args:
        config: epochs, precision, clipping, accumulation, patience, checkpoints kept, EMA, determinism.
        folder: receives ``checkpoints/`` and the files of the csv and tensorboard loggers.
        monitor: logged figure that selects, larger is better.
        device: where to train.
        tracking: loggers; None for csv alone.
        callbacks: further Lightning callbacks.
        progress: show a bar; None shows it on a terminal only.

    Raises:
        ConfigError: precision or device that this machine does not have.
        MissingExtraError: a logger's package is not installed.
    """
    import lightning as L
    from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint

    kind = pick_device(device)
    _, size, local = world()
    precision = pick_precision(config.precision, kind)
    strategy: Any = "auto"
    if size > 1 and config.strategy == "fsdp2":
        from lightning.pytorch.strategies import ModelParallelStrategy

        strategy = ModelParallelStrategy(
            data_parallel_size=size, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
        # The sharded modules cast by themselves.
        precision = "32-true"
    elif size > 1:
        strategy = "ddp"
    own: list[Any] = [
        EarlyStopping(monitor, mode="max", min_delta=config.min_delta, patience=config.patience),
        ModelCheckpoint(
            folder / "checkpoints",
            filename=f"{BEST}-{{epoch:04d}}",
            monitor=monitor,
            mode="max",
            save_top_k=config.keep,
            enable_version_counter=False,
        ),
        # A checkpoint of its own: the last state must be on disk also after an epoch that was not among the best.
        ModelCheckpoint(
            folder / "checkpoints",
            filename=Path(LAST).stem,
            save_top_k=1,
            monitor=None,
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
    ]
    if config.ema:
        own.append(EMAWeightAveraging(decay=config.ema))
    shown = sys.stderr.isatty() if progress is None else progress
    quiet()
    return L.Trainer(
        accelerator="gpu" if kind == "cuda" else "cpu",
        devices=local,
        num_nodes=size // local,
        strategy=strategy,
        plugins=[_whole_checkpoints()],
        use_distributed_sampler=False,
        precision=precision,
        max_epochs=config.epochs,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip or None,
        deterministic="warn" if config.deterministic else False,
        logger=make_loggers(tracking, folder),
        callbacks=[*own, *callbacks],
        default_root_dir=folder,
        enable_progress_bar=shown,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )


def _whole_checkpoints() -> Any:
    """Writer of checkpoints beside their place: a file appears under its name only when it is complete.

    Lightning's own writes to the folder of temporary files and moves; from another file system that is a copy, which a
    kill cuts short.
    """
    from lightning.pytorch.plugins.io import TorchCheckpointIO

    class WholeCheckpoints(TorchCheckpointIO):  # type: ignore[misc]
        def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
            with atomic_path(Path(path)) as partial:
                torch.save(checkpoint, partial)

    return WholeCheckpoints()


def make_loggers(tracking: TrackingConfig | None, folder: Path) -> list[Any]:
    """Loggers of ``tracking``; raises MissingExtraError naming the extra of one that is not installed."""
    from lightning.pytorch import loggers

    names = ("csv",) if tracking is None else tracking.loggers
    made: list[Any] = []
    for name in names:
        try:
            if name == "csv":
                made.append(loggers.CSVLogger(folder, name="logs", version="csv"))
            elif name == "tensorboard":
                made.append(loggers.TensorBoardLogger(folder, name="logs", version="tensorboard"))
            elif name == "mlflow":
                assert tracking is not None
                made.append(loggers.MLFlowLogger(tracking.experiment, tracking_uri=tracking.uri))
            else:
                assert tracking is not None
                made.append(loggers.WandbLogger(project=tracking.experiment, save_dir=folder))
        except ModuleNotFoundError as error:
            packages = {
                "mlflow": ("mlflow-skinny", "ops"),
                "wandb": ("wandb", "ops"),
                "tensorboard": ("tensorboard", "train"),
            }
            package, extra = packages.get(name, (name, "train"))
            raise MissingExtraError(package, extra, feature=f"the {name} logger") from error
    return made


def last_checkpoint(folder: Path) -> Path | None:
    """Checkpoint that a killed run resumes from, or None."""
    path = folder / "checkpoints" / LAST
    return path if path.is_file() else None


def epochs_done(checkpoint: Path) -> int:
    """Whole epochs that a checkpoint of the trainer has behind it."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return int(state["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])


def best_checkpoint(trainer: L.Trainer, monitor: str) -> Path:
    """Checkpoint with the best ``monitor`` of the run."""
    for callback in trainer.checkpoint_callbacks:
        if getattr(callback, "monitor", None) == monitor and getattr(callback, "best_model_path", ""):
            return Path(str(callback.best_model_path))
    raise RuntimeError(f"the trainer has no checkpoint by {monitor}")


def quiet() -> None:
    """Silence Lightning's announcements and its advice on settings that are deliberate here."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*treespec.*",
        ".*LeafSpec.*",
        ".*WeightAveraging callback.*",
    ):
        warnings.filterwarnings("ignore", text)
