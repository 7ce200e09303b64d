"""``workzone evaluate --robustness``: the same bundle on corrupted pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workzone.cli.progress import TerminalProgress
from workzone.config.models import EvaluateConfig
from workzone.evaluation.inputs import Evaluated
from workzone.predictions import FloatArray
from workzone.vision.corruptions import Picture


def measure_robustness(
    bundle: Path,
    evaluated: Evaluated,
    settings: EvaluateConfig,
    out: Path,
    *,
    images: int,
    threads: int,
    seed: int,
    progress: TerminalProgress,
) -> str:
    """Write ``robustness.json`` and ``robustness.png`` into ``out``; returns what breaks first."""
    from PIL import Image

    from workzone.bundle import Detector
    from workzone.bundle.slices import unknown_slices
    from workzone.decisions.types import together
    from workzone.evaluation.figures import Draws
    from workzone.evaluation.robustness import robustness, write_robustness

    detector = Detector.load(bundle, threads=threads)

    def score(pictures: Iterator[Picture]) -> tuple[FloatArray, NDArray[np.int8]]:
        scored = detector.predict(
            (Image.fromarray(p) for p in pictures), workers=threads, columns=unknown_slices(detector.calibrator)
        )
        decided = together([d for _, d in scored])
        return decided.probability, decided.codes

    draws = Draws(settings.resamples, settings.interval, settings.level, settings.by_group, seed)
    with progress.bar("corrupted pictures") as advance:
        found = robustness(evaluated, score, n=images, draws=draws, seed=seed, progress=advance)
    write_robustness(found, out)
    return found.sentence()
