"""``workzone drives``: train, for one bundle, how the frames of a drive are decided together."""

from __future__ import annotations

from pathlib import Path

import typer

_FEW = 30
"""Frames of a class below which twelve clips through work zones showed harm in place of gain."""


def drives(
    folder: Path = typer.Argument(
        ..., help="Folder of clips and labels.csv with the columns drive, seconds, label.", metavar="FOLDER"
    ),
    bundle: Path = typer.Option(..., "--bundle", "-b", help="Folder of the bundle.", metavar="FOLDER"),
    out: Path = typer.Option(Path("drive.json"), "--out", "-o", help="File of the fitted pool.", metavar="FILE"),
    every: float = typer.Option(1.0, "--every", min=0.01, help="Seconds between frames."),
    components: int = typer.Option(
        4, "--components", min=0, help="Directions of the embeddings that frames are compared by; 0 for scores alone."
    ),
    heads: int = typer.Option(2, "--heads", min=1, help="Ways to attend."),
    steps: int = typer.Option(200, "--steps", min=1, help="Most steps of training; held-out drives choose how many."),
    folds: int = typer.Option(0, "--folds", min=0, help="Folds that judge it; 0 leaves out one drive at a time."),
    resamples: int = typer.Option(2000, "--resamples", min=100, help="Draws of whole drives for the intervals."),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed."),
    threads: int = typer.Option(0, "--threads", min=0, help="Threads of the engine, 0 for all cores."),
) -> None:
    """Train attention over the frames of labelled drives; 'predict --pool FILE' uses it.

    Says what it is worth on drives that were left out of the training, against single frames.
    """
    from workzone.bundle.cascade import early_exits
    from workzone.bundle.chain import open_bundle
    from workzone.bundle.drive import require_poolable, save_score
    from workzone.cli.progress import TerminalProgress
    from workzone.errors import ConfigError, MissingExtraError

    if folds == 1:
        raise ConfigError("one fold leaves nothing to judge on", where="--folds", fix="take 0, or 2 and more")
    try:
        from workzone.training.drives import AttentionSettings
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch", "train", feature="training of a pool") from error
    from workzone.pipeline.commands.drives import fit_drives, read_frames, sources_of

    show = TerminalProgress()
    detector, budget = open_bundle(bundle, threads=threads), ""
    if early_exits(detector.policy):
        # What frames say at different stages cannot be pooled.
        detector, budget = detector.at_budget(1.0), " --budget 1"
        show.message("  every frame passes through all stages of the cascade")
    require_poolable(detector)
    frames = read_frames(detector, folder, every=every, workers=threads, progress=show)
    settings = AttentionSettings(components=components, heads=heads, steps=steps)
    fitted = fit_drives(frames, settings, seed=seed, folds=folds, resamples=resamples, progress=show)
    save_score(out, fitted.score, detector, {**fitted.figures, **sources_of(folder)})
    figures = fitted.figures
    typer.echo(
        f"{figures['frames']} labelled frames of {figures['drives']} drives, {figures['roadwork']} with roadwork; "
        f"frames without it in {figures['drives_without_roadwork_somewhere']} drives"
    )
    for metric, row in figures["metrics"].items():
        single, pooled = (_interval(row[key], "") for key in ("single", "pooled"))
        told = _interval(row["difference"], "+")
        typer.echo(f"{metric}: single frames {single}, attention {pooled}, difference {told} (drives left out)")
    rarer = min(figures["roadwork"], figures["frames"] - figures["roadwork"])
    if rarer < _FEW:
        typer.echo(f"Only {rarer} frames of the rarer class: too few to learn from or to judge by; label more drives.")
    if figures["steps"] == 0:
        typer.echo(
            "Attention was no better than single frames on held-out drives beyond one standard error, so it does "
            "nothing; only the calibrator of pooled scores is new."
        )
    typer.echo(f"Written: {out}. Use it with: workzone predict CLIP --bundle {bundle}{budget} --pool {out}")


def _interval(value: list[float], sign: str) -> str:
    return "{:{f}} [{:{f}}, {:{f}}]".format(*value, f=f"{sign}.3f")
