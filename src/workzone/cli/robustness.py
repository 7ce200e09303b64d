"""``workzone evaluate --robustness``: the same bundle on corrupted pictures and on what StreetVision would send."""

from __future__ import annotations

from pathlib import Path

from workzone.cli.progress import TerminalProgress
from workzone.config.run import EvaluateConfig
from workzone.evaluation.inputs import Evaluated


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
    from workzone.bundle import open_bundle
    from workzone.evaluation.changes import corruption_changes, streetvision_changes
    from workzone.evaluation.figures import Draws
    from workzone.evaluation.report.robustness import write_robustness
    from workzone.evaluation.robustness import robustness
    from workzone.pipeline.external import picture_scorer

    score = picture_scorer(open_bundle(bundle, threads=threads), workers=threads)
    draws = Draws(settings.resamples, settings.interval, settings.level, settings.by_group, seed)
    changes = (*corruption_changes(levels=settings.robustness_levels), *streetvision_changes())
    with progress.bar("changed pictures") as advance:
        found = robustness(evaluated, score, n=images, draws=draws, seed=seed, changes=changes, progress=advance)
    write_robustness(found, out)
    return found.sentence()
