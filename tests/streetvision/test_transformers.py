"""The one-view head as a transformers model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from conftest import HOTKEY
from helpers.command import environment
from workzone.calibration.beta import BetaCalibrator
from workzone.calibration.identity import IdentityCalibrator
from workzone.calibration.platt import PlattCalibrator
from workzone.errors import ConfigError
from workzone.files import write_json
from workzone.streetvision.publish import Card, publish_folder
from workzone.vision import Preprocessing

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
pytest.importorskip("transformers")

CARD = Card("tiny", "drawn scenes", "1.0.0", HOTKEY)
_LOAD = """
import json, sys
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
folder, picture = sys.argv[1:]
model = AutoModelForImageClassification.from_pretrained(folder).eval()
inputs = AutoImageProcessor.from_pretrained(folder)(images=[Image.open(picture)], return_tensors="pt")
print(json.dumps([model.config.id2label, model(**inputs).logits.softmax(-1)[0, 1].item()]))
"""


def linear_head(dim: int, *, members: int = 1, hidden: int = 0, scale: float = 0.3) -> object:
    from workzone.models.aggregators import Ensemble
    from workzone.models.aggregators.global_view import GlobalView

    torch.manual_seed(0)
    heads = [GlobalView(dim, hidden=hidden, dropout=0.1) for _ in range(members)]
    for head in heads:
        head.set_statistics(torch.randn(50, dim) * 2 + 0.5)
        torch.nn.init.normal_(head.scorer[-1].weight, std=scale)
    return Ensemble(heads).eval()


@pytest.fixture(scope="module")
def linear_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run with a linear one-view head of chance weights."""
    from workzone.export.onnx import export_head
    from workzone.models.storage import save_head
    from workzone.pipeline.artifacts import Artifacts

    run = shutil.copytree(tiny_run, tmp_path_factory.mktemp("linear") / "run")
    artifacts = Artifacts(run)
    head = linear_head(2560, scale=0.03)
    save_head(head, artifacts.train, name="probe")  # type: ignore[arg-type]
    export_head(head, artifacts.one_view_head.parent)  # type: ignore[arg-type]
    write_json(artifacts.one_view_calibrator("onnxruntime-fp32"), PlattCalibrator(0.8, -0.4).to_dict())
    return run


def test_published_model_loads_offline_and_says_the_same(linear_run: Path, tmp_path: Path) -> None:
    done = publish_folder(linear_run / "bundle", tmp_path / "repo", CARD, threshold=0.3, run=linear_run)
    assert "AutoModelForImageClassification" in done.transformers
    picture = tmp_path / "p.png"
    noise = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((224, 224)).save(picture)
    env = environment(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    loaded = subprocess.run(
        [sys.executable, "-c", _LOAD, str(done.folder), str(picture)], env=env, capture_output=True, text=True
    )
    assert loaded.returncode == 0, loaded.stderr
    labels, found = json.loads(loaded.stdout.strip().splitlines()[-1])
    assert labels == {"0": "None", "1": "Roadwork"}

    from workzone.bundle.engines import open_engine
    from workzone.models.storage import load_head
    from workzone.vision import make_views

    pre = Preprocessing.model_validate(json.loads((linear_run / "train" / "preprocessing.json").read_text()))
    pixels, boxes = make_views(Image.open(picture).convert("RGB"), pre)
    embedding = open_engine("onnxruntime", linear_run / "bundle" / "engine", precision="fp32").embed(pixels[:1])
    head = load_head(linear_run / "train", name="probe")
    ones = torch.ones(1, 1, dtype=torch.bool)
    u = float(head(torch.from_numpy(embedding[None]), torch.from_numpy(boxes[None, :1]), ones)[0].detach())
    p = 1 / (1 + np.exp(-(0.8 * u - 0.4)))
    wanted = p * 0.7 / (p * 0.7 + (1 - p) * 0.3)
    assert 0.01 < wanted < 0.99
    assert found == pytest.approx(wanted, abs=1e-3)


def test_hidden_layer_is_refused_with_the_reason(tiny_run: Path, tmp_path: Path) -> None:
    done = publish_folder(tiny_run / "bundle", tmp_path / "repo", CARD, run=tiny_run)
    assert "hidden layer" in done.transformers
    assert "hidden layer" in (done.folder / "README.md").read_text()
    assert not (done.folder / "config.json").exists()


def test_another_run_is_refused(linear_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(linear_run / "export", other / "export")
    (other / "export" / "onnxruntime-fp32" / "head.onnx").write_bytes(b"another")
    with pytest.raises(ConfigError, match="not from this run"):
        publish_folder(linear_run / "bundle", tmp_path / "repo", CARD, run=other)
    assert not (tmp_path / "repo").exists()


def test_fold_of_head_calibrator_and_threshold() -> None:
    from workzone.streetvision.transformers_model import NotExpressible, _linear

    head = linear_head(6, members=3)
    weight, bias = _linear(head, PlattCalibrator(1.7, -0.3), 0.2)  # type: ignore[arg-type]
    x = torch.randn(5, 1, 6)
    u = head(x, torch.zeros(5, 1, 4), torch.ones(5, 1, dtype=torch.bool))[0].detach().numpy()  # type: ignore[operator]
    np.testing.assert_allclose(x[:, 0].numpy() @ weight + bias, 1.7 * u - 0.3 - np.log(0.2 / 0.8), atol=1e-5)
    with pytest.raises(NotExpressible, match="hidden"):
        _linear(linear_head(6, hidden=4), IdentityCalibrator(), 0.5)  # type: ignore[arg-type]
    with pytest.raises(NotExpressible, match="straight line"):
        _linear(head, BetaCalibrator(2.0, 0.5, 0.1), 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "architecture"), [("vit_t16", "vit_tiny_patch16_224"), ("dinov2_vits14", None)])
def test_transformer_backbones(name: str, architecture: str | None, tmp_path: Path) -> None:
    from workzone.models.backbones.base import Backbone
    from workzone.models.backbones.registry import BACKBONES
    from workzone.streetvision.transformers_model import NotExpressible, _loaded, _save

    spec = BACKBONES[name]
    side = spec.patch * 4
    torch.manual_seed(0)
    made = timm.create_model(spec.timm_name, pretrained=False, num_classes=0, img_size=side, global_pool="token")
    backbone = Backbone(name, spec, made, image_size=side, pooling="cls").eval()
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.1, backbone.embedding_dim)
    pre = Preprocessing(image_size=side)
    _save(backbone, weight, 0.2, pre, tmp_path)
    picture = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    with torch.inference_mode():
        embedding = backbone(torch.from_numpy(np.asarray(picture).copy())[None]).double().numpy()
    wanted = 1 / (1 + np.exp(-(embedding @ weight + 0.2)))
    assert 0.01 < wanted[0] < 0.99
    np.testing.assert_allclose(_loaded(tmp_path, [picture]), wanted, atol=1e-4)
    pooled = Backbone(name, spec, made, image_size=side, pooling="avg")
    with pytest.raises(NotExpressible, match="pooling"):
        _save(pooled, weight, 0.2, pre, tmp_path / "other")
