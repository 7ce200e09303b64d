"""``workzone data``: build manifests, split, audit for leaks, draw synthetic scenes."""

from __future__ import annotations

from pathlib import Path

import typer

from workzone.errors import MissingExtraError

app = typer.Typer(help="Manifests, splits, leak audit, synthetic scenes.", no_args_is_help=True)


def _need_eval() -> None:
    try:
        import polars  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("polars", "eval", feature="working with data sets") from error


@app.command("import")
def import_(
    location: Path = typer.Argument(..., help="Folder with one sub-folder per class, unlabelled folder, or table."),
    out: Path = typer.Option(Path("manifest.parquet"), "--out", "-o", help="Manifest to write (.parquet or .csv)."),
    kind: str = typer.Option("auto", "--kind", help="folder, table, unlabelled or auto."),
) -> None:
    """Build a manifest: hash every image, read size, EXIF place and time, and list what cannot be read."""
    _need_eval()
    from workzone.cli.progress import TerminalProgress
    from workzone.data.sources.build import build_manifest

    with TerminalProgress().bar("reading images") as advance:
        manifest = build_manifest(location, kind, progress=advance)
    manifest.save(out)
    labels = manifest.frame["label"]
    typer.echo(
        f"{len(manifest)} images ({int((labels == 1).sum())} roadwork, {int((labels == 0).sum())} without, "
        f"{labels.null_count()} unlabelled) -> {out}"
    )
    for row in manifest.rejected.iter_rows(named=True):
        typer.echo(f"left out: {row['path']}: {row['reason']}", err=True)
    if manifest.rejected.height:
        raise typer.Exit(1)


@app.command()
def split(
    manifest: Path = typer.Argument(..., help="Manifest made by 'workzone data import'."),
    out: Path = typer.Option(Path("splits.json"), "--out", "-o", help="Split file to write."),
    seed: int = typer.Option(0, "--seed", help="Seed of the split."),
) -> None:
    """Give every image a role (70/10/10/10), whole groups and near duplicates together."""
    _need_eval()
    from workzone.data.manifest import Manifest
    from workzone.data.splits import make_splits

    splits = make_splits(Manifest.load(manifest), seed=seed)
    splits.save(out)
    for role, by_source in splits.counts.items():
        total = {label: sum(c.get(label, 0) for c in by_source.values()) for label in ("1", "0")}
        typer.echo(f"{role}: {total['1'] + total['0']} images, {total['1']} roadwork")
    typer.echo(f"-> {out}")


@app.command()
def audit(
    manifest: Path = typer.Argument(..., help="Manifest, or the folder of a run."),
    splits: Path = typer.Argument(None, help="Split file; not needed for the folder of a run."),
    out: Path = typer.Option(None, "--out", "-o", help="Folder for audit.json and a picture of the worst pairs."),
) -> None:
    """Look for leaks between roles: shared groups, copies, near duplicates and crops; exit 3 when there is one."""
    _need_eval()
    from workzone.cli.progress import TerminalProgress
    from workzone.data.audit import audit as run_audit
    from workzone.data.manifest import Manifest
    from workzone.data.splits import Splits
    from workzone.errors import ConfigError
    from workzone.pipeline.artifacts import Artifacts

    if manifest.is_dir():
        artifacts = Artifacts(manifest)
        manifest, splits = artifacts.manifest, splits or artifacts.splits
    if splits is None:
        raise ConfigError(
            "no split file was given", fix="workzone data audit MANIFEST SPLITS, or give the folder of a run"
        )
    with TerminalProgress().bar("comparing images across roles") as advance:
        report = run_audit(Manifest.load(manifest), Splits.load(splits), progress=advance)
    for line in report.render():
        typer.echo(line)
    if out is not None:
        for path in report.write(out):
            typer.echo(f"-> {path}")
    if not report.passed:
        raise typer.Exit(3)


@app.command()
def synth(
    out: Path = typer.Argument(..., help="Folder for images and metadata.csv."),
    images: int = typer.Option(200, "--images", "-n", min=1, help="Number of scenes."),
    seed: int = typer.Option(0, "--seed", help="Seed of the scenes."),
    prevalence: float = typer.Option(0.5, "--prevalence", min=0.0, max=1.0, help="Share with roadwork."),
) -> None:
    """Draw labelled street scenes with known ground truth."""
    from workzone.cli.progress import TerminalProgress
    from workzone.data.synthetic import write_dataset

    with TerminalProgress().bar("drawing scenes") as advance:
        table = write_dataset(out, images, seed=seed, prevalence=prevalence, progress=advance)
    typer.echo(f"{images} scenes -> {table}")
