"""``workzone load``: a load test of a running server."""

from __future__ import annotations

from pathlib import Path

import typer


def load(
    url: str = typer.Argument(..., help="Of the running server, http://HOST:PORT."),
    pictures: list[Path] = typer.Argument(..., help="Files or folders of pictures that are sent in turn."),
    p99_ms: float = typer.Option(..., "--p99-ms", min=1.0, help="Time that 99 of 100 answers may take."),
    users: int = typer.Option(16, "--users", min=1, max=10_000, help="Who ask side by side."),
    seconds: float = typer.Option(120.0, "--seconds", min=1.0, help="Length of the test."),
    pause: float = typer.Option(0.0, "--pause", min=0.0, help="Seconds between an answer and the next question."),
    failed: float = typer.Option(0.0, "--failed", min=0.0, max=0.99, help="Share of requests that may fail."),
    api_key: str | None = typer.Option(None, "--api-key", help="To ask the server.", envvar="WORKZONE_API_KEY"),
    out: Path = typer.Option(Path("load.json"), "--out", "-o", help="Report; 'workzone checklist' reads it."),
    html: Path | None = typer.Option(None, "--html", help="Page of Locust with the course of the test."),
) -> None:
    """Ask a server as many users would and report what it did. Exit 3 where the limits are not shown to hold."""
    from workzone.files import IMAGE_SUFFIXES, write_atomic
    from workzone.serving.load import run_load

    files = [f for p in pictures for f in (_inside(p, IMAGE_SUFFIXES) if p.is_dir() else [p])]
    limits = {"limit_p99": p99_ms, "limit_failed": failed}
    report = run_load(url, files, users=users, seconds=seconds, pause=pause, key=api_key, html=html, **limits)
    write_atomic(out, report.model_dump_json(indent=1) + "\n")
    typer.echo(f"{report.sentence()}. Report: {out}")
    problems = report.problems()
    for problem in problems:
        typer.echo(f"not shown: {problem}", err=True)
    if problems:
        raise typer.Exit(3)


def _inside(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    from workzone.errors import DataError

    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes)
    if not found:
        fix = "give files or a folder of pictures"
        raise DataError("the folder holds no picture to send", where=str(folder), fix=fix)
    return found
