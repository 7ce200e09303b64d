"""``workzone run`` and ``workzone demo``: from data to a verified bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from workzone.config import RunConfig

WORDS = typer.Argument(None, help="key=value, for example data=FOLDER out=DIR preset=small train.lr=1e-4", metavar="KEY=VALUE")
TO = typer.Option(None, "--to", help="Stop after this phase.")
FROM = typer.Option(None, "--from", help="Run this phase and all later ones again.")
CONFIG = typer.Option(None, "--config", help="YAML file with keys; words on the command line win.")
DRY = typer.Option(False, "--dry-run", help="Say what would run and why, write nothing.")


def run(
    words: list[str] = WORDS,
    to: str = TO,
    start: str = FROM,
    config: Path = CONFIG,
    dry_run: bool = DRY,
) -> None:
    """Train, export, calibrate, certify, evaluate and bundle a detector; finished phases are not run again."""
    from workzone.config.load import load_config

    resolved = load_config(words or [], file=config)
    _run(resolved, to=to, start=start, dry_run=dry_run)


def demo(
    words: list[str] = WORDS,
    open_report: bool = typer.Option(False, "--open", help="Open the report in a browser at the end."),
) -> None:
    """Run the whole pipeline on drawn street scenes, offline, in minutes."""
    from workzone.config.load import load_config

    given = words or []
    keys = {word.partition("=")[0] for word in given}
    defaults = [w for w in ("data=synthetic", "preset=demo", "out=demo") if w.partition("=")[0] not in keys]
    resolved = load_config([*defaults, *given])
    _run(resolved)
    if open_report:
        import webbrowser

        from workzone.pipeline.artifacts import Artifacts

        webbrowser.open(Artifacts(resolved.out).report.as_uri())


def _run(config: RunConfig, *, to: str | None = None, start: str | None = None, dry_run: bool = False) -> None:
    from rich.console import Console
    from rich.table import Table

    from workzone.cli.progress import TerminalProgress
    from workzone.errors import MissingExtraError

    try:
        import polars  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "train", feature="training") from error
    from workzone.pipeline.engine import run_pipeline
    from workzone.pipeline.phases import PHASES

    out = Console(highlight=False)
    results = run_pipeline(config, PHASES, to=to, start=start, progress=TerminalProgress(), dry_run=dry_run)
    if dry_run:
        table = Table("phase", "would run", "why", box=None)
        for r in results:
            table.add_row(r.name, "yes" if r.ran else "no", r.why)
        out.print(table)
        return
    seconds = sum(r.seconds for r in results)
    done = ", ".join(f"{r.name} {r.seconds:.0f} s" for r in results if r.ran) or "nothing to do"
    out.print(f"\nPhases run: {done} ({seconds:.0f} s in all)", soft_wrap=True)
    if results[-1].name == PHASES[-1].name:
        _show(config, out)


def _show(config: RunConfig, out: object) -> None:
    from rich.console import Console

    from workzone.evaluation.tables import stored_table
    from workzone.files import read_json
    from workzone.pipeline.artifacts import Artifacts

    assert isinstance(out, Console)
    artifacts = Artifacts(config.out)
    metrics = read_json(artifacts.metrics)
    out.print(stored_table(metrics["terminal"]))
    for line in metrics["words"]["certificate"]:
        out.print(line, soft_wrap=True)
    out.print(f"\nBundle: {artifacts.bundle}", soft_wrap=True)
    out.print(f"Report: {artifacts.report}", soft_wrap=True)
