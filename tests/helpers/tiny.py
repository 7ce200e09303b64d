"""The smallest run that passes through every phase: 72 drawn scenes, five views of 64 pixels, a few epochs."""

from __future__ import annotations

from pathlib import Path

_WORDS = (
    "data=synthetic",
    "source.synthetic_images=72",
    "split.train=0.4",
    "split.val_select=0.15",
    "split.val_calib=0.3",
    "split.val_test=0.15",
    "views.rows=2",
    "views.cols=2",
    "model.image_size=64",
    "train.epochs=4",
    "train.hidden=16",
    "fuse.epochs=4",
    "fuse.hidden=16",
    "fuse.members=1",
    "export.also=[]",
    "export.golden=4",
    "decide.target_fnr=0.3",
    "evaluate.resamples=100",
    "evaluate.gallery=4",
    "evaluate.robustness=4",
    "evaluate.robustness_levels=[5]",
    "compute.threads=1",
    "compute.workers=1",
)


def tiny_words(out: Path, cache: Path, *more: str) -> list[str]:
    """Words for ``workzone run``; those in ``more`` win."""
    given = {w.partition("=")[0] for w in more}
    words = [*_WORDS, f"out={out}", f"cache.folder={cache}"]
    return [w for w in words if w.partition("=")[0] not in given] + list(more)
