from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from workzone.config.load import load_config
from workzone.config.run import ModelConfig
from workzone.errors import ConfigError
from workzone.models.backbones import JointBackbone, create_backbone
from workzone.models.backbones.create import PACKAGE


def pixels(n: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_joint_backbone_is_its_parts_side_by_side(tiny) -> None:
    parts = [tiny(seed=0), tiny(seed=1, pooling="avg_max")]
    joint = JointBackbone(parts).eval()
    x = pixels(3, 32)
    with torch.inference_mode():
        assert torch.equal(joint(x), torch.cat([p(x) for p in parts], dim=1))
    assert joint.embedding_dim == 32 + 64
    assert joint.name == "tiny+tiny"
    assert joint.fingerprint() != JointBackbone(parts[::-1]).fingerprint()
    with pytest.raises(ValueError, match="one image size"):
        JointBackbone([tiny(), tiny(image_size=64)])


def test_it_exports_as_one_graph(tiny, tmp_path: Path) -> None:
    from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine
    from workzone.export.onnx import export_backbone

    joint = JointBackbone([tiny(seed=0), tiny(seed=1, pooling="max")]).eval()
    export_backbone(joint, tmp_path)
    engine = OnnxRuntimeEngine.open(tmp_path, threads=1, head=False)
    x = pixels(4, 32)
    with torch.inference_mode():
        np.testing.assert_allclose(engine.embed(x.numpy()), joint(x).numpy(), atol=1e-4)


def test_weights_are_joined_like_names() -> None:
    found = create_backbone(
        ModelConfig(backbone="efficientnet_lite0+efficientnet_lite0", weights=f"{PACKAGE}+{PACKAGE}", image_size=64)
    )
    assert isinstance(found, JointBackbone)
    assert found.embedding_dim == 2 * create_backbone(ModelConfig(image_size=64)).embedding_dim
    with pytest.raises(ConfigError, match="2 backbones need 2 weights"):
        create_backbone(ModelConfig(backbone="efficientnet_lite0+efficientnet_lite0", weights=PACKAGE, image_size=64))


def test_paths_of_joined_weights_are_made_absolute_and_adaptation_is_refused() -> None:
    words = ["data=synthetic", "out=x", "model.backbone=efficientnet_lite0+dinov2_vits14"]
    config = load_config([*words, "model.weights=package+w.safetensors"])
    assert config.model.weights == f"package+{Path('w.safetensors').resolve()}"
    with pytest.raises(ConfigError, match="adapts one backbone"):
        load_config([*words, "train.method=lora"])
