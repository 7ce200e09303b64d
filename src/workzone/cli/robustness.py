"""``workzone evaluate --robustness``: the same bundle on corrupted pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workzone.cli.progress import TerminalProgress
from workzone.config.models import EvaluateConfig
from workzone.evaluation.inputs import Evaluated
from workzone.predictions import FloatArray, pad_rows
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
    from workzone.decisions import apply_policy
    from workzone.evaluation.figures import Draws
    from workzone.evaluation.robustness import robustness, write_robustness

    detector = Detector.load(bundle, threads=threads)

    def score(pictures: Iterator[Picture]) -> tuple[FloatArray, NDArray[np.int8]]:
        decided = [d for _, d in detector.predict((Image.fromarray(p) for p in pictures), workers=threads)]
        probability = detector.calibrator(np.array([d.log_odds for d in decided]))
        views = pad_rows([[view.log_odds for view in d.views] for d in decided])
        return probability, apply_policy(detector.policy, probability, views).codes

    draws = Draws(settings.resamples, settings.interval, settings.level, settings.by_group, seed)
    with progress.bar("corrupted pictures") as advance:
        found = robustness(evaluated, score, n=images, draws=draws, seed=seed, progress=advance)
    write_robustness(found, out)
    return found.sentence()
