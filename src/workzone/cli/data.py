"""``workzone data``: import and download, split, audit for leaks, draw synthetic scenes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from workzone.cli import fusion, quality
from workzone.cli.manifests import WORDS, embeddings_for
from workzone.errors import needs_extra

if TYPE_CHECKING:
    from workzone.data.sources.base import Source

app = typer.Typer(help="Manifests, splits, audit, quality, mining, fusion, drawn scenes.", no_args_is_help=True)


def _need_eval() -> None:
    with needs_extra("polars", "eval", feature="working with data sets"):
        import polars  # noqa: F401


@app.command("import")
def import_(
    source: str = typer.Argument(
        ..., help="Kind of source (natix, roadwork, coco, video, ...), or only the path to find out what it is."
    ),
    location: Path | None = typer.Argument(None, help="File or folder to read."),
    out: Path | None = typer.Option(
        None, "--out", "-o", help="New folder; or a manifest (.parquet, .csv) where the images are files of their own."
    ),
    kind: str = typer.Option("auto", "--kind", help="Kind of source, where only a path is given."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be taken and left out; write nothing."),
    class_map: str | None = typer.Option(
        None, "--class-map", help="For coco, yolo, voc: NAME=roadwork|ambiguous|other,... or a JSON file."
    ),
    rest: str | None = typer.Option(
        None, "--rest", help="For coco, yolo, voc: what images without roadwork are: negative, unlabelled, drop."
    ),
    assume_negative: bool = typer.Option(False, "--assume-negative", help="For bdd100k, rdd2022: label them 0."),
    options: list[str] = typer.Option([], "--set", help="Option of the source, NAME=VALUE; may be repeated."),
    accept_licence: bool = typer.Option(False, "--accept-licence", help="You accept the licence of the data set."),
    max_pixels: int = typer.Option(120_000_000, "--max-pixels", min=10_000, help="List larger images as unreadable."),
    workers: int = typer.Option(2, "--workers", min=1, help="Threads that decode."),
) -> None:
    """Build a manifest: hash every image, read size, EXIF place and time, and list what cannot be read.

    A killed import goes on where it stopped when the same command is given again.
    """
    _need_eval()
    from workzone.cli.progress import TerminalProgress
    from workzone.data.download.fetch import licence_error
    from workzone.data.sources.build import detect
    from workzone.data.sources.importing import import_source
    from workzone.data.sources.options import make_source
    from workzone.data.sources.survey import survey
    from workzone.errors import ConfigError

    if location is None:
        location = Path(source)
        kind = detect(location) if kind == "auto" else kind
        out = out or Path("manifest.parquet")
    elif kind not in ("auto", source):
        raise ConfigError(f"{source} and --kind {kind} are two kinds of source", fix="give one of them")
    else:
        kind = source
    member = make_source(kind, class_map=class_map, rest=rest, assume_negative=assume_negative, options=options)
    if member.licence is not None:
        typer.echo(f"licence of {kind}: {member.licence.text()}", err=True)
    if dry_run:
        with TerminalProgress().bar("looking") as advance:
            found = survey(member, location, progress=advance)
        for line in found.lines():
            typer.echo(line)
        return
    if member.licence is not None and not accept_licence:
        raise licence_error(kind, member.licence.text(), member.licence.url)
    if out is None:
        raise ConfigError("no folder was given for the import", fix="--out FOLDER, or --dry-run to only look")
    if out.suffix.lower() in (".parquet", ".csv"):
        _manifest_only(member, location, out, max_pixels, workers)
        return
    with TerminalProgress().bar("importing images") as advance:
        done = import_source(member, location, out, max_pixels=max_pixels, workers=workers, progress=advance)
    for line in done.survey.lines():
        typer.echo(line)
    if done.resumed:
        typer.echo(f"{done.resumed} images were read by an earlier import")
    if done.copies:
        typer.echo(f"{done.copies} images are copies of others, byte by byte; {done.contradictory} with another label")
    typer.echo(f"-> {done.manifest}")
    for _, path, reason in done.rejected:
        typer.echo(f"left out: {path}: {reason}", err=True)
    if done.unreadable:
        raise typer.Exit(1)


def _manifest_only(source: Source, location: Path, out: Path, max_pixels: int, workers: int) -> None:
    from workzone.cli.progress import TerminalProgress
    from workzone.data.sources.build import build_manifest

    with TerminalProgress().bar("reading images") as advance:
        manifest = build_manifest(location, source=source, progress=advance, max_pixels=max_pixels, workers=workers)
    manifest.save(out)
    labels = manifest.frame["label"]
    typer.echo(
        f"{len(manifest)} images ({int((labels == 1).sum())} roadwork, {int((labels == 0).sum())} without, "
        f"{labels.null_count()} unlabelled) -> {out}"
    )
    rules = manifest.warnings.filter(manifest.warnings["reason"].str.starts_with("left out: "))
    if rules.height:
        typer.echo(f"{rules.height} images were left out by the rules of {source.kind}; --dry-run says which", err=True)
    for row in manifest.rejected.iter_rows(named=True):
        typer.echo(f"left out: {row['path']}: {row['reason']}", err=True)
    if manifest.rejected.height:
        raise typer.Exit(1)


@app.command("download")
def download_(
    name: str = typer.Argument(..., help="natix, roadwork or rdd2022."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder for the files."),
    accept_licence: bool = typer.Option(False, "--accept-licence", help="You accept the licence of the data set."),
    revision: str | None = typer.Option(
        None, "--revision", help="Commit, tag or version; the newest by default, then kept."
    ),
    endpoint: str | None = typer.Option(None, "--endpoint", help="Address of a mirror."),
    files: list[str] = typer.Option([], "--files", help="Take files whose names end so; may be repeated."),
) -> None:
    """Download a data set: pinned to a revision, resumed after a break, every file checked by its checksum."""
    from workzone.cli.progress import TerminalProgress
    from workzone.data.download import download

    with TerminalProgress().bar("downloading (bytes)") as advance:
        done = download(
            name,
            out,
            accept_licence=accept_licence,
            revision=revision,
            endpoint=endpoint,
            files=files,
            progress=advance,
        )
    typer.echo(
        f"{done.files} files, {done.size / 1e6:.1f} MB, {done.fetched} of them new, {done.revision} -> {done.folder}"
    )


@app.command()
def split(
    manifest: Path = typer.Argument(..., help="Manifest made by 'workzone data import'."),
    words: list[str] | None = WORDS,
    out: Path = typer.Option(Path("splits.json"), "--out", "-o", help="Split file to write."),
    seed: int = typer.Option(0, "--seed", help="Seed of the split."),
    near_duplicates: bool = typer.Option(
        True, "--near-duplicates/--no-near-duplicates", help="Keep near duplicates by perceptual hash together."
    ),
    metres: float = typer.Option(0.0, "--metres", min=0.0, help="Keep images of one square of this size together."),
    columns: list[str] = typer.Option(
        [], "--column", help="Keep images with equal values of it together, such as sequence; may be repeated."
    ),
    similarity: float = typer.Option(
        0.0, "--similarity", min=0.0, max=1.0, help="Keep images of this cosine of embeddings together, such as 0.95."
    ),
    embeddings: Path | None = typer.Option(None, "--embeddings", help="Table or .npz of embeddings made elsewhere."),
    bundle: Path | None = typer.Option(None, "--bundle", help="Embed by this bundle, not by the default backbone."),
) -> None:
    """Give every image a role (70/10/10/10), whole groups and near duplicates together."""
    _need_eval()
    from workzone.data.manifest import Manifest
    from workzone.data.splits import make_splits
    from workzone.data.units import find_units
    from workzone.errors import ConfigError

    if not similarity and (given := embeddings or bundle) is not None:
        raise ConfigError("embeddings join nothing without a similarity", where=str(given), fix="say --similarity 0.95")
    table = Manifest.load(manifest)
    found = embeddings_for(table, manifest, words or [], bundle, embeddings) if similarity else None
    joined = {
        "near_duplicates": near_duplicates,
        "cell_metres": metres or None,
        "columns": columns,
        "embeddings": found,
        "similarity": similarity,
    }
    splits = make_splits(table, seed=seed, **joined)  # type: ignore[arg-type]
    splits.save(out)
    if len(set(splits.units.values())):
        largest = max(Counter(splits.units.values()).values())
        before = len(set(find_units(table)))
        typer.echo(
            f"{len(set(splits.units.values()))} units of {len(splits.units)} images, the largest of {largest}; "
            f"by group and hash alone there are {before}",
            err=True,
        )
    for role, by_source in splits.counts.items():
        total = {label: sum(c.get(label, 0) for c in by_source.values()) for label in ("roadwork", "no_roadwork")}
        typer.echo(f"{role}: {sum(total.values())} images, {total['roadwork']} roadwork")
    typer.echo(f"-> {out}")


@app.command()
def audit(
    manifest: Path = typer.Argument(..., help="Manifest, or the folder of a run."),
    splits: Path = typer.Argument(None, help="Split file; not needed for the folder of a run."),
    out: Path = typer.Option(None, "--out", "-o", help="Folder for audit.json and a picture of the worst pairs."),
) -> None:
    """Look for leaks between roles: shared groups, copies, near duplicates and crops; exit 3 when there is one.

    Exit 1 when nothing was found but images were unreadable and so were not compared.
    """
    _need_eval()
    from workzone.cli.progress import TerminalProgress
    from workzone.data.audit.run import audit as run_audit
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
    if report.unreadable:
        raise typer.Exit(1)


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


app.command("quality")(quality.quality)
app.command("apply-review")(quality.apply_review)
app.command("fuse")(fusion.fuse)
app.command("mine")(fusion.mine)
app.command("cross")(fusion.cross)
