"""Embeddings of views through an engine, kept on disk by content: an image is never embedded twice by one network.

The key of a cache folder is a hash of the engine, its version, the backbone file and the preprocessing; a row is found
by the SHA-256 of the image file. Rows are appended as small shards, each written atomically, so that a killed run loses
at most one shard.
"""

from __future__ import annotations

import os
import uuid
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workzone.bundle.engines import Engine
from workzone.bundle.parallel import embed_views
from workzone.files import atomic_path, sha256_file, sha256_json
from workzone.vision import Preprocessing, open_views
from workzone.vision.batch import in_order

SHARD_IMAGES = 64
_PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino"}


Row = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Embeddings (V, D) and boxes (V, 4) of one image."""


@dataclass(frozen=True, slots=True)
class ViewEmbeddings:
    """Embeddings of N images with up to V views; images with fewer are padded.

    Attributes:
        embeddings: (N, V, D) float32.
        boxes: (N, V, 4) float32 normalised.
        mask: (N, V) True where a view exists.
    """

    embeddings: NDArray[np.float32]
    boxes: NDArray[np.float32]
    mask: NDArray[np.bool_]

    def take(self, index: NDArray[Any]) -> ViewEmbeddings:
        """Rows ``index``."""
        return ViewEmbeddings(self.embeddings[index], self.boxes[index], self.mask[index])


def default_cache_folder() -> Path:
    """``$WORKZONE_CACHE``, else the user's cache folder."""
    own = os.environ.get("WORKZONE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(base) if base else Path.home() / ".cache") / "workzone"


class EmbeddingCache:
    """Rows of one network and one preprocessing."""

    def __init__(self, root: Path, engine: Engine, backbone: Path, pre: Preprocessing) -> None:
        self.key = sha256_json(
            {
                "engine": engine.name,
                "version": version(_PACKAGES[engine.name]),
                "precision": engine.precision,
                "backbone": sha256_file(backbone),
                "preprocessing": pre.model_dump(mode="json"),
            }
        )
        self.folder = root / "embeddings" / self.key[:32]
        self.dropped: list[Path] = []
        self._rows: dict[str, Row] = {}
        for shard in sorted(self.folder.glob("*.npz")) if self.folder.is_dir() else []:
            # A dot marks the shard that another writer is writing just now.
            if not shard.name.startswith("."):
                self._read(shard)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._rows

    def get(self, sha256: str) -> Row:
        """Embeddings (V, D) and boxes (V, 4) of one image."""
        return self._rows[sha256]

    def append(self, rows: dict[str, Row]) -> None:
        """Store ``rows`` as one shard."""
        if not rows:
            return
        names = sorted(rows)
        with atomic_path(self.folder / f"{uuid.uuid4().hex}.npz") as partial, partial.open("wb") as stream:
            np.savez(
                stream,
                sha256=np.array(names, dtype="S64"),
                counts=np.array([len(rows[n][0]) for n in names], dtype=np.int64),
                embeddings=np.concatenate([rows[n][0] for n in names]),
                boxes=np.concatenate([rows[n][1] for n in names]),
            )
        self._rows.update(rows)

    def _read(self, shard: Path) -> None:
        try:
            rows = _read_shard(shard)
        except FileNotFoundError:
            return  # another process has just dropped it
        except (OSError, ValueError, KeyError, EOFError, MemoryError, NotImplementedError, zipfile.BadZipFile):
            # A damaged shard costs its images a second pass; the caller reports it.
            shard.unlink(missing_ok=True)
            self.dropped.append(shard)
            return
        self._rows.update(rows)


def _read_shard(shard: Path) -> dict[str, Row]:
    with np.load(shard, allow_pickle=False) as data:
        names, counts = data["sha256"], data["counts"]
        embeddings, boxes = data["embeddings"], data["boxes"]
    n = len(embeddings)
    fits = names.shape == counts.shape == (len(names),) and names.dtype.kind == "S" and counts.dtype == np.int64
    fits = fits and embeddings.dtype == boxes.dtype == np.float32 and embeddings.ndim == 2 and boxes.shape == (n, 4)
    if not fits or (counts < 1).any() or counts.sum() != n or not np.isfinite(embeddings).all():
        raise ValueError("the arrays do not fit together")
    ends = np.cumsum(counts).tolist()
    return {
        name.decode(): (embeddings[end - count : end], boxes[end - count : end])
        for name, end, count in zip(names.tolist(), ends, counts.tolist(), strict=True)
    }


def embed_images(
    paths: Sequence[str],
    sha256s: Sequence[str],
    engine: Engine,
    pre: Preprocessing,
    *,
    cache: EmbeddingCache,
    workers: int,
    max_pixels: int,
    progress: Callable[[int, int], None] | None = None,
) -> ViewEmbeddings:
    """Embeddings of all views of all images, from the cache where they are known.

    Args:
        progress: called with (images done, images in all).

    Raises:
        ImageError: an image that the manifest lists can no longer be read.
    """
    todo = list({s: p for p, s in zip(paths, sha256s, strict=True) if s not in cache}.items())
    done = len(paths) - len(todo)
    if progress:
        progress(done, len(paths))

    def work(item: tuple[str, str]) -> tuple[str, Row]:
        sha256, path = item
        pixels, boxes = open_views(Path(path), pre, max_pixels=max_pixels)
        return sha256, (embed_views(engine, pixels), boxes)

    shard: dict[str, Row] = {}
    for _, (sha256, row) in in_order(todo, work, workers=workers, on_error=None):
        shard[sha256] = row
        if len(shard) >= SHARD_IMAGES:
            cache.append(shard)
            shard = {}
        done += 1
        if progress:
            progress(done, len(paths))
    cache.append(shard)
    return pad_views([cache.get(s) for s in sha256s])


def embed_files(files: Iterable[Path], engine: Engine, pre: Preprocessing, *, max_pixels: int) -> ViewEmbeddings:
    """Embeddings of all views of a few images, past any cache; raises ImageError where one cannot be read."""
    opened = (open_views(file, pre, max_pixels=max_pixels) for file in files)
    return pad_views([(embed_views(engine, pixels), boxes) for pixels, boxes in opened])


def pad_views(rows: Sequence[Row]) -> ViewEmbeddings:
    """Stack embeddings (V_i, D) and boxes (V_i, 4) of images with different numbers of views."""
    most = max(len(e) for e, _ in rows)
    width = rows[0][0].shape[1]
    embeddings = np.zeros((len(rows), most, width), dtype=np.float32)
    boxes = np.zeros((len(rows), most, 4), dtype=np.float32)
    mask = np.zeros((len(rows), most), dtype=np.bool_)
    for i, (e, b) in enumerate(rows):
        embeddings[i, : len(e)], boxes[i, : len(e)], mask[i, : len(e)] = e, b, True
    return ViewEmbeddings(embeddings, boxes, mask)
