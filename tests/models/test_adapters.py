from __future__ import annotations

import pytest
import torch
from torch import nn

from workzone.config.run import AdapterConfig
from workzone.errors import ConfigError
from workzone.models.adapters import METHODS, adapted_layers, apply_adapter, merge, trainable_parameters
from workzone.models.adapters.doran import DoranLinear
from workzone.models.backbones import BACKBONES, Backbone, BackboneSpec, load_backbone, save_backbone

INITS = ("zero", "pissa", "pissa_niter_4")
ROWS = [
    *((m, {"init": i}) for m in METHODS for i in INITS),
    *((m, {"init": "zero", "rslora": True}) for m in METHODS),
    ("dora", {"init": "pissa", "rslora": True}),
    ("doran", {"init": "zero", "auxiliary": True}),
    ("explora", {"init": "zero", "open_blocks": 0}),
]
IDS = [f"{m}-{'-'.join(str(v) for v in s.values())}" for m, s in ROWS]


def settings(**changes: object) -> AdapterConfig:
    return AdapterConfig(**({"rank": 4, "alpha": 4, "dropout": 0.0} | changes))


def pixels(n: int = 2, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def eva(**changes: object) -> Backbone:
    """Small EVA blocks as DINOv3 has them: rotary positions, biases beside a fused qkv where asked for."""
    from timm.models.eva import Eva

    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Eva(**(shape | {"use_rot_pos_emb": True, "dynamic_img_size": False} | changes))
        for module in network.modules():
            if getattr(module, "q_bias", None) is not None:
                nn.init.normal_(module.q_bias)
                nn.init.normal_(module.v_bias)
    spec = BackboneSpec("tiny_eva", "eva", 8, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), "none", "cls")
    return Backbone("tiny_eva", spec, network, image_size=32, pooling="cls").eval()


def battery(base: Backbone, method: str, config: AdapterConfig) -> Backbone:
    """Identity, training, and parity after merging; returns the merged backbone."""
    before = base.fingerprint()
    adapted = apply_adapter(base, config, method, seed=0)
    x = pixels(4)
    goal = torch.randn(4, base.embedding_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        start = base(x)
        torch.testing.assert_close(adapted(x), start, atol=1e-5, rtol=1e-5)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = (adapted(x) - goal).pow(2).mean()
        loss.backward()
        # A norm before a classifier that is not there is open and unused.
        assert all(p.grad is not None for n, p in adapted.named_parameters() if "lora_" in n)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    with torch.no_grad():
        trained = adapted(x)
        assert (trained - start).abs().max() > 1e-3
        plain = merge(adapted)
        torch.testing.assert_close(plain(x), trained, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(adapted(x), trained)
    assert plain.network.state_dict().keys() == base.network.state_dict().keys()
    assert not any(p.requires_grad for p in plain.parameters())
    assert base.fingerprint() == before != plain.fingerprint()
    return plain


@pytest.mark.parametrize(("method", "changes"), ROWS, ids=IDS)
def test_battery(tiny, method, changes):
    battery(tiny(), method, settings(**changes))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "shape", [{}, {"swiglu_mlp": True, "swiglu_align_to": 8}, {"qkv_fused": False}, {"qkv_bias": False}]
)
def test_battery_on_eva_blocks(method, shape):
    """With fused qkv and biases of its own, timm reads the weight past the layer: an adapter would learn nothing."""
    backbone = eva(**shape)
    layers = adapted_layers(backbone)
    per_block = 4 + (1 if "swiglu_mlp" in shape else 0) + (2 if "qkv_fused" in shape else 0)
    assert len(layers) == 2 * per_block
    assert not any("patch_embed" in n for n in layers)
    battery(backbone, method, settings(init="zero"))


def test_query_and_value_biases_hide_the_layer_unless_it_is_called():
    backbone = eva()
    assert backbone.network.blocks[0].attn.q_bias is not None
    adapted = apply_adapter(backbone, settings(init="zero"), "lora", seed=0)
    adapted(pixels()).pow(2).mean().backward()
    gradients = [p.grad.abs().sum() for n, p in adapted.named_parameters() if "qkv" in n and "lora_B" in n]
    assert len(gradients) == 2
    assert all(g > 0 for g in gradients)


@pytest.mark.parametrize("method", METHODS)
def test_merged_weights_survive_the_disk(tmp_path, method):
    import timm

    base = _vit_t()
    plain = merge(_moved(apply_adapter(base, settings(init="zero"), method, seed=0)))
    save_backbone(plain, tmp_path)
    loaded = load_backbone(tmp_path)
    assert loaded.fingerprint() == plain.fingerprint() != base.fingerprint()
    assert timm.__version__


def _vit_t() -> Backbone:
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, global_pool="token")
    return Backbone("vit_t16", BACKBONES["vit_t16"], network, image_size=32, pooling="cls").eval()


