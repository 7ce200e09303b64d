"""``workzone ablate`` and ``workzone sweep``: which settings help, measured; which are best, searched."""

from __future__ import annotations

from pathlib import Path

import typer


def ablate(
    words: list[str] = typer.Argument(
        ..., help="Configuration of the baseline, for example data=DIR preset=small.", metavar="KEY=VALUE"
    ),
    out: Path = typer.Option(Path("ablation"), "--out", "-o", help="Folder of the results and of all trainings."),
    vary: list[str] | None = typer.Option(
        None, "--vary", help="A key and its values; several make a grid.", metavar="KEY=VALUE,VALUE"
    ),
    variant: list[str] | None = typer.Option(
        None, "--variant", help="One more variant by name.", metavar="'NAME: KEY=VALUE ...'"
    ),
    one_at_a_time: bool = typer.Option(False, "--one-at-a-time", help="Move one key at once instead of a grid."),
    folds: int = typer.Option(5, "--folds", min=2, help="Folds of whole groups."),
    splits: int = typer.Option(1, "--splits", min=1, help="How often the groups are dealt into folds anew."),
    seeds: int = typer.Option(1, "--seeds", min=1, help="Training seeds."),
    metric: str = typer.Option("macro_auroc", "--metric", help="Figure of the forest plot; macro_x is x over sources."),
    resamples: int = typer.Option(2000, "--resamples", min=100, help="Draws of whole groups for intervals."),
    fewest: int = typer.Option(5, "--fewest", min=1, help="Images of each class a source needs to count in macro_x."),
    workers: int = typer.Option(1, "--workers", min=1, help="Trainings at the same time."),
    launcher: str = typer.Option("local", "--launcher", help="local processes, or tasks of a ray cluster."),
    ray_address: str | None = typer.Option(
        None, "--ray-address", help="A running cluster; without it one is started here.", metavar="HOST:PORT"
    ),
) -> None:
    """Train variants on the same folds and seeds and say which differ, with paired intervals by group.

    Only images of train and val_select are used; val_calib and val_test stay shut.
    """
    from rich.console import Console
    from rich.table import Table

    from workzone.cli.progress import TerminalProgress
    from workzone.cli.tables import print_table
    from workzone.cluster import launcher_of
    from workzone.errors import ConfigError
    from workzone.tuning.ablate import Plan, run_ablation
    from workzone.tuning.grid import resolve, variants

    found = variants(vary or [], variant or [], one_at_a_time=one_at_a_time)
    if len(found) < 2:
        raise ConfigError("there is nothing to compare with the baseline", fix="say --vary KEY=VALUE,VALUE")
    base = [w for w in words if not w.startswith("out=")] + [f"out={out / 'base'}"]
    plan = Plan(
        folds=folds,
        splits=splits,
        seeds=seeds,
        metric=metric,
        resamples=resamples,
        fewest=fewest,
        workers=workers,
        launcher=launcher_of(launcher),
        address=ray_address,
    )
    result = run_ablation(resolve(base, found), out.resolve(), plan, progress=TerminalProgress())
    console = Console(highlight=False)
    table = Table("variant", metric, "difference", "", "auroc", "nll", "seconds", box=None)
    for row in result["rows"]:
        d, base_row = row["differences"][metric], row["variant"] == result["baseline"]
        told = "told apart" if d["low"] > 0 or d["high"] < 0 else ""
        seconds = row["seconds_per_training"]
        table.add_row(
            row["variant"],
            _interval(row["figures"][metric]),
            "" if base_row else _interval(d, sign=True),
            "" if base_row else told,
            f"{row['figures']['auroc']['value']:.3f}",
            f"{row['figures']['nll']['value']:.3f}",
            "" if seconds is None else f"{seconds:.1f}",
        )
    print_table(console, table)
    sources = ", ".join(result["macro_sources"]) or "none"
    console.print(
        f"n {result['n']:,}, {result['n_positive']:,} roadwork, {result['n_groups']:,} groups; "
        f"macro over {sources}; {splits * seeds} trainings of {folds} folds each.",
        soft_wrap=True,
        markup=False,
    )
    console.print(f"Table: {out / 'ablation.csv'}  Picture: {out / 'forest.png'}", soft_wrap=True, markup=False)


def sweep(
    words: list[str] = typer.Argument(
        ..., help="Configuration that all trials share, for example data=DIR preset=small.", metavar="KEY=VALUE"
    ),
    space: list[str] = typer.Option(
        ..., "--space", help="A key and its range or choices.", metavar="KEY=LOW..HIGH[:log] | KEY=A,B"
    ),
    out: Path = typer.Option(Path("sweep"), "--out", "-o", help="Folder of the results and of all trainings."),
    trials: int = typer.Option(20, "--trials", min=1, help="Trials in all; a second call goes on."),
    sampler: str = typer.Option("tpe", "--sampler", help="tpe, random or grid."),
    steps: int = typer.Option(4, "--steps", min=1, help="Values of a range in a grid."),
    seeds: int = typer.Option(1, "--seeds", min=1, help="Trainings of a trial; bad trials are pruned between them."),
    metric: str = typer.Option("nll", "--metric", help="Figure on val_select: nll, auroc, mcc or accuracy."),
    workers: int = typer.Option(1, "--workers", min=1, help="Trials at the same time."),
    launcher: str = typer.Option("local", "--launcher", help="local processes, or tasks of a ray cluster."),
    ray_address: str | None = typer.Option(
        None, "--ray-address", help="A running cluster; without it one is started here.", metavar="HOST:PORT"
    ),
) -> None:
    """Search for better settings, judged on val_select alone; killed sweeps go on where they stopped."""
    from rich.console import Console

    from workzone.cli.progress import TerminalProgress
    from workzone.cluster import launcher_of
    from workzone.errors import ConfigError
    from workzone.tuning.space import parse_space
    from workzone.tuning.sweep import SweepPlan, run_sweep

    if sampler not in ("tpe", "random", "grid"):
        raise ConfigError(f"there is no sampler {sampler!r}", fix="take tpe, random or grid")
    base = [w for w in words if not w.startswith("out=")] + [f"out={out / 'base'}"]
    plan = SweepPlan(trials, sampler, steps, seeds, metric, workers, launcher_of(launcher), ray_address)  # type: ignore[arg-type]
    result = run_sweep(base, parse_space(space), out.resolve(), plan, progress=TerminalProgress())
    best = result["best"]
    console = Console(highlight=False)
    console.print(
        f"Best of {result['trials']} trials ({result['pruned']} pruned, {result['failed']} failed): "
        f"{metric} {best['value']:.4f} on val_select with {' '.join(best['words'])}",
        soft_wrap=True,
        markup=False,
    )
    console.print(
        f"Configuration: {out / 'best.yaml'}  Table: {out / 'trials.csv'}  Pictures: history.png, parameters.png\n"
        "The figure is that of the winner of a search on the same images, so it flatters; evaluate it on val_test.",
        soft_wrap=True,
        markup=False,
    )


def _interval(value: dict[str, float], *, sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    return f"{value['value']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"
