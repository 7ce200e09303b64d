"""From settings to a backbone with real weights, and back to files."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from workzone.config.run import ModelConfig
from workzone.errors import ConfigError, WeightsError
from workzone.files import atomic_path, read_json, write_json
from workzone.models.backbones.base import Backbone
from workzone.models.backbones.joint import SEPARATOR, JointBackbone
from workzone.models.backbones.registry import BACKBONES, BackboneSpec, Pooling
from workzone.models.backbones.weights import load_weights

PACKAGE = "package"
WEIGHTS_FILE = "backbone.safetensors"
SETTINGS_FILE = "backbone.json"


def create_backbone(config: ModelConfig, *, drop_path: float = 0.0, checkpointing: bool = False) -> Backbone:
    """Build the backbone of ``config`` with its weights, in evaluation mode.

    Args:
        config: name, weights, image size and pooling. Names joined by ``+`` give a ``JointBackbone``; weights are then
            joined likewise, with ``package`` for a part whose weights come as a package.
        drop_path: stochastic depth in training mode.
        checkpointing: recompute activations to save memory in training.

    Raises:
        ConfigError: unknown name, image size or pooling.
        WeightsError: weights are missing or do not fit.
    """
    if SEPARATOR in config.backbone:
        parts = [create_backbone(part, drop_path=drop_path, checkpointing=checkpointing) for part in _parts(config)]
        return JointBackbone(parts).eval()
    backbone = _assemble(config, drop_path)
    load_weights(backbone.network, backbone.spec, config.backbone, config.weights)
    if checkpointing:
        cast(Any, backbone.network).set_grad_checkpointing(True)
    return backbone.eval()


def scratch_backbone(config: ModelConfig, *, seed: int, drop_path: float = 0.0) -> Backbone:
    """Build the backbone of ``config`` with random weights drawn by ``seed``: the start of a pretraining, nothing else.

    Raises:
        ConfigError: unknown name, image size or pooling, or weights were given besides.
    """
    if config.weights is not None:
        raise ConfigError(
            "weights were given and random ones asked for",
            where="model.weights and pretrain.start=scratch",
            fix="leave one of them out",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _assemble(config, drop_path).eval()


def _assemble(config: ModelConfig, drop_path: float) -> Backbone:
    spec = find_spec(config.backbone)
    pooling = _pooling(config, spec)
    for name, side in (("image_size", config.image_size), ("image_width", config.image_width)):
        if side % spec.patch:
            raise ConfigError(
                f"{name} {side} is not a multiple of {spec.patch}",
                where=f"model.{name}",
                fix=f"take {max(1, round(side / spec.patch)) * spec.patch}",
            )
    width = config.image_width or config.image_size
    network = _network(spec, (config.image_size, width), drop_path)
    return Backbone(
        config.backbone, spec, network, image_size=config.image_size, image_width=width, pooling=pooling
    )


def _parts(config: ModelConfig) -> list[ModelConfig]:
    names = config.backbone.split(SEPARATOR)
    given = [PACKAGE] * len(names) if config.weights is None else config.weights.split(SEPARATOR)
    if len(given) != len(names):
        raise ConfigError(
            f"{len(names)} backbones need {len(names)} weights, {len(given)} were given",
            where="model.weights",
            fix="join them by +, with 'package' where they come as a package",
        )
    pairs = zip(names, given, strict=True)
    return [
        config.model_copy(update={"backbone": name, "weights": None if weights == PACKAGE else weights})
        for name, weights in pairs
    ]


def find_spec(name: str, *, where: str = "model.backbone") -> BackboneSpec:
    """Row of the registry; raises ConfigError with the nearest names."""
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, n=3) or list(BACKBONES)
        raise ConfigError(f"unknown backbone {name!r}", where=where, fix=f"take one of: {', '.join(near)}")
    return BACKBONES[name]


def _pooling(config: ModelConfig, spec: BackboneSpec) -> Pooling:
    if config.pooling == "auto":
        return spec.pooling
    if config.pooling not in spec.poolings:
        raise ConfigError(
            f"backbone {config.backbone} has no class token, so pooling {config.pooling!r} does not exist",
            where="model.pooling",
            fix=f"take auto or {' or '.join(spec.poolings)}",
        )
    return config.pooling


def _network(spec: BackboneSpec, image_size: tuple[int, int], drop_path: float) -> Any:
    import timm

    settings: dict[str, Any] = {"pretrained": False, "num_classes": 0, "drop_path_rate": drop_path}
    if spec.family != "conv":
        # Pooling is done outside, so that no pooling norm with weights of its own appears for "avg".
        settings |= {"img_size": image_size, "global_pool": "token"}
    network: nn.Module = timm.create_model(spec.timm_name, **settings)
    return network


def save_backbone(backbone: Backbone, folder: Path) -> Path:
    """Write ``backbone.safetensors`` and ``backbone.json`` below ``folder``; adapters must have been merged.

    The safetensors file can also be given as ``model.weights``.
    """
    from safetensors.torch import save_file

    state = {k: v.detach().cpu().contiguous() for k, v in backbone.network.state_dict().items()}
    if any("lora_" in k for k in state):
        raise ValueError("merge the adapters before saving a backbone")
    target = folder / WEIGHTS_FILE
    with atomic_path(target) as partial:
        save_file(state, partial)
    write_json(
        folder / SETTINGS_FILE,
        {
            "name": backbone.name,
            "image_size": backbone.image_size,
            "image_width": backbone.image_width,
            "pooling": backbone.pooling,
            "fingerprint": backbone.fingerprint(),
        },
    )
    return target


def load_backbone(folder: Path, *, drop_path: float = 0.0, checkpointing: bool = False) -> Backbone:
    """Read what ``save_backbone`` wrote; raises WeightsError when the tensors are not those that were saved."""
    try:
        settings = read_json(folder / SETTINGS_FILE)
        config = ModelConfig(
            backbone=settings["name"],
            weights=str(folder / WEIGHTS_FILE),
            image_size=settings["image_size"],
            image_width=settings.get("image_width", 0),
            pooling=settings["pooling"],
        )
        expected = settings["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"the saved backbone cannot be read: {error}", where=str(folder)) from error
    backbone = create_backbone(config, drop_path=drop_path, checkpointing=checkpointing)
    if backbone.fingerprint() != expected:
        raise WeightsError("the tensors are not those that were saved", where=str(folder), fix="train again")
    return backbone
