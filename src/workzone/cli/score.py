"""``workzone score``: decide on millions of images, in shards, on one machine or a Ray cluster."""

from __future__ import annotations

from pathlib import Path

import typer

from workzone.cli.options import BUDGET, DEVICE, MAX_PIXELS, SLICES, Device, note, or_starter, slice_columns


def score(
    source: str = typer.Argument(
        ...,
        help="A folder, a CSV or Parquet file with a column 'path', a text file with one path a line, or -.",
        metavar="INPUT",
        show_default=False,
    ),
    bundle: Path | None = typer.Option(
        None, "--bundle", "-b", help="Folder of the bundle.", envvar="WORKZONE_BUNDLE", metavar="FOLDER"
    ),
    out: Path = typer.Option(
        ..., "--out", "-o", help="Folder of the shards; a second call goes on.", metavar="FOLDER", show_default=False
    ),
    launcher: str = typer.Option("local", "--launcher", help="local processes, or ray."),
    workers: int = typer.Option(0, "--workers", min=0, help="Processes or actors, 0 for all cores."),
    threads: int = typer.Option(1, "--threads", min=1, help="Images in work at once in each worker."),
    shard_size: int = typer.Option(1024, "--shard-size", min=1, help="Images of a shard."),
    max_pixels: int = MAX_PIXELS,
    budget: float | None = BUDGET,
    device: Device = DEVICE,
    slices: list[str] | None = SLICES,
    ray_address: str | None = typer.Option(
        None, "--ray-address", help="A running cluster; without it one is started here.", metavar="HOST:PORT"
    ),
) -> None:
    """Score a large set of images into Parquet shards; each image once, bad ones listed in bad.csv (exit code 1).

    A killed call is taken up by the same command: finished shards stay, and the files are the same byte for byte as
    without the kill. Local processes and Ray give the same bytes.
    """
    from workzone.cli.progress import TerminalProgress
    from workzone.cluster import launcher_of
    from workzone.scoring import Launch, score_images
    from workzone.scoring.listing import list_images

    launch = Launch(launcher_of(launcher), workers, threads, ray_address)
    bundle = or_starter(bundle)
    with TerminalProgress().bar("scoring") as advance:
        summary = score_images(
            list_images(source),
            bundle,
            out,
            launch=launch,
            max_pixels=max_pixels,
            budget=budget,
            device=device.value,
            columns=slice_columns(slices or []),
            shard_size=shard_size,
            advance=advance,
        )
    if summary["void"]:
        note(f"The certificate of this bundle is void: {'; '.join(summary['void'])}")
    elif not summary["certified"]:
        note("This bundle makes no certified promise.")
    told, call = summary["decisions"], summary["last_call"]
    speed = f", {call['images_per_second']:.1f} images/s" if call["images"] else ""
    note(
        f"{summary['n']:,} images in {summary['shards']:,} shard{'' if summary['shards'] == 1 else 's'}: "
        f"{told['roadwork']:,} roadwork, "
        f"{told['no_roadwork']:,} no_roadwork, {told['abstain']:,} abstained, {summary['bad']:,} unreadable; "
        f"{call['images']:,} scored now{speed}"
    )
    note(f"Rows: {out / 'shards' / '*' / '*.parquet'}")
    if summary["bad"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in summary["bad_reasons"].items())
        note(f"Unreadable: {reasons}; listed in {out / 'bad.csv'}")
        raise typer.Exit(1)
