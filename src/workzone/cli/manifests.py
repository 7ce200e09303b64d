"""Manifests and embeddings as the commands of ``workzone data`` take them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from workzone.cli.progress import TerminalProgress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from workzone.data.manifest import Manifest

WORDS = typer.Argument(
    None, help="Keys of the configuration, for example model.backbone=dinov2_vits14.", metavar="KEY=VALUE"
)


def read_manifest(location: Path) -> Manifest:
    """The manifest at ``location``, or one made of the table or folder there, with a bar."""
    from workzone.data.sources.build import build_manifest

    with TerminalProgress().bar(f"reading {location.name}") as advance:
        return build_manifest(location, progress=advance)


def one_source(bundle: Path | None, embeddings: Path | None) -> None:
    """Raise ConfigError where both say what the embeddings are."""
    from workzone.errors import ConfigError

    if bundle is not None and embeddings is not None:
        raise ConfigError("--bundle and --embeddings are two answers to one question", fix="give one of them")


def embeddings_for(
    manifest: Manifest, place: Path, words: list[str], bundle: Path | None, file: Path | None
) -> NDArray[np.float32]:
    """(N, D) of the whole pictures: from a file, by a bundle, or by the backbone that ``words`` say."""
    import tempfile

    from workzone.bundle.runtime import Detector
    from workzone.pipeline.embedding import embed_manifest, read_embeddings, tool_config, whole_picture

    one_source(bundle, file)
    if file is not None:
        return read_embeddings(file, manifest)
    with tempfile.TemporaryDirectory() as folder:
        config = tool_config(place, Path(folder), words)
        detector = None if bundle is None else Detector.load(bundle, threads=config.compute.threads)
        views = embed_manifest(
            manifest, config, folder=Path(folder) / "backbone", detector=detector, progress=TerminalProgress()
        )
    return whole_picture(views)