def _moved(adapted: Backbone) -> Backbone:
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if p.requires_grad and ("lora_B" in name or "magnitude" in name):
                p.add_(0.01)
    return adapted


@pytest.mark.parametrize("method", METHODS)
def test_trainable_parameters_are_those_of_the_method(tiny, method):
    adapted = apply_adapter(tiny(), settings(init="zero"), method, seed=0)
    shapes = [(96, 32), (32, 32), (128, 32), (32, 128)]
    trained = {n for n, p in adapted.named_parameters() if p.requires_grad}
    if method == "explora":
        block = sum(p.numel() for p in tiny().network.blocks[1].parameters())
        norms = (2 + 1) * 2 * 32  # two norms of the first block and the last norm
        assert trainable_parameters(adapted) == block + norms + 4 * (96 + 32)
        assert {n.split(".")[3] for n in trained if "lora_" in n} == {"attn"}
        assert not any("lora_" in n and "blocks.1" in n for n in trained)
        assert not any("patch_embed" in n or "pos_embed" in n or "cls_token" in n for n in trained)
        return
    more = {"lora": lambda out: 0, "dora": lambda out: out, "doran": lambda out: out + 1}[method]
    assert trainable_parameters(adapted) == 2 * sum(4 * (o + i) + more(o) for o, i in shapes)
    assert all("lora_" in n for n in trained)


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_adapter(tiny, method):
    a, b, c = (apply_adapter(tiny(), settings(init="zero"), method, seed=s).state_dict() for s in (1, 1, 2))
    key = next(k for k in a if "lora_A" in k)
    assert torch.equal(a[key], b[key])
    assert not torch.equal(a[key], c[key])


def test_rank_stabilised_scale_is_by_the_root(tiny):
    """At rank 16 and equal factors the update of rsLoRA is four times that of LoRA."""
    updates = []
    for rslora in (False, True):
        adapted = apply_adapter(tiny(), settings(rank=16, alpha=16, init="zero", rslora=rslora), "lora", seed=0)
        layer = adapted.network.blocks[0].attn.qkv
        with torch.no_grad():
            layer.lora_B["default"].weight.fill_(0.01)
        updates.append(layer.get_delta_weight("default").detach())
    torch.testing.assert_close(updates[1], 4 * updates[0])


def test_tau_is_positive_learned_and_in_the_denominator():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = nn.Linear(8, 6)
    start = base.weight.detach().clone()
    layer = DoranLinear(base, rank=2, scale=1.0, dropout=0.0)
    norm = start.norm(dim=1)
    assert layer.tau.item() == pytest.approx(0.01 * float(norm.mean()), rel=1e-4)
    with torch.no_grad():
        layer.lora_B.normal_()
        layer.lora_rho.fill_(0.5)
        weight = start + layer.update()
        tau = torch.nn.functional.softplus(torch.tensor(0.5))
        wanted = (layer.lora_magnitude / (weight.norm(dim=1) + tau)).unsqueeze(1) * weight
        x = torch.randn(3, 8)
        torch.testing.assert_close(layer(x), x @ wanted.T + base.bias)
    layer(torch.randn(5, 8)).pow(2).mean().backward()
    assert float(layer.lora_rho.grad) != 0
    with torch.no_grad():
        layer.lora_rho.fill_(-50.0)
    assert float(layer.tau) > 0


def test_the_norm_is_a_constant_in_the_backward_pass():
    base = nn.Linear(8, 6, bias=False)
    layer = DoranLinear(base, rank=2, scale=1.0, dropout=0.0)
    with torch.no_grad():
        layer.lora_B.normal_()
    x = torch.randn(4, 8)
    layer(x).sum().backward()
    weight = base.weight + layer.update()
    ratio = (layer.lora_magnitude / (weight.norm(dim=1) + layer.tau)).detach()
    grad_weight = ratio.unsqueeze(1) * x.sum(dim=0)
    torch.testing.assert_close(layer.lora_B.grad[0], grad_weight.detach() @ layer.lora_A[0].T)


