"""``workzone run`` and ``workzone demo``: from data to a verified bundle."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from workzone.config import RunConfig

WORDS = typer.Argument(
    None,
    help="Keys, for example data=FOLDER out=DIR preset=small train.lr=1e-4.",
    metavar="KEY=VALUE",
    show_default=False,
)
TO = typer.Option(None, "--to", help="Stop after this phase.", metavar="PHASE")
FROM = typer.Option(None, "--from", help="Run this phase and all later ones again.", metavar="PHASE")
CONFIG = typer.Option(None, "--config", help="YAML file with keys; words on the command line win.", metavar="FILE")
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
    from rich.text import Text

    from workzone.cli.progress import TerminalProgress
    from workzone.cli.tables import print_table
    from workzone.errors import MissingExtraError

    for package in ("polars", "torch", "timm", "safetensors"):
        # Looked for, not imported: a run with nothing to do should not wait for torch.
        if find_spec(package) is None:
            raise MissingExtraError(package, "train", feature="training")
    from workzone.pipeline.engine import run_pipeline
    from workzone.pipeline.phases import PHASES

    out = Console(highlight=False)
    results = run_pipeline(config, PHASES, to=to, start=start, progress=TerminalProgress(), dry_run=dry_run)
    if dry_run:
        table = Table("phase", "would run", "why", box=None)
        for r in results:
            table.add_row(r.name, ("yes" if r.sure else "perhaps") if r.ran else "no", Text(r.why))
        print_table(out, table)
        return
    seconds = sum(r.seconds for r in results)
    done = ", ".join(f"{r.name} {r.seconds:.0f} s" for r in results if r.ran) or "nothing to do"
    out.print(f"\nPhases run: {done} ({seconds:.0f} s in all)", soft_wrap=True)
    if results[-1].name == PHASES[-1].name:
        _show(config, out)


def _show(config: RunConfig, out: object) -> None:
    from rich.console import Console

    from workzone.cli.tables import print_table
    from workzone.evaluation.report.terminal import stored_table
    from workzone.files import read_json
    from workzone.pipeline.artifacts import Artifacts

    assert isinstance(out, Console)
    artifacts = Artifacts(config.out)
    metrics = read_json(artifacts.metrics)
    print_table(out, stored_table(metrics["terminal"]))
    title, sentence = metrics["words"]["certificate"]
    said = sentence if sentence.lower().startswith(title.lower()) else f"{title}. {sentence}"
    out.print(said, soft_wrap=not out.is_terminal, markup=False)
    out.print(f"\nBundle: {artifacts.bundle}", soft_wrap=True, markup=False)
    out.print(f"Report: {artifacts.report}", soft_wrap=True, markup=False)
