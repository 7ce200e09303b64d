"""Which linear layers of a backbone adapters replace, by name and counted."""

from __future__ import annotations

import re
from typing import Any, Literal, cast

from torch import nn

from workzone.errors import ConfigError
from workzone.models.backbones import Backbone

Part = Literal["all", "query_value"]

# Names alone would also hit the patch convolution ("patch_embed.proj"), hence full names inside the blocks.
_INSIDE = re.compile(r"blocks\.(\d+)\.(attn|mlp)\.(\w+)")
_ATTENTION = ({"qkv", "proj"}, {"q_proj", "k_proj", "v_proj", "proj"})
_MLP = ({"fc1", "fc2"}, {"fc1_g", "fc1_x", "fc2"})
# The rows of K cannot be told from those of Q and V in one fused matrix, so all of it is adapted.
_QUERY_VALUE = ({"qkv"}, {"q_proj", "v_proj"})


def adapted_layers(backbone: Backbone, part: Part = "all") -> list[str]:
    """Names of the linear layers that adapters replace.

    ``all`` takes the attention and the MLP of every block: ``qkv`` (or ``q_proj``, ``k_proj``, ``v_proj``), ``proj``,
    ``fc1`` (or ``fc1_g`` and ``fc1_x`` where the MLP is a SwiGLU) and ``fc2``. ``query_value`` takes ``qkv`` (or
    ``q_proj`` and ``v_proj``) alone.

    Raises:
        ConfigError: the family has no such layers, or a block has others than a known layout.
    """
    network = cast(Any, backbone.network)
    if backbone.spec.family == "conv":
        grouped = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
        count = sum(isinstance(m, nn.Conv2d) for m in network.modules())
        raise ConfigError(
            f"backbone {backbone.name} has no adapters: its {count} layers are convolutions ({len(grouped)} of them "
            "depthwise, whose weights have no low-rank update), which PiSSA and these adapters do not support",
            where="train.method",
            fix="take method frozen or full, or a ViT backbone such as dinov2_vits14",
        )
    found: dict[int, dict[str, set[str]]] = {i: {"attn": set(), "mlp": set()} for i in range(len(network.blocks))}
    names: list[str] = []
    for name, module in network.named_modules():
        match = _INSIDE.fullmatch(name)
        if match is not None and isinstance(module, nn.Linear):
            found[int(match[1])][match[2]].add(match[3])
            names.append(name)
    for index, block in found.items():
        if block["attn"] not in _ATTENTION or block["mlp"] not in _MLP:
            seen = ", ".join(sorted(block["attn"] | block["mlp"])) or "none"
            raise ConfigError(
                f"block {index} of {backbone.name} has the linear layers {seen}, which is no layout that adapters know",
                where="train.method",
                fix="take method frozen or full, or another backbone",
            )
    if part == "all":
        return names
    chosen = next(q for q in _QUERY_VALUE if q <= found[0]["attn"])
    picked = [n for n in names if n.rpartition(".")[2] in chosen]
    expected = len(found) * len(chosen)
    if len(picked) != expected:
        raise ConfigError(
            f"{len(picked)} layers of {backbone.name} hold queries and values, {expected} were expected",
            where="train.method",
            fix="take method lora, frozen or full",
        )
    return picked


def call_the_layers(network: nn.Module) -> None:
    """Make every attention call its ``qkv`` layer.

    timm's EVA blocks with query and value biases read the weight of ``qkv`` past the layer, so an adapter around it
    would train on nothing; the same blocks have a switch that adds the biases after a call, with equal results.
    """
    module: Any
    for module in network.modules():
        if getattr(module, "q_bias", None) is not None and hasattr(module, "qkv_bias_separate"):
            module.qkv_bias_separate = True
