"""The one-view head of a run as a model that ``AutoModelForImageClassification`` loads without code of ours.

transformers wraps timm models whose classifier is one linear layer. A linear head, its standardisation, an affine
calibrator and the shift of the threshold fold into that layer; anything else has no such form and is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from workzone import calibration
from workzone.bundle.engines import open_engine
from workzone.bundle.schema import BundleManifest
from workzone.calibration import Calibrator
from workzone.decisions.remap import remap
from workzone.errors import CheckFailedError, ConfigError, MissingExtraError
from workzone.files import read_json, sha256_file
from workzone.predictions import FloatArray, logit
from workzone.streetvision.publish import LABELS
from workzone.vision import Preprocessing, decode, make_views
from workzone.vision.streetvision.geometry import letterbox

if TYPE_CHECKING:
    from PIL import Image

    from workzone.models.aggregators import Aggregator, Ensemble
    from workzone.models.backbones import Backbone
    from workzone.pipeline.artifacts import Artifacts

TOLERANCE = 1e-3


class NotExpressible(Exception):  # noqa: N818
    """The one-view path has no form as a transformers model; the message says why."""


def write_transformers(bundle: Path, manifest: BundleManifest, run: Path, out: Path, threshold: float) -> float:
    """Write ``config.json`` and ``model.safetensors`` into ``out``, load them again and compare.

    Returns:
        Largest difference of probabilities from the exported one-view path, on the golden images as 224 x 224 pictures.

    Raises:
        NotExpressible: with the reason.
        ConfigError: the bundle is not from this run.
        CheckFailedError: the loaded model differs by more than 0.001.
        MissingExtraError: torch, timm or transformers is missing.
    """
    try:
        import timm  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "train", feature="a transformers model") from error
    from workzone.config.load import load_config
    from workzone.models.backbones import create_backbone, load_backbone
    from workzone.models.storage import load_head
    from workzone.pipeline.artifacts import Artifacts

    artifacts = Artifacts(run)
    variant = f"{manifest.engine.name}-{manifest.engine.precision}"
    _require_origin(manifest, artifacts, variant, run)
    config = load_config([], file=artifacts.config)
    calibrator = calibration.from_dict(read_json(artifacts.one_view_calibrator(variant)))
    weight, bias = _linear(load_head(artifacts.train, name="probe"), calibrator, threshold)
    backbone = create_backbone(config.model) if config.train.method == "frozen" else load_backbone(artifacts.adapted)
    pre = Preprocessing.model_validate(read_json(artifacts.preprocessing))
    with _quiet():
        _save(backbone, weight, bias, pre, out)
    pictures = [letterbox(decode(p)) for p in sorted((bundle / "golden").glob("*")) if p.suffix != ".json"]
    expected = _one_view(artifacts, pre, calibrator, pictures, threshold)
    with _quiet():
        found = _loaded(out, pictures)
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise CheckFailedError(
            f"the transformers model differs from the one-view path by {difference:.2g}, more than {TOLERANCE:g}",
            where=str(run),
        )
    return difference


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the bars and remarks of transformers off the screen."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _require_origin(manifest: BundleManifest, artifacts: Artifacts, variant: str, run: Path) -> None:
    for name, entry in manifest.files.items():
        if name.startswith("engine/"):
            file = artifacts.engine(variant) / name.partition("/")[2]
            if not file.is_file() or sha256_file(file) != entry.sha256:
                raise ConfigError(
                    f"the bundle is not from this run: {file.name} of {variant} is another one",
                    where=str(run),
                    fix="give the folder of the run that made the bundle",
                )


def _linear(head: Ensemble, calibrator: Calibrator, threshold: float) -> tuple[FloatArray, float]:
    """Weights (D,) and bias of the calibrated and shifted log-odds of one embedding."""
    from torch import nn

    weights, biases = [], []
    for member in (cast("Aggregator", m) for m in head.members):
        layers = [m for m in member.modules() if isinstance(m, nn.Linear)]
        if len(layers) != 1 or member.hidden or member.boxes or member.name != "global":
            raise NotExpressible(
                "its one-view head has a hidden layer, and transformers classifiers are one linear layer "
                "(train with train.hidden=0 to publish one)"
            )
        parts = dict(member.standardise.named_buffers())
        mean, scale = (parts[k].detach().double().numpy() for k in ("mean", "inverse_std"))
        row = layers[0].weight.detach().double().numpy()[0] * scale
        weights.append(row)
        biases.append(float(layers[0].bias.detach()[0]) - float(row @ mean))
    slope, intercept = _affine(calibrator)
    shift = float(logit(np.array(threshold)))
    return slope * np.mean(weights, axis=0), slope * float(np.mean(biases)) + intercept - shift


def _affine(calibrator: Calibrator) -> tuple[float, float]:
    """Slope and intercept of a calibrator that is a line on log-odds."""
    at = np.array([-6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0])
    found = logit(calibrator(at))
    intercept, slope = float(found[3]), float((found[4] - found[2]) / 2)
    if not np.allclose(found, slope * at + intercept, atol=1e-6):
        raise NotExpressible(
            f"its one-view calibrator {calibrator.name!r} is no straight line on log-odds, as temperature and platt are"
        )
    return slope, intercept


def _save(backbone: Backbone, weight: FloatArray, bias: float, pre: Preprocessing, out: Path) -> None:
    import torch
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    spec = backbone.spec
    pools = {"avg": "avg", "max": "max", "avg_max": "catavgmax"} if spec.family == "conv" else {"cls": "token"}
    if backbone.image_width != backbone.image_size:
        raise NotExpressible("views that are not square have no counterpart in the image processors of timm")
    if backbone.pooling not in pools:
        raise NotExpressible(f"pooling {backbone.pooling!r} has no counterpart in timm's classifiers")
    arguments: dict[str, Any] = {"global_pool": pools[backbone.pooling]}
    if spec.family != "conv":
        arguments["img_size"] = backbone.image_size
    side = backbone.image_size
    config = TimmWrapperConfig(
        architecture=spec.timm_name.split(".")[0],
        model_args=arguments,
        num_labels=len(LABELS),
        id2label=LABELS,
        label2id={name: i for i, name in LABELS.items()},
        pretrained_cfg={
            "input_size": [3, side, side],
            "mean": list(spec.mean),
            "std": list(spec.std),
            "interpolation": pre.interpolation,
            "crop_pct": 1.0,
            # The whole picture made square, as the global view is.
            "crop_mode": "squash",
        },
    )
    model = TimmWrapperForImageClassification(config)
    network = model.timm_model
    found = network.load_state_dict(backbone.network.state_dict(), strict=False)
    classifier = network.get_classifier()
    names = {name for name, module in network.named_modules() if module is classifier}
    if found.unexpected_keys or {k.rpartition(".")[0] for k in found.missing_keys} != names:
        raise NotExpressible(f"timm's classifier of {spec.timm_name} has other weights than the backbone")
    with torch.no_grad():
        half = torch.from_numpy(weight / 2).to(torch.float32)
        classifier.weight.copy_(torch.stack([-half, half]))
        classifier.bias.copy_(torch.tensor([-bias / 2, bias / 2]))
    model.eval().save_pretrained(out)


def _one_view(
    artifacts: Artifacts, pre: Preprocessing, calibrator: Calibrator, pictures: list[Image.Image], threshold: float
) -> FloatArray:
    import onnxruntime as ort

    engine = open_engine("onnxruntime", artifacts.engine("onnxruntime-fp32"), precision="fp32")
    session = ort.InferenceSession(str(artifacts.one_view_head), providers=["CPUExecutionProvider"])
    taken = {i.name for i in session.get_inputs()}
    log_odds = []
    for picture in pictures:
        pixels, boxes = make_views(picture, pre)
        feed = {
            "embeddings": engine.embed(pixels[:1])[None],
            "boxes": boxes[None, :1],
            "mask": np.ones((1, 1), dtype=np.bool_),
        }
        log_odds.append(float(session.run(["log_odds"], {k: v for k, v in feed.items() if k in taken})[0][0]))
    return remap(calibrator(np.array(log_odds)), threshold)


def _loaded(folder: Path, pictures: list[Image.Image]) -> FloatArray:
    """Probabilities by the published files, read from disk alone."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True).eval()
    if dict(model.config.id2label) != LABELS:
        raise CheckFailedError(f"the transformers model has labels {model.config.id2label}", where=str(folder))
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    with torch.inference_mode():
        logits = model(**processor(images=pictures, return_tensors="pt")).logits
    return np.asarray(logits.softmax(dim=-1)[:, 1].double().numpy())
