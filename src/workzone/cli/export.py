"""``workzone export``: the same detector in another engine or precision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from workzone.config import RunConfig
    from workzone.export.artefacts import Kind

BUNDLE_ENGINES = ("onnxruntime", "openvino")


def export(
    source: Path = typer.Argument(..., help="Folder of a run; a bundle alone gives a TensorRT plan only."),
    engine: str = typer.Option(
        ..., "--engine", help="onnxruntime or openvino make a bundle; torch, aoti, torchscript, tensorrt an artefact."
    ),
    precision: str = typer.Option("fp32", "--precision", help="fp32, bf16, int8 or fp16, as far as the engine has it."),
    out: Path = typer.Option(..., "--out", "-o", help="New folder."),
    calib: Path | None = typer.Option(
        None,
        "--calib",
        help="Labelled images (folder, table, manifest) to calibrate and certify on; a bundle is then source enough.",
        metavar="DATA",
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="With --calib: of the division into calibrating and certifying."),
) -> None:
    """Export a run to another engine, calibrated and certified on that engine's own scores.

    onnxruntime and openvino give a bundle with its own certificate. torch (torch.export), aoti (AOTInductor),
    torchscript (deprecated) and tensorrt give an artefact without one: opening such files runs what is in them, which a
    bundle never does.
    """
    from workzone.errors import ConfigError

    _require_one_model(source, engine, precision)
    if calib is not None:
        if engine not in BUNDLE_ENGINES:
            fix = f"take one of {', '.join(BUNDLE_ENGINES)}, or leave --calib out"
            raise ConfigError(f"{engine} gives an artefact, which has no certificate", where="--calib", fix=fix)
        _recalibrate(source, calib, engine, precision, out, seed)
        return
    if engine not in BUNDLE_ENGINES:
        _artefact(source, engine, precision, out)
        return
    if not (source / "run.json").is_file():
        if (source / "bundle.json").is_file():
            raise ConfigError(
                "a bundle holds no calibration images, and a certificate of one engine is void for another",
                where=str(source),
                fix="give labelled images with --calib DATA, the folder of the run that made it, or run again with "
                f"export.also=[{engine}-{precision}]",
            )
        raise _no_source(source)
    _bundle(source, f"{engine}-{precision}", out)


def _require_one_model(source: Path, engine: str, precision: str) -> None:
    """Refuse a cascade of several models: its stages, exits and certificate rest on the scores of its own engines."""
    from workzone.bundle import schema
    from workzone.errors import ConfigError

    for folder in (source, source / "bundle"):
        if (folder / schema.MANIFEST).is_file() and schema.is_cascade(folder):
            again = f"export.engine={engine} export.precision={precision}"
            raise ConfigError(
                "a cascade of several models is planned and certified on the scores of its engines, so it is made anew "
                "for others",
                where=str(folder),
                fix=f"workzone run --config RUN/config.yaml {again} for each of its runs, then workzone cascade"
                if engine in BUNDLE_ENGINES
                else "give the run of one of its models",
            )


def _recalibrate(source: Path, data: Path, engine: str, precision: str, out: Path, seed: int) -> None:
    from workzone.cli.progress import TerminalProgress
    from workzone.files import require_new
    from workzone.pipeline.commands.recalibrate import recalibrate

    if not (source / "run.json").is_file() and not (source / "bundle.json").is_file():
        raise _no_source(source)
    require_new(out, "the folder for the bundle is not empty")
    made = recalibrate(source, data, out, engine=engine, precision=precision, seed=seed, progress=TerminalProgress())
    for sentence in made.certificate.sentences():
        typer.echo(sentence)
    about = f"{engine}-{precision}, with a certificate of its own on {made.n} images"
    typer.echo(f"Bundle: {out} ({about}; log-odds at most {made.largest_difference:.2g} from the source's)")


def _no_source(source: Path) -> Exception:
    from workzone.errors import ConfigError

    return ConfigError("here is neither a run nor a bundle", where=str(source), fix="give a folder with run.json")


def _config(source: Path) -> RunConfig:
    from workzone.config.load import load_config

    # The folder may have been moved since.
    return load_config([f"out={source.resolve()}"], file=source / "config.yaml")


def _bundle(source: Path, variant: str, out: Path) -> None:
    import shutil

    from workzone.bundle.write import write_folder
    from workzone.cli.progress import TerminalProgress
    from workzone.config.load import build_config
    from workzone.files import require_new
    from workzone.pipeline.artifacts import Artifacts
    from workzone.pipeline.engine import run_pipeline
    from workzone.pipeline.phases import PHASES
    from workzone.pipeline.variants import main_variant, with_variant

    require_new(out, "the folder for the bundle is not empty")
    config = build_config(with_variant(_config(source), variant))
    run_pipeline(config, PHASES, progress=TerminalProgress())
    made = Artifacts(config.out)
    found = made.bundle if variant == main_variant(config) else made.variant_bundle(variant)

    def fill(work: Path) -> None:
        shutil.copytree(found, work, dirs_exist_ok=True)

    write_folder(fill, out)
    typer.echo(f"Bundle: {out} ({variant}, with a certificate of its own)")


def _artefact(source: Path, kind: str, precision: str, out: Path) -> None:
    from workzone.errors import ConfigError

    known = ("torch", "aoti", "torchscript", "tensorrt")
    if kind not in known:
        raise ConfigError(f"there is no engine {kind!r}", fix=f"take one of {', '.join((*BUNDLE_ENGINES, *known))}")
    is_run = (source / "run.json").is_file()
    if not is_run and not (source / "bundle.json").is_file():
        raise _no_source(source)
    if not is_run and kind != "tensorrt":
        raise ConfigError(
            f"{kind} is made from the trained network, which a bundle does not hold",
            where=str(source),
            fix="give the folder of the run that made the bundle",
        )
    from workzone.export.artefacts import NOTICES, make_artefact

    named: Kind = kind  # type: ignore[assignment]
    if is_run:
        digest = _from_run(source, named, precision, out)
    else:
        digest = make_artefact(named, out, _onnx_of(source), precision=precision)
    typer.echo(f"Artefact: {out} ({kind}, {precision}; no certificate). {NOTICES[kind].capitalize()}.")
    typer.echo(f"It opens with sha256={digest}")


def _from_run(source: Path, kind: Kind, precision: str, out: Path) -> str:
    from workzone.errors import ArtifactError
    from workzone.export.artefacts import make_artefact
    from workzone.models.backbones import create_backbone, load_backbone
    from workzone.models.storage import load_head
    from workzone.pipeline.artifacts import Artifacts
    from workzone.pipeline.phases.train import stores_backbone

    config = _config(source)
    made = Artifacts(config.out)
    onnx = made.engine("onnxruntime-fp32")
    if not (onnx / "backbone.onnx").is_file():
        raise ArtifactError("the run has no exported network", where=str(onnx), fix="finish it with workzone run")
    if kind == "tensorrt":
        return make_artefact(kind, out, onnx, precision=precision)
    backbone = load_backbone(made.adapted) if stores_backbone(config) else create_backbone(config.model)
    return make_artefact(
        kind,
        out,
        onnx,
        backbone=backbone.eval(),
        head=load_head(made.fuse, name="fusion"),
        precision=precision,
        tolerance=config.export.tolerance,
    )


def _onnx_of(bundle: Path) -> Path:
    from workzone.bundle import schema
    from workzone.errors import BundleError

    manifest = schema.read_manifest(bundle)
    if problems := schema.check_files(bundle, manifest):
        raise BundleError(problems[0], where=str(bundle), fix="take the original bundle")
    if (manifest.engine.name, manifest.engine.precision) != ("onnxruntime", "fp32"):
        raise BundleError(
            "a plan is built from the bundle of onnxruntime-fp32",
            where=f"{manifest.engine.name}-{manifest.engine.precision}",
            fix="give that bundle",
        )
    return bundle / schema.ENGINE
