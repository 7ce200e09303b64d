"""The folder a miner publishes: card, README with figures, the bundle, and where possible a transformers model."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workzone import __version__
from workzone.bundle import verify_bundle
from workzone.bundle.chain import ChainManifest, read_bundle
from workzone.bundle.schema import METRICS, BundleManifest, read_json_bounded
from workzone.errors import CheckFailedError, ConfigError
from workzone.files import require_new, write_atomic, write_json

CARD = "model_card.json"
README = "README.md"
DETECTOR_YAML = "streetvision.yaml"
ANSWER_YAML = "answer.yaml"
BUNDLE = "bundle"
LABELS = {0: "None", 1: "Roadwork"}
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SS58 = re.compile(r"[1-9A-HJ-NP-Za-km-z]{46,50}")
_FIGURES = ("mcc", "accuracy", "recall", "specificity", "auroc")
_SYSTEMS = ("argmax", "one_view")
_ANY_PREVALENCE = ("recall", "specificity", "auroc")
_EVEN = 0.5


@dataclass(frozen=True, slots=True)
class Card:
    """Fields of ``model_card.json``.

    Raises:
        ConfigError: an empty field, a version that is not x.y.z, or no SS58 address.
    """

    model_name: str
    description: str
    version: str
    submitted_by: str

    def __post_init__(self) -> None:
        for key, value in (("--name", self.model_name), ("--description", self.description)):
            if not value.strip() or not value.isprintable():
                raise ConfigError("the value is empty or holds line breaks", where=key, fix="give one line of text")
        if not _VERSION.fullmatch(self.version):
            raise ConfigError(f"{self.version!r} is no version", where="--version", fix="write it as 1.0.0")
        if not _SS58.fullmatch(self.submitted_by):
            raise ConfigError(
                f"{self.submitted_by!r} is no SS58 address",
                where="--submitted-by",
                fix="give the address of the hotkey, about 48 letters and digits",
            )

    def to_dict(self, submitted: int) -> dict[str, Any]:
        """The card as the validator reads it; ``submitted`` in seconds of Unix time."""
        return {
            "model_name": self.model_name,
            "description": self.description,
            "version": self.version,
            "submitted_by": self.submitted_by,
            "submission_time": submitted,
        }


@dataclass(frozen=True, slots=True)
class Published:
    """What was written.

    Attributes:
        folder: where.
        transformers: one sentence about the transformers model, or why there is none.
    """

    folder: Path
    transformers: str


def publish_folder(
    bundle: Path, out: Path, card: Card, *, threshold: float = 0.5, run: Path | None = None
) -> Published:
    """Write the folder at ``out``, whole or not at all.

    Args:
        bundle: folder of a bundle; it is verified first.
        out: a folder that does not exist yet, or is empty.
        card: what ``model_card.json`` says.
        threshold: probability that answers state as 0.5.
        run: the run the bundle came from; without it there is no transformers model.

    Raises:
        CheckFailedError: the bundle does not verify, or the transformers model does not say what it should.
        ConfigError: ``out`` holds files, the threshold is not between 0 and 1, or ``run`` is another run.
    """
    if not 0 < threshold < 1:
        raise ConfigError("the threshold must lie between 0 and 1", where="--threshold", fix="take 0.5")
    require_new(out, "the folder to publish holds something already")
    manifest = read_bundle(bundle)
    failed = [check for check in verify_bundle(bundle) if not check.passed]
    if failed:
        raise CheckFailedError(f"the bundle fails its check '{failed[0].name}': {failed[0].detail}", where=str(bundle))
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".partial", dir=out.parent))
    try:
        shutil.copytree(bundle, work / BUNDLE)
        sentence = _transformers(bundle, manifest, run, work, threshold)
        write_json(work / CARD, card.to_dict(int(time.time())))
        write_atomic(work / DETECTOR_YAML, f"hf_repo: .\nconfig_name: {ANSWER_YAML}\nweights: {BUNDLE}\n")
        write_atomic(work / ANSWER_YAML, f"threshold: {threshold!r}\nabstain: never\n")
        metrics = read_json_bounded(bundle / METRICS)
        write_atomic(work / README, readme(card, manifest, metrics, threshold, sentence))
        work.chmod(0o755)
        if out.exists():
            out.rmdir()
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Published(out, sentence)


def _transformers(
    bundle: Path, manifest: BundleManifest | ChainManifest, run: Path | None, work: Path, threshold: float
) -> str:
    if isinstance(manifest, ChainManifest):
        return "No transformers model was written: several models that pass images on are not one network."
    if run is None:
        return "No transformers model was written: a bundle holds no torch weights; name its run with --run."
    from workzone.streetvision.transformers_model import NotExpressible, write_transformers

    try:
        difference = write_transformers(bundle, manifest, run, work, threshold)
    except NotExpressible as error:
        return f"No transformers model was written: {error}."
    return (
        "The folder also loads as AutoModelForImageClassification (labels None, Roadwork): the head that looks once; "
        f"its probabilities differ from the exported one-view path by at most {difference:.1g} on the golden images."
    )


def readme(
    card: Card,
    manifest: BundleManifest | ChainManifest,
    metrics: Mapping[str, Any],
    threshold: float,
    transformers: str,
) -> str:
    """README of the repository; figures come from the bundle, at natural prevalence and at 50/50."""
    lines = [
        "---",
        "pipeline_tag: image-classification",
        "tags: [roadwork, streetvision]",
        "---",
        f"# {card.model_name}",
        "",
        card.description,
        "",
        f"Version {card.version}. {_networks(manifest)}, workzone {__version__}.",
        "",
        "## Figures",
        "",
        *_figures(metrics),
        "",
        f"They were measured on the pictures as collected, with answers above {_EVEN:g} counted as roadwork"
        + (f"; the answers published here count above {threshold:g}" if threshold != _EVEN else "")
        + ". They are not figures under the validator's transformations: `workzone streetvision simulate` gives those.",
        "",
        "## Use",
        "",
        "```python",
        "from workzone.streetvision.adapter import RoadworkDetector",
        "",
        f'detector = RoadworkDetector(config_name="{DETECTOR_YAML}")',
        "answer = detector(image)  # Pillow image in, probability of roadwork out",
        "```",
        "",
        f"The answer is shifted so that a probability of {threshold:g} becomes 0.5. {transformers}",
        "",
    ]
    return "\n".join(lines)


def _networks(manifest: BundleManifest | ChainManifest) -> str:
    if isinstance(manifest, ChainManifest):
        members = ", then ".join(f"`{m.backbone}` ({m.engine})" for m in manifest.members)
        return f"A cascade of {len(manifest.members)} models, the cheapest first: {members}"
    engine = manifest.engine
    return f"Backbone `{engine.backbone}`, engine {engine.name} {engine.precision}"


def _figures(metrics: Mapping[str, Any]) -> list[str]:
    try:
        n, prevalence, groups = metrics["n"], metrics["prevalence"], metrics["n_groups"]
        even = metrics["stated_prevalence"] == _EVEN
        systems = {name: metrics["systems"][name] for name in _SYSTEMS if name in metrics["systems"]}
        rows = [
            f"| {s['title']} | {figure} | {_cell(s['natural'].get(figure))} | {_even_cell(s, figure, even)} |"
            for s in systems.values()
            for figure in _FIGURES
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        return ["The bundle brings no figures that can be read."]
    return [
        f"Test images: {n} ({prevalence:.1%} roadwork, {groups} groups); intervals at 95 %.",
        "",
        f"| system | figure | at natural prevalence ({prevalence:.1%}) | at 50/50 |",
        "|---|---|---|---|",
        *rows,
    ]


def _even_cell(system: Mapping[str, Any], figure: str, measured: bool) -> str:
    if figure in _ANY_PREVALENCE:
        return "the same"
    return _cell(system["stated"].get(figure)) if measured else "not measured"


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None or cell.get("value") is None:
        return "undefined"
    ends = (cell.get("low"), cell.get("high"))
    if None in ends:
        return f"{cell['value']:.3f}, no interval (n {cell['n']})"
    return f"{cell['value']:.3f} [{ends[0]:.3f}, {ends[1]:.3f}] (n {cell['n']})"
