from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from workzone.config.models import AdapterConfig
from workzone.errors import ConfigError
from workzone.models.adapters import adapted_layers, apply_adapter, merge, trainable_parameters
from workzone.models.adapters import lora as lora_module
from workzone.models.backbones import BACKBONES, Backbone, save_backbone

METHODS = [(m, i) for m in ("lora", "dora") for i in ("zero", "pissa", "pissa_niter_4")]


def pixels(n: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (n, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("method", "init"), METHODS)
def test_identity_at_step_0_then_training_then_merge(tiny, method, init):
    base = tiny()
    before = base.fingerprint()
    adapted = apply_adapter(base, AdapterConfig(rank=4, alpha=4, dropout=0.0, init=init), method, seed=0)
    x = pixels()
    with torch.no_grad():
        start = base(x)
        torch.testing.assert_close(adapted(x), start, atol=1e-5, rtol=1e-5)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        adapted(x).pow(2).mean().backward()
        optimizer.step()
    with torch.no_grad():
        trained = adapted(x)
        assert (trained - start).abs().max() > 1e-3
        plain = merge(adapted)
        torch.testing.assert_close(plain(x), trained, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(adapted(x), trained)
    assert plain.network.state_dict().keys() == base.network.state_dict().keys()
    assert base.fingerprint() == before
    assert plain.fingerprint() != before


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_trainable_parameters_are_the_adapters_alone(tiny, method):
    adapted = apply_adapter(tiny(), AdapterConfig(rank=4), method, seed=0)
    shapes = [(96, 32), (32, 32), (128, 32), (32, 128)]
    expected = 2 * sum(4 * (o + i) + (o if method == "dora" else 0) for o, i in shapes)
    assert trainable_parameters(adapted) == expected
    assert all("lora_" in n for n, p in adapted.named_parameters() if p.requires_grad)


def test_same_seed_same_adapter(tiny):
    a, b, c = (apply_adapter(tiny(), AdapterConfig(init="zero"), "lora", seed=s) for s in (1, 1, 2))
    key = next(k for k in a.state_dict() if "lora_A" in k)
    assert torch.equal(a.state_dict()[key], b.state_dict()[key])
    assert not torch.equal(a.state_dict()[key], c.state_dict()[key])


def test_careless_names_would_hit_the_patch_convolution(tiny):
    names = [n for n, _ in tiny().network.named_modules()]
    careless = [n for n in names if n.split(".")[-1] in ("qkv", "proj", "fc1", "fc2")]
    assert "patch_embed.proj" in careless
    assert sorted(adapted_layers(tiny())) == sorted(set(careless) - {"patch_embed.proj"})


def test_another_number_of_layers_stops(tiny, monkeypatch):
    backbone = tiny()
    backbone.network.blocks[1].attn.proj = nn.Identity()
    with pytest.raises(ConfigError, match=r"7 layers .* 8 were expected"):
        apply_adapter(backbone, AdapterConfig(), "lora", seed=0)
    monkeypatch.setitem(lora_module._PATTERNS, "vit", r".*attn\.qkv")
    with pytest.raises(ConfigError, match="2 layers"):
        adapted_layers(tiny())


def test_convolutional_backbones_are_refused_with_the_reason():
    spec = BACKBONES["efficientnet_lite0"]
    network = nn.Conv2d(3, 4, 1)
    network.num_features = 4
    backbone = Backbone("efficientnet_lite0", spec, network, image_size=32, pooling="avg")
    with pytest.raises(ConfigError, match=r"convolutions.*frozen or full"):
        apply_adapter(backbone, AdapterConfig(), "dora", seed=0)


@pytest.mark.parametrize("name", [n for n, s in BACKBONES.items() if s.family != "conv"])
def test_pattern_fits_every_registered_transformer(name):
    import timm

    spec = BACKBONES[name]
    with torch.device("meta"):
        network = timm.create_model(spec.timm_name, pretrained=False, num_classes=0)
    pattern = lora_module._PATTERNS[spec.family]
    found = [n for n, m in network.named_modules() if re.fullmatch(pattern, n) and isinstance(m, nn.Linear)]
    assert len(found) == 4 * len(network.blocks)


def test_unmerged_adapters_cannot_be_saved(tiny, tmp_path):
    with pytest.raises(ValueError, match="merge"):
        save_backbone(apply_adapter(tiny(), AdapterConfig(), "lora", seed=0), tmp_path)
