"""``workzone serve`` and ``workzone review``: answer over HTTP, and take home labels of abstained pictures."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import typer

from workzone.cli.options import BUDGET
from workzone.errors import ConfigError, DataError

review_app = typer.Typer(help="Labels that people gave to abstained pictures.", no_args_is_help=True)


class StopEvent(StrEnum):
    """What an experiment counts, see ``workzone registry ab --event``."""

    wrong = "wrong"
    not_right = "not_right"
    missed = "missed"
    false_alarm = "false_alarm"


def serve(
    bundle: Path = typer.Argument(
        ..., help="Folder of the bundle, or with --registry a version or alias.", envvar="WORKZONE_BUNDLE"
    ),
    registry: str | None = typer.Option(
        None,
        "--registry",
        help="Folder of a registry, or where MLflow holds it; its aliases are followed while the server runs.",
        metavar="URL",
    ),
    challenger: str | None = typer.Option(None, "--challenger", help="Second bundle, answers --share of the requests."),
    share: float = typer.Option(0.0, "--share", min=0.0, max=1.0, help="Of the requests, for the challenger."),
    salt: str = typer.Option("", "--salt", help="Of the split; a new one draws anew."),
    stop_event: StopEvent = typer.Option(StopEvent.wrong, "--stop-event", help="What stops a challenger."),
    stop_delta: float = typer.Option(
        0.05, "--stop-delta", min=1e-6, max=0.5, help="Chance of ever stopping one that is not worse."
    ),
    shadow: str | None = typer.Option(None, "--shadow", help="Bundle that decides on the same images, for the log."),
    shadow_queue: int = typer.Option(16, "--shadow-queue", min=1, max=1024, help="Images that may wait for it."),
    shadow_seconds: float = typer.Option(10.0, "--shadow-seconds", min=0.01, help="Age at which they are dropped."),
    budget: float | None = BUDGET,
    host: str = typer.Option("127.0.0.1", "--host", help="Address to listen on; others need --api-key-file."),
    port: int = typer.Option(8000, "--port", min=0, max=65535),
    workers: int = typer.Option(1, "--workers", min=1, max=64, help="Processes; each opens the bundle."),
    threads: int = typer.Option(0, "--threads", min=0, help="Images in work at once in each process, 0 for all cores."),
    max_queue: int = typer.Option(64, "--max-queue", min=1, help="Images that may wait; more get 429."),
    batch_size: int = typer.Option(8, "--batch-size", min=1, max=256, help="Images taken from the queue at once."),
    batch_wait_ms: float = typer.Option(0.0, "--batch-wait-ms", min=0.0, max=1000.0, help="Wait for a batch to fill."),
    deadline_ms: int = typer.Option(10_000, "--deadline-ms", min=1, help="Longest time of a request; then 504."),
    body_seconds: float = typer.Option(30.0, "--body-seconds", min=0.1, help="Longest time for a request to arrive."),
    keep_alive_seconds: int = typer.Option(
        75, "--keep-alive-seconds", min=1, help="How long a connection without a request stays open."
    ),
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
    keep_share: float = typer.Option(
        0.0, "--keep-share", min=0.0, max=1.0, help="Of all pictures, kept for /review whatever the answer."
    ),
    monitor: Path | None = typer.Option(
        None, "--monitor", help="Folder of 'workzone monitor run --out'; /metrics shows its gauges.", metavar="FOLDER"
    ),
    keep_max_mb: float = typer.Option(1024.0, "--keep-max-mb", min=0.01, help="Size of that folder."),
) -> None:
    """Answer over HTTP: /v1/predict, Open Inference Protocol under /v2, a page at /; every answer says whether its
    certificate holds.
    """
    given: dict[str, Any] = {**locals(), "stop_event": stop_event.value}
    from workzone.serving import require_serve

    require_serve()
    from pydantic import ValidationError

    if registry is not None:
        from workzone.registry.address import registry_of

        given["registry"] = str(registry_of(registry, apart=True).root.absolute())

    from workzone.serving.run import serve as run
    from workzone.serving.settings import ServeSettings

    try:
        settings = ServeSettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = "--" + "-".join(str(p) for p in first["loc"]).replace("_", "-") if first["loc"] else None
        what = str(first["msg"]).removeprefix("Value error, ")
        raise ConfigError(what, where=where, fix="see workzone serve --help") from error
    shown = f"[{host}]" if ":" in host else host
    named = f"{bundle} of {registry}" if registry else f"{bundle}"
    typer.echo(f"Serving {named} at http://{shown}:{port}/ (API: /docs). Ctrl-C stops it.", err=True)
    run(settings)


@review_app.command("export")
def export(
    folder: Path = typer.Argument(..., help="The folder of --keep-abstained."),
    out: Path | None = typer.Option(None, "--out", "-o", help="CSV to write; FOLDER/manifest.csv if left out."),
    reviewers: int = typer.Option(1, "--reviewers", min=1, max=9, help="People at least who must have said something."),
) -> None:
    """Write the settled labels as a manifest that 'run data=', 'data fuse' and 'monitor --labels' read."""
    from workzone.files import write_atomic
    from workzone.serving.review import ReviewStore

    if not (folder / "review.db").is_file():
        raise DataError("there is no review queue", where=str(folder), fix="give the folder of --keep-abstained")
    target = out or folder / "manifest.csv"
    text = ReviewStore(folder, max_bytes=1).export(below=target.absolute().parent, reviewers=reviewers)
    write_atomic(target, text)
    typer.echo(f"{text.count(chr(10)) - 1} labelled pictures: {target}", err=True)
