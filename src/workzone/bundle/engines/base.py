"""What every engine is: an exported network opened from files, giving embeddings of views and scores of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from workzone.errors import BundleError

FloatViews = NDArray[np.float32]
VIEWS_PER_PASS = 4
"""On a CPU, more views in a pass only push each other's activations out of the cache."""
HEAD_OUTPUTS = ("log_odds", "view_log_odds", "weights")


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

    The two steps are separate files of the bundle, so that embeddings can be cached, added to (a cascade that looks
    again) and monitored without running the backbone twice. Normalisation of pixels is part of the exported network.
    """

    name: ClassVar[str]
    backbone_file: ClassVar[str]
    head_file: ClassVar[str]
    network_files: ClassVar[tuple[str, ...]]
    """Every file of a network, no more and no fewer."""
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    """What the engine can compute in."""

    precision: str
    embedding_dim: int
    image_size: int
    """Side of a view in pixels, or its height."""
    image_width: int
    """Width of a view in pixels."""
    threads: int
    """Passes that may run at the same time, each on the thread that asks for it; more callers wait."""
    views_per_pass: int = VIEWS_PER_PASS
    """Views that one call of ``embed`` should bring."""

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, *, precision: str = "fp32", device: str = "cpu", threads: int = 0) -> Self:
        """Open the network in ``folder`` (``backbone_file`` and ``head_file``); ``threads`` 0 stands for all cores.

        Raises:
            BundleError: a file is missing or is not a network this engine can read.
            MissingExtraError: the engine's package is not installed.
        """

    @abstractmethod
    def embed(self, pixels: NDArray[np.uint8]) -> FloatViews:
        """Embeddings (N, D) float32 of views (N, S, W, 3) uint8 RGB; safe to call from several threads."""

    @abstractmethod
    def aggregate(self, embeddings: FloatViews, boxes: FloatViews, mask: NDArray[np.bool_]) -> Scores:
        """Scores of images from embeddings (B, V, D), normalised boxes (B, V, 4) and mask (B, V)."""

    def close(self) -> None:  # noqa: B027 - an engine in plain numpy holds nothing
        """Let go of the network: calls that began end well, later ones raise BundleError; twice is as once."""


def closed() -> BundleError:
    """The error of a call after ``Engine.close``."""
    return BundleError("this engine was closed", fix="open the bundle again")


def check_signature(
    where: Path, inputs: Mapping[str, Sequence[Any]], outputs: Mapping[str, Sequence[Any]], *, head: bool
) -> None:
    """Raise BundleError unless a network has the inputs and outputs that ``Engine`` feeds and reads.

    Args:
        inputs: shape by name; an entry that is no integer stands for any size.
        outputs: the same for outputs.
        head: whether it is a head or a backbone.
    """
    if head:
        # The exporter drops inputs that a head does not use.
        fits = {"embeddings"} <= set(inputs) <= {"embeddings", "boxes", "mask"} and set(outputs) == set(HEAD_OUTPUTS)
        fits = fits and [len(outputs[name]) for name in HEAD_OUTPUTS] == [1, 2, 2] and len(inputs["embeddings"]) == 3
    else:
        fits = set(inputs) == {"pixels"} and set(outputs) == {"embeddings"}
        if fits:
            pixels, embeddings = inputs["pixels"], outputs["embeddings"]
            fits = len(pixels) == 4 and pixels[3] == 3 and len(embeddings) == 2
            fits = fits and all(isinstance(size, int) for size in (pixels[1], pixels[2], embeddings[1]))
    if not fits:
        stated = f"inputs {sorted(inputs)}, outputs {sorted(outputs)}"
        raise BundleError(
            f"{where.name} is not a {'head' if head else 'backbone'} of workzone ({stated[:300]})", where=str(where)
        )
