"""Converted backbones by content: a new head on a known backbone does not quantise the backbone again."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workzone.bundle.embedding import default_cache_folder
from workzone.config import RunConfig
from workzone.files import atomic_path, read_json, sha256_file, sha256_json, write_json
from workzone.pipeline.environment import environment

if TYPE_CHECKING:
    from workzone.models.backbones import Backbone

_HASHES = "sha256.json"


class BackboneCache:
    """Backbone files of one conversion, below ``root/engines``; ``key`` is a hash of all that decides them."""

    def __init__(self, root: Path, key: str) -> None:
        self.folder = root / "engines" / key[:32]

    def copy_to(self, target: Path) -> bool:
        """Copy the backbone to ``target`` if it is stored whole; what is damaged is dropped and made again."""
        try:
            hashes: dict[str, str] = read_json(self.folder / _HASHES)
            if any(sha256_file(self.folder / name) != digest for name, digest in hashes.items()):
                raise ValueError("a file was changed")
        except FileNotFoundError:
            return False
        except (OSError, ValueError, AttributeError, json.JSONDecodeError):
            shutil.rmtree(self.folder, ignore_errors=True)
            return False
        for name in hashes:
            with atomic_path(target / name) as partial:
                shutil.copyfile(self.folder / name, partial)
        return True

    def store(self, source: Path) -> None:
        """Keep the backbone files of ``source``; the folder appears whole or not at all."""
        files = sorted(p for p in source.iterdir() if p.name.startswith("backbone."))
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}-", dir=self.folder.parent))
        try:
            for file in files:
                shutil.copyfile(file, work / file.name)
            write_json(work / _HASHES, {file.name: sha256_file(file) for file in files})
            if not self.folder.exists():
                work.rename(self.folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def open_cache(config: RunConfig, decides: Mapping[str, Any], packages: tuple[str, ...]) -> BackboneCache:
    """The cache of one conversion by what ``decides`` it and the versions of the ``packages`` that make it."""
    versions = {name: version for name, version in environment().items() if name in packages}
    return BackboneCache(config.cache.folder or default_cache_folder(), sha256_json({**decides, "versions": versions}))


def write_backbone(backbone: Backbone, folder: Path, config: RunConfig) -> Path:
    """``export_backbone`` of one that was not trained here: from the cache where it was made before."""
    from workzone.export.onnx import BACKBONE_FILE, VERSION, export_backbone

    decides = {"onnx": VERSION, "backbone": backbone.fingerprint()}
    cache = open_cache(config, decides, ("torch", "onnx", "onnxscript"))
    folder.mkdir(parents=True, exist_ok=True)
    if not cache.copy_to(folder):
        export_backbone(backbone, folder)
        cache.store(folder)
    return folder / BACKBONE_FILE
