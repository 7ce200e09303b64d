"""``workzone data quality`` and ``apply-review``: what is wrong with the data, and what a person decided of it."""

from __future__ import annotations

from pathlib import Path

import typer

from workzone.cli.manifests import WORDS, one_source, read_manifest
from workzone.cli.progress import TerminalProgress


def quality(
    data: Path = typer.Argument(..., help="Manifest, table or folder of images."),
    words: list[str] | None = WORDS,
    out: Path = typer.Option(Path("quality"), "--out", "-o", help="Folder for quality.csv, quality.html, review.csv."),
    bundle: Path | None = typer.Option(None, "--bundle", help="Embed by this bundle, not by the default backbone."),
    embeddings: Path | None = typer.Option(None, "--embeddings", help="Table or .npz of embeddings made elsewhere."),
    review: Path | None = typer.Option(None, "--review", help="A review file to obey first."),
    similarity: float = typer.Option(0.97, "--similarity", min=0.5, max=1.0, help="Least cosine of similar images."),
    outliers: int = typer.Option(100, "--outliers", min=0, help="Most of the oddest images that are listed."),
    contamination: float = typer.Option(
        0.05, "--contamination", min=0.0, max=0.5, help="Largest share of the images that is listed as odd."
    ),
    confidence: float = typer.Option(
        0.9, "--label-confidence", min=0.5, max=1.0, help="Labels in doubt with less are not put into the review."
    ),
    shown: int = typer.Option(12, "--shown", min=1, max=200, help="Pictures of each kind on the page."),
) -> None:
    """Look for copies, labels in doubt, outliers, unusable pictures and shortcuts; nothing is changed or deleted."""
    from workzone.bundle.runtime import Detector
    from workzone.pipeline.commands.inspecting import run_quality
    from workzone.pipeline.embedding import tool_config

    one_source(bundle, embeddings)
    config = tool_config(data, out, words or [])
    found, shortcuts = run_quality(
        read_manifest(data),
        config,
        out,
        detector=None if bundle is None else Detector.load(bundle, threads=config.compute.threads),
        embeddings=embeddings,
        review=review,
        similarity=similarity,
        outliers=outliers,
        contamination=contamination,
        confidence=confidence,
        shown=shown,
        title=str(data),
        progress=TerminalProgress(),
    )
    for kind, count in found.counts().items():
        queued = sum(f.kind == kind for f in found.queued())
        typer.echo(f"{kind.replace('_', ' ')}: {count}" + (f", {queued} in the review" if queued < count else ""))
    for shortcut in shortcuts:
        typer.echo(f"{shortcut.name} alone predicts the label with AUROC {shortcut.auroc} (n {shortcut.auroc.n})")
    for text in found.skipped:
        typer.echo(f"not checked: {text}", err=True)
    typer.echo(f"-> {out / 'quality.html'}")
    if found.counts()["unreadable"]:
        raise typer.Exit(1)


def apply_review(
    manifest: Path = typer.Argument(..., help="Manifest, table or folder that was reviewed."),
    review: Path = typer.Argument(..., help="review.csv with the columns action and new_label filled in."),
    out: Path = typer.Option(..., "--out", "-o", help="Manifest to write (.parquet or .csv)."),
) -> None:
    """Write the manifest that follows from a review; the images and the first manifest stay as they are."""
    from workzone.data.quality.review import apply_review as apply
    from workzone.data.quality.review import read_review

    applied = apply(read_manifest(manifest), read_review(review))
    applied.manifest.save(out)
    typer.echo(f"{applied.sentence()}; {len(applied.manifest)} images -> {out}")
