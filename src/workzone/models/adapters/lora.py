"""Adapters on a backbone: LoRA and DoRA through peft, DoRAN and the ExPLoRA set-up by ourselves."""

from __future__ import annotations

import copy
import math
import re
import warnings
from typing import Any, Literal, cast

import torch
from torch import nn

from workzone.config.run import AdapterConfig
from workzone.errors import ConfigError
from workzone.models.adapters.doran import DoranLinear
from workzone.models.adapters.layers import adapted_layers, call_the_layers
from workzone.models.backbones import Backbone

Method = Literal["lora", "dora", "doran", "explora"]
METHODS: tuple[Method, ...] = ("lora", "dora", "doran", "explora")


def apply_adapter(backbone: Backbone, config: AdapterConfig, method: Method, seed: int) -> Backbone:
    """Return a copy of ``backbone`` with trainable low-rank updates; all else is frozen, except as ExPLoRA opens it.

    The output is unchanged at step 0. With PiSSA the factors start as the principal part of the weights and the frozen
    weights become the residual, so only merged weights may be saved. ``explora`` puts LoRA on queries and values alone
    and also trains every norm and the last ``config.open_blocks`` blocks, which get no LoRA.

    References: Hu et al. 2021 (arXiv 2106.09685); Kalajdzievski 2023 (rsLoRA, arXiv 2312.03732); Liu et al. 2024
    (arXiv 2402.09353); Meng et al. 2024 (arXiv 2404.02948); Khanna et al. 2024 (arXiv 2406.10973); Diep et al. 2025
    (arXiv 2510.04331).

    Raises:
        ConfigError: the backbone cannot be adapted.
    """
    names = adapted_layers(backbone, "query_value" if method == "explora" else "all")
    adapted = copy.deepcopy(backbone)
    for parameter in adapted.parameters():
        parameter.requires_grad_(False)
    if method == "explora":
        opened = open_parts(adapted, config.open_blocks)
        names = [n for n in names if not n.startswith(tuple(opened))]
    call_the_layers(adapted.network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if method == "doran":
            _put_doran(adapted, names, config)
        else:
            _put_peft(adapted, names, config, dora=method == "dora")
    if len(adapter_layers(adapted)) != len(names):
        raise ConfigError(f"adapters were put on {len(adapter_layers(adapted))} layers instead of {len(names)}")
    return adapted.train(backbone.training)


def open_parts(backbone: Backbone, blocks: int) -> list[str]:
    """Let every norm and the last ``blocks`` blocks train; returns the prefixes of the names of those blocks.

    Raises:
        ConfigError: no block would be left for LoRA.
    """
    network = cast(Any, backbone.network)
    count = len(network.blocks)
    if blocks >= count:
        raise ConfigError(
            f"{blocks} open blocks leave none of the {count} blocks of {backbone.name} to adapt",
            where="adapter.open_blocks",
            fix="open 1 or 2 blocks",
        )
    for module in network.modules():
        if isinstance(module, nn.LayerNorm) or type(module).__name__ in ("LayerNorm", "RmsNorm", "RMSNorm"):
            module.requires_grad_(True)
    for block in network.blocks[count - blocks :]:
        block.requires_grad_(True)
    return [f"blocks.{i}." for i in range(count - blocks, count)]


def merge(backbone: Backbone) -> Backbone:
    """Return a plain backbone with the updates folded into the weights; the argument is left as it is."""
    plain = copy.deepcopy(backbone)
    for name, layer in adapter_layers(plain):
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


def adapter_layers(backbone: Backbone) -> list[tuple[str, Any]]:
    """Names and modules of the adapters on ``backbone``."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(n, m) for n, m in backbone.network.named_modules() if isinstance(m, BaseTunerLayer | DoranLinear)]


def _put_peft(backbone: Backbone, names: list[str], config: AdapterConfig, *, dora: bool) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        init_lora_weights=True if config.init == "zero" else config.init,
        use_dora=dora,
        use_rslora=config.rslora,
        target_modules="|".join(re.escape(n) for n in names),
    )
    opened = [p for p in backbone.parameters() if p.requires_grad]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="peft")
        backbone.network = inject_adapter_in_model(settings, backbone.network)
    # peft freezes all that is no adapter.
    for parameter in opened:
        parameter.requires_grad_(True)


def _put_doran(backbone: Backbone, names: list[str], config: AdapterConfig) -> None:
    scale = config.alpha / (math.sqrt(config.rank) if config.rslora else config.rank)
    for name in names:
        owner, _, attribute = name.rpartition(".")
        parent = backbone.network.get_submodule(owner)
        layer = DoranLinear(
            getattr(parent, attribute),
            rank=config.rank,
            scale=scale,
            dropout=config.dropout,
            init=config.init,
            auxiliary=config.auxiliary and attribute == "qkv",
        )
        setattr(parent, attribute, layer)
