"""``workzone verify`` and ``workzone evaluate``: is this bundle what it says, and how good is it on these images?"""

from __future__ import annotations

from pathlib import Path

import typer


def verify(
    bundle: Path = typer.Argument(..., help="Folder of the bundle."),
    as_json: bool = typer.Option(False, "--json", help="Print the checks as JSON."),
) -> None:
    """Recompute hashes, check that the certificate fits, answer the golden cases again; exit 3 when a check fails."""
    import json

    from workzone.bundle.verify import verify_bundle

    checks = verify_bundle(bundle)
    failed = [c for c in checks if not c.passed]
    if as_json:
        typer.echo(json.dumps([{"name": c.name, "passed": c.passed, "detail": c.detail} for c in checks], indent=2))
    else:
        for c in checks:
            typer.echo(f"{'ok    ' if c.passed else 'FAILED'} {c.name}: {c.detail}")
        typer.echo("The bundle is good." if not failed else "The bundle must not be used.")
    if failed:
        raise typer.Exit(3)


def evaluate(
    bundle: Path = typer.Argument(..., help="Folder of the bundle."),
    data: Path = typer.Argument(..., help="Labelled images: a folder with one sub-folder per class, or a table."),
    out: Path = typer.Option(Path("evaluation"), "--out", "-o", help="Folder for figures and report."),
    words: list[str] = typer.Argument(
        None, help="Keys of section evaluate, for example resamples=2000.", metavar="KEY=VALUE"
    ),
    threads: int = typer.Option(0, "--threads", help="Threads of the engine, 0 for all cores."),
    seed: int = typer.Option(42, "--seed", help="Seed of the bootstrap."),
) -> None:
    """Measure a bundle on labelled images it has not seen: figures with intervals, slices, plots, report."""
    from rich.console import Console

    from workzone.cli.progress import TerminalProgress
    from workzone.cli.tables import print_table
    from workzone.config.load import build_config
    from workzone.errors import MissingExtraError

    try:
        import matplotlib  # noqa: F401
        import polars  # noqa: F401
        import scipy  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "polars", "eval", feature="evaluation") from error
    from workzone.config.load import parse_words
    from workzone.evaluation.evaluate import evaluate as write_evaluation
    from workzone.evaluation.tables import summary_table
    from workzone.pipeline.external import evaluate_bundle_inputs

    settings = build_config({"data": str(data), "out": str(out), "evaluate": parse_words(words or [])}).evaluate
    progress = TerminalProgress()
    evaluated = evaluate_bundle_inputs(bundle, data, threads=threads, progress=progress)
    with progress.bar("figures and report"):
        summary = write_evaluation(evaluated, settings, out, seed=seed)
    console = Console(highlight=False)
    print_table(console, summary_table(summary))
    console.print(f"Report: {out / 'report.html'}", soft_wrap=True)