def test_a_row_of_zeros_has_finite_gradients():
    base = nn.Linear(8, 6)
    layer = DoranLinear(base, rank=2, scale=1.0, dropout=0.0)
    with torch.no_grad():
        base.weight[2] = 0.0
    layer(torch.randn(5, 8)).pow(2).mean().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in layer.parameters() if p.grad is not None)


def test_dropout_reaches_the_update_only():
    layer = DoranLinear(nn.Linear(8, 6), rank=2, scale=1.0, dropout=0.5).train()
    x = torch.randn(50, 8)
    torch.testing.assert_close(layer(x), layer.eval()(x))
    with torch.no_grad():
        layer.lora_B.normal_()
    assert not torch.allclose(layer.train()(x), layer.eval()(x))


def test_auxiliary_networks_share_their_first_layer(tiny):
    adapted = apply_adapter(tiny(), settings(init="zero", auxiliary=True), "doran", seed=0)
    attention = adapted.network.blocks[0].attn
    assert attention.qkv.lora_A.shape == (3, 4, 4)
    assert attention.qkv.lora_B.shape == (3, 32, 4)
    assert attention.qkv.lora_first_A.shape == (4, 32)
    assert attention.proj.lora_first_A is None
    with pytest.raises(ValueError, match="init=zero"):
        settings(auxiliary=True, init="pissa")


def test_careless_names_would_hit_the_patch_convolution(tiny):
    names = [n for n, _ in tiny().network.named_modules()]
    careless = [n for n in names if n.split(".")[-1] in ("qkv", "proj", "fc1", "fc2")]
    assert "patch_embed.proj" in careless
    assert sorted(adapted_layers(tiny())) == sorted(set(careless) - {"patch_embed.proj"})
    assert adapted_layers(tiny(), "query_value") == ["blocks.0.attn.qkv", "blocks.1.attn.qkv"]


def test_another_layout_stops(tiny):
    backbone = tiny()
    backbone.network.blocks[1].attn.proj = nn.Identity()
    with pytest.raises(ConfigError, match="block 1 of tiny has the linear layers fc1, fc2, qkv"):
        apply_adapter(backbone, AdapterConfig(), "lora", seed=0)
    with pytest.raises(ConfigError, match="2 open blocks leave none"):
        apply_adapter(tiny(), AdapterConfig(open_blocks=2), "explora", seed=0)


@pytest.mark.parametrize("method", METHODS)
def test_convolutional_backbones_are_refused_with_the_reason(method):
    spec = BACKBONES["efficientnet_lite0"]
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4))
    network.num_features = 4
    backbone = Backbone("efficientnet_lite0", spec, network, image_size=32, pooling="avg")
    with pytest.raises(ConfigError, match=r"2 layers are convolutions \(1 of them depthwise.*frozen or full"):
        apply_adapter(backbone, AdapterConfig(), method, seed=0)


MORE = {
    "vit_small_plus_patch16_dinov3": ("eva", 5),
    "vit_small_patch16_dinov3_qkvb": ("eva", 4),
    "vit_huge_plus_patch16_dinov3_qkvb": ("eva", 5),
}
NETWORKS = {s.timm_name: (s.family, 4) for s in BACKBONES.values() if s.family != "conv"} | MORE


@pytest.mark.parametrize("name", NETWORKS)
def test_resolver_fits_every_registered_transformer(name):
    import timm

    family, per_block = NETWORKS[name]
    spec = BackboneSpec(name, family, 16, (0.5,) * 3, (0.5,) * 3, "none", "cls")
    with torch.device("meta"):
        network = timm.create_model(name, pretrained=False, num_classes=0)
    backbone = Backbone(name, spec, network, image_size=224, pooling="cls")
    if "giant" in name:
        per_block = len({n.rpartition(".")[2] for n in adapted_layers(backbone)})
    assert len(adapted_layers(backbone)) == per_block * len(network.blocks)
    assert len(adapted_layers(backbone, "query_value")) == len(network.blocks)


def test_unmerged_adapters_cannot_be_saved(tiny, tmp_path):
    for method in METHODS:
        with pytest.raises(ValueError, match="merge"):
            save_backbone(apply_adapter(tiny(), AdapterConfig(), method, seed=0), tmp_path)
