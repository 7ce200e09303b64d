"""LoRA and DoRA, with zero or PiSSA initialisation, through peft."""

from __future__ import annotations

import copy
import re
import warnings
from typing import Any, Literal, cast

import torch
from torch import nn

from workzone.config.models import AdapterConfig
from workzone.errors import ConfigError
from workzone.models.backbones import Backbone

Method = Literal["lora", "dora"]

# Names alone would also hit the patch convolution ("patch_embed.proj"), hence one full-match pattern per family.
_PATTERNS = {
    "vit": r"(?:.*\.)?blocks\.\d+\.(?:attn\.(?:qkv|proj)|mlp\.(?:fc1|fc2))",
    "eva": r"(?:.*\.)?blocks\.\d+\.(?:attn\.(?:qkv|proj)|mlp\.(?:fc1|fc2))",
}
_PER_BLOCK = 4


def adapted_layers(backbone: Backbone) -> list[str]:
    """Names of the linear layers that adapters replace: qkv, proj, fc1 and fc2 of every block.

    Raises:
        ConfigError: the family has no such layers, or their number is not four per block.
    """
    pattern = _PATTERNS.get(backbone.spec.family)
    if pattern is None:
        raise ConfigError(
            f"backbone {backbone.name} has no adapters: its layers are convolutions, which PiSSA and these adapters "
            "do not support",
            where="train.method",
            fix="take method frozen or full, or a ViT backbone such as dinov2_vits14",
        )
    names = [n for n, m in backbone.network.named_modules() if re.fullmatch(pattern, n) and isinstance(m, nn.Linear)]
    blocks = len(cast(Any, backbone.network).blocks)
    if len(names) != blocks * _PER_BLOCK:
        raise ConfigError(
            f"{len(names)} layers of {backbone.name} match the adapter pattern, {blocks * _PER_BLOCK} were expected "
            f"({_PER_BLOCK} in each of {blocks} blocks)",
            where="train.method",
            fix="take method frozen or full, or another backbone",
        )
    return names


def apply_adapter(backbone: Backbone, config: AdapterConfig, method: Method, seed: int) -> Backbone:
    """Return a copy of ``backbone`` whose linear layers carry trainable low-rank updates; all else is frozen.

    The output is unchanged at step 0. With PiSSA the factors start as the principal part of the weights and the frozen
    weights become the residual, so only merged weights may be saved.

    References: Hu et al. 2021 (arXiv 2106.09685); Liu et al. 2024 (arXiv 2402.09353); Meng et al. 2024
    (arXiv 2404.02948).

    Raises:
        ConfigError: the backbone cannot be adapted.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = adapted_layers(backbone)
    adapted = copy.deepcopy(backbone)
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        init_lora_weights=True if config.init == "zero" else config.init,
        use_dora=method == "dora",
        target_modules=_PATTERNS[backbone.spec.family],
    )
    for parameter in adapted.parameters():
        parameter.requires_grad_(False)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="peft")
        torch.manual_seed(seed)
        adapted.network = inject_adapter_in_model(settings, adapted.network)
    if len(_adapter_layers(adapted)) != len(names):
        raise ConfigError(f"adapters were put on {len(_adapter_layers(adapted))} layers instead of {len(names)}")
    return adapted.train(backbone.training)


def merge(backbone: Backbone) -> Backbone:
    """Return a plain backbone with the updates folded into the weights; the argument is left as it is."""
    plain = copy.deepcopy(backbone)
    for name, layer in _adapter_layers(plain):
        layer.merge(safe_merge=True)
        owner, _, attribute = name.rpartition(".")
        setattr(plain.network.get_submodule(owner), attribute, layer.get_base_layer())
    for parameter in plain.parameters():
        parameter.requires_grad_(False)
    if hasattr(plain.network, "peft_config"):
        del plain.network.peft_config
    return plain.eval()


def trainable_parameters(module: nn.Module) -> int:
    """Number of parameters that receive gradients."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _adapter_layers(backbone: Backbone) -> list[tuple[str, Any]]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(n, m) for n, m in backbone.network.named_modules() if isinstance(m, BaseTunerLayer)]
