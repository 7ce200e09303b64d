"""Embeddings of any manifest, by a bundle or by the backbone of a configuration, through the cache."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workzone.bundle.embedding import EmbeddingCache, ViewEmbeddings, default_cache_folder, embed_images
from workzone.bundle.engines import Engine
from workzone.bundle.runtime import Detector
from workzone.config import RunConfig
from workzone.config.load import load_config
from workzone.data.manifest import Manifest, read_table
from workzone.errors import ConfigError, DataError, unreadable
from workzone.files import sha256_file
from workzone.pipeline.phase import Progress
from workzone.pipeline.reading import workers
from workzone.vision import Preprocessing


def tool_config(data: Path, out: Path, words: Sequence[str]) -> RunConfig:
    """Configuration of a command that trains nothing: ``words`` say backbone, views, cache and threads."""
    if taken := [w for w in words if w.partition("=")[0] in ("data", "out")]:
        raise ConfigError(f"{taken[0]!r} cannot be given here", fix="the data and --out are arguments of the command")
    return load_config([f"data={data}", f"out={out}", *words])


def embed_manifest(
    manifest: Manifest,
    config: RunConfig,
    *,
    folder: Path,
    detector: Detector | None = None,
    progress: Progress | None = None,
) -> ViewEmbeddings:
    """Embeddings of all views of all images of ``manifest``.

    Args:
        manifest: the images.
        config: backbone, views, cache, threads; the first two are ignored where there is a ``detector``.
        folder: where the backbone is written as ONNX, without a ``detector``.
        detector: a bundle whose network and views are used.
        progress: where it is shown.

    Raises:
        ImageError: an image can no longer be read.
        WeightsError: the backbone has no weights.
    """
    show = progress or Progress()
    if detector is not None:
        engine, pre = detector.engine, detector.preprocessing
        backbone = detector.folder / "engine" / engine.backbone_file
    else:
        from workzone.bundle.engines.onnxruntime import OnnxRuntimeEngine
        from workzone.models.backbones import create_backbone
        from workzone.pipeline.backbone_cache import write_backbone

        show.message(f"  writing {config.model.backbone} as ONNX")
        network = create_backbone(config.model)
        backbone = write_backbone(network, folder, config)
        pre = Preprocessing(image_size=network.image_size, image_width=network.image_width, views=config.views)
        engine = OnnxRuntimeEngine.open(folder, threads=config.compute.threads, head=False)
    paths = [str(p) for p in manifest.paths]
    title = f"embedding {len(manifest)} images"
    return through_cache(title, paths, contents(manifest), engine, pre, backbone, config, show)


def through_cache(
    title: str,
    paths: Sequence[str],
    sha256s: Sequence[str],
    engine: Engine,
    pre: Preprocessing,
    backbone: Path,
    config: RunConfig,
    progress: Progress,
) -> ViewEmbeddings:
    """``embed_images`` with the cache and the threads of ``config``, under a bar of this title."""
    cache = EmbeddingCache(config.cache.folder or default_cache_folder(), engine, backbone, pre)
    if cache.dropped:
        progress.message(f"{len(cache.dropped)} damaged parts of the feature cache are computed again")
    with progress.bar(title) as advance:
        return embed_images(
            paths,
            sha256s,
            engine,
            pre,
            cache=cache,
            workers=workers(config),
            max_pixels=config.compute.max_pixels,
            progress=advance,
        )


def contents(manifest: Manifest) -> list[str]:
    """SHA-256 of each image, read from the file where the manifest does not know it."""
    pairs = zip(manifest.frame["sha256"].to_list(), manifest.paths, strict=True)
    return [known or sha256_file(path) for known, path in pairs]


def whole_picture(views: ViewEmbeddings) -> NDArray[np.float32]:
    """(N, D) embeddings of the global view."""
    return views.embeddings[:, 0]


def picture_and_tiles(views: ViewEmbeddings) -> NDArray[np.float32]:
    """(N, 2 D) embeddings of the global view beside the largest value of each dimension over all views.

    Roadwork is often one small thing, which the mean of a picture hides.
    """
    most = np.where(views.mask[:, :, None], views.embeddings, -np.inf).max(axis=1)
    return np.concatenate([views.embeddings[:, 0], most], axis=1)


def read_embeddings(path: Path, manifest: Manifest) -> NDArray[np.float32]:
    """(N, D) embeddings of ``manifest`` from a table (``id``, ``embedding_0``, ...) or .npz (ids, embeddings).

    Raises:
        DataError: another layout, or an image without an embedding.
    """
    if path.suffix == ".npz":
        try:
            if path.is_file() and not zipfile.is_zipfile(path):
                raise ValueError("it is no .npz file")
            with np.load(path, allow_pickle=False) as data:
                ids, values = [str(i) for i in data["ids"].tolist()], np.asarray(data["embeddings"], dtype=np.float32)
        except Exception as error:  # numpy, zipfile, zlib and tokenize have many classes for a damaged file
            raise unreadable(DataError, "the embeddings", path, error) from error
    else:
        frame = read_table(path)
        names = [c for c in frame.columns if c.startswith("embedding_")]
        if "id" not in frame.columns or not names:
            raise DataError(
                "a table of embeddings needs the columns id, embedding_0, embedding_1, ...",
                where=str(path),
                fix="name the columns so",
            )
        ids, values = [str(i) for i in frame["id"].to_list()], frame.select(names).to_numpy().astype(np.float32)
    if values.ndim != 2 or len(ids) != len(values):
        raise DataError("the embeddings must have one row per id", where=str(path))
    row = {image: i for i, image in enumerate(ids)}
    missing = [i for i in manifest.frame["id"].to_list() if i not in row]
    if missing:
        raise DataError(f"{len(missing)} images have no embedding", where=f"{path}, id {missing[0]!r}")
    return np.asarray(values[[row[i] for i in manifest.frame["id"].to_list()]])
