"""``workzone serve`` and ``workzone review``: answer over HTTP, and take home labels of abstained pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from workzone.errors import ConfigError, DataError

review_app = typer.Typer(help="Labels that people gave to abstained pictures.", no_args_is_help=True)


def serve(
    bundle: Path = typer.Argument(..., help="Folder of the bundle.", envvar="WORKZONE_BUNDLE"),
    host: str = typer.Option("127.0.0.1", "--host", help="Address to listen on; others need --api-key-file."),
    port: int = typer.Option(8000, "--port", min=0, max=65535),
    workers: int = typer.Option(1, "--workers", min=1, max=64, help="Processes; each opens the bundle."),
    threads: int = typer.Option(0, "--threads", min=0, help="Images in work at once in each process, 0 for all cores."),
    max_queue: int = typer.Option(64, "--max-queue", min=1, help="Images that may wait; more get 429."),
    batch_size: int = typer.Option(8, "--batch-size", min=1, max=256, help="Images taken from the queue at once."),
    batch_wait_ms: float = typer.Option(0.0, "--batch-wait-ms", min=0.0, max=1000.0, help="Wait for a batch to fill."),
    deadline_ms: int = typer.Option(10_000, "--deadline-ms", min=1, help="Longest time of a request; then 504."),
    body_seconds: float = typer.Option(30.0, "--body-seconds", min=0.1, help="Longest time for a request to arrive."),
    max_bytes: int = typer.Option(32 * 1024 * 1024, "--max-bytes", min=1, help="Largest request."),
    max_memory: int = typer.Option(
        512 * 1024 * 1024, "--max-memory", min=1, help="Bytes of all requests held at once."
    ),
    max_images: int = typer.Option(16, "--max-images", min=1, help="Images of one request."),
    max_pixels: int = typer.Option(50_000_000, "--max-pixels", min=1, help="Pixels of one image."),
    api_key_file: Path | None = typer.Option(None, "--api-key-file", help="Lines of NAME KEY or NAME sha256:HEX."),
    insecure: bool = typer.Option(False, "--insecure", help="Let other machines connect without a key."),
    refuse_void: bool = typer.Option(False, "--refuse-void", help="Answer 503 while the certificate is void."),
    check_seconds: float = typer.Option(
        60.0, "--check-seconds", min=0.0, help="Between checks of the bundle, 0: never."
    ),
    drain_seconds: float = typer.Option(1.0, "--drain-seconds", min=0.0, help="Not ready before closing, on SIGTERM."),
    grace_seconds: int = typer.Option(30, "--grace-seconds", min=1, help="To finish what was accepted, on SIGTERM."),
    log_db: Path | None = typer.Option(None, "--log-db", help="SQLite file for the log of predictions."),
    log_embeddings: bool = typer.Option(False, "--log-embeddings", help="Log the mean embedding of each image."),
    log_max_mb: float = typer.Option(256.0, "--log-max-mb", min=0.01, help="Log size above which old rows move out."),
    log_max_days: float = typer.Option(30.0, "--log-max-days", min=0.0, help="Age of rows that move out."),
    keep_abstained: Path | None = typer.Option(
        None, "--keep-abstained", help="Keep abstained pictures here, for /review.", metavar="FOLDER"
    ),
    keep_max_mb: float = typer.Option(1024.0, "--keep-max-mb", min=0.01, help="Size of that folder."),
) -> None:
    """Answer over HTTP: /v1/predict, Open Inference Protocol under /v2, a page at /; every answer says whether its
    certificate holds.
    """
    given: dict[str, Any] = dict(locals())
    from workzone.serving import require_serve

    require_serve()
    from pydantic import ValidationError

    from workzone.serving.run import serve as run
    from workzone.serving.settings import ServeSettings

    try:
        settings = ServeSettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = "--" + "-".join(str(p) for p in first["loc"]).replace("_", "-") if first["loc"] else None
        raise ConfigError(str(first["msg"]), where=where, fix="see workzone serve --help") from error
    shown = f"[{host}]" if ":" in host else host
    typer.echo(f"Serving {bundle} at http://{shown}:{port}/ (API: /docs). Ctrl-C stops it.", err=True)
    run(settings)


@review_app.command("export")
def export(
    folder: Path = typer.Argument(..., help="The folder of --keep-abstained."),
    out: Path | None = typer.Option(None, "--out", "-o", help="CSV to write; FOLDER/manifest.csv if left out."),
) -> None:
    """Write the settled labels as a manifest that ``workzone run data=`` reads."""
    from workzone.files import write_atomic
    from workzone.serving.review import ReviewStore

    if not (folder / "review.db").is_file():
        raise DataError("there is no review queue", where=str(folder), fix="give the folder of --keep-abstained")
    target = out or folder / "manifest.csv"
    text = ReviewStore(folder, max_bytes=1).export(below=target.absolute().parent)
    write_atomic(target, text)
    typer.echo(f"{text.count(chr(10)) - 1} labelled pictures: {target}", err=True)
