"""What every engine is: an exported network opened from files, giving embeddings of views and scores of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

FloatViews = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of B images with up to V views.

    Attributes:
        log_odds: (B,) log-odds of roadwork.
        view_log_odds: (B, V) per view, NaN where masked.
        weights: (B, V) share of each view in the score, 0 where masked.
    """

    log_odds: NDArray[np.float64]
    view_log_odds: NDArray[np.float64]
    weights: NDArray[np.float64]


class Engine(ABC):
    """Runs an exported network: ``embed`` on views, then ``aggregate`` on the embeddings of an image's views.

    The two steps are separate files of the bundle, so that embeddings can be cached, added to (a cascade that looks again)
    and monitored without running the backbone twice. Normalisation of pixels is part of the exported network.
    """

    name: ClassVar[str]
    backbone_file: ClassVar[str]
    head_file: ClassVar[str]

    precision: str
    embedding_dim: int

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, *, precision: str = "fp32", device: str = "cpu", threads: int = 0) -> Self:
        """Open the network in ``folder`` (``backbone_file`` and ``head_file``); ``threads`` 0 takes all cores.

        Raises:
            BundleError: a file is missing or is not a network this engine can read.
            MissingExtraError: the engine's package is not installed.
        """

    @abstractmethod
    def embed(self, pixels: NDArray[np.uint8]) -> FloatViews:
        """Embeddings (N, D) float32 of views (N, S, S, 3) uint8 RGB."""

    @abstractmethod
    def aggregate(self, embeddings: FloatViews, boxes: FloatViews, mask: NDArray[np.bool_]) -> Scores:
        """Scores of images from embeddings (B, V, D), normalised boxes (B, V, 4) and mask (B, V), True where a view exists."""

    @classmethod
    def files(cls, folder: Path) -> list[Path]:
        """Files of the network in ``folder``, in a fixed order."""
        return sorted(p for p in folder.iterdir() if p.is_file())
