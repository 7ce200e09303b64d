"""``workzone compare``: is one model better than another, or can no difference be told?"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer


class IntervalMethod(StrEnum):
    """How the interval of the difference is made."""

    percentile = "percentile"
    bca = "bca"


def compare(
    a: Path = typer.Argument(..., help="Predictions (CSV or Parquet), a run folder, or the folder of an evaluation."),
    b: Path = typer.Argument(..., help="The same of the other model; images are matched by id."),
    metric: str = typer.Option("mcc", "--metric", "-m", help="Primary metric; choose it before looking."),
    resamples: int = typer.Option(2000, "--resamples", min=100, max=100_000, help="Paired bootstrap resamples."),
    method: IntervalMethod = typer.Option(IntervalMethod.percentile, "--interval", help="Interval of differences."),
    level: float = typer.Option(0.95, "--level", min=0.5, max=0.999, help="Confidence level of intervals."),
    by_image: bool = typer.Option(False, "--by-image", help="Resample images even where groups are known."),
    seed: int = typer.Option(42, "--seed", min=0, help="Seed of the resamples."),
    as_json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
    out: Path | None = typer.Option(
        None, "--out", "-o", help="Folder for comparison.json and .html; reports list those in RUN/compare."
    ),
) -> None:
    """Compare two models on the images both have scored: a verdict, then the figures behind it."""
    from workzone.cli.bundle import need_eval

    need_eval("comparison")
    from rich.console import Console

    from workzone.cli.tables import print_table
    from workzone.evaluation.compare import compare as compare_given
    from workzone.evaluation.compare import write_comparison
    from workzone.evaluation.given import load_given
    from workzone.evaluation.report.compare import classical_tests, comparison_table

    found = compare_given(
        load_given(a),
        load_given(b),
        metric=metric,
        resamples=resamples,
        method=method.value,
        level=level,
        by_group=not by_image,
        seed=seed,
    )
    if out is not None:
        write_comparison(found, out)
    if as_json:
        from workzone.files import canonical_json

        typer.echo(canonical_json(found.to_dict()), nl=False)
        return
    console = Console(highlight=False)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=not console.is_terminal)

    say(found.verdict)
    say(found.basis)
    say(f"A: {a}   B: {b}")
    print_table(console, comparison_table(found))
    for name, text in classical_tests(found):
        say(f"{name}: {text}")
    for text in found.cautions:
        say(f"Note: {text}")
    if out is not None:
        say(f"Page: {out / 'comparison.html'}")
