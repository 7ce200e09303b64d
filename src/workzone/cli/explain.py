"""``workzone explain``: which views and places of an image carried the decision; needs the light core only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from workzone.cli.options import BUDGET, MAX_PIXELS, SLICES, slice_columns
from workzone.errors import ConfigError, DataError
from workzone.files import IMAGE_SUFFIXES, shown

if TYPE_CHECKING:
    from workzone.bundle.explain import Explanation

FORMATS = ("table", "json")
_TOP_CELLS = 5
_QUALITY = 92


def explain(
    bundle: Path = typer.Argument(..., help="Folder of the bundle.", show_default=False),
    images: list[Path] = typer.Argument(..., help="Images, or folders of images.", metavar="IMAGE", show_default=False),
    out: Path = typer.Option(
        Path("explained"), "--out", "-o", help="Folder for a picture and a JSON file per image.", metavar="FOLDER"
    ),
    grid: int = typer.Option(8, "--grid", min=2, max=32, help="Cells along a side that are covered one by one."),
    fill: str = typer.Option("mean", "--fill", help="What covers a cell: mean, grey or blur.", metavar="FILL"),
    orders: int = typer.Option(
        10, "--orders", min=0, max=100, help="Random orders that the map is compared with; 0 skips the check."
    ),
    budget: float | None = BUDGET,
    slices: list[str] | None = SLICES,
    form: str = typer.Option("table", "--format", "-f", help="table or json.", metavar="FORMAT"),
    threads: int = typer.Option(0, "--threads", min=0, help="Threads of the engine, 0 for all cores."),
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Show which views and places carried the decision, by covering them, and test whether that map can be believed."""
    from workzone.bundle import occlusion, open_bundle
    from workzone.bundle.explain import explain as explain_one
    from workzone.bundle.illustrate import illustrate
    from workzone.cli.progress import TerminalProgress
    from workzone.errors import ImageError
    from workzone.files import atomic_path, write_json
    from workzone.vision import decode, needed_side

    if form not in FORMATS:
        raise ConfigError(f"unknown format {form!r}", fix="take table or json")
    filler = next((f for f in occlusion.FILLS if f == fill), None)
    if filler is None:
        raise ConfigError(f"unknown fill {fill!r}", fix="take mean, grey or blur")
    columns = slice_columns(slices or [])
    files = list(_files(images))
    if out.exists() and not out.is_dir():
        raise ConfigError("the output is no folder", where=str(out), fix="give a folder with --out")
    detector = open_bundle(bundle, threads=threads)
    if budget is not None:
        detector = detector.at_budget(budget)
    progress, records, bad = TerminalProgress(), [], 0
    for file, name in zip(files, _names(files), strict=True):
        try:
            with progress.bar(f"covering {shown(Path(file.name))}") as advance:
                found = explain_one(
                    detector,
                    file,
                    cells=grid,
                    fill=filler,
                    orders=orders,
                    max_pixels=max_pixels,
                    progress=advance,
                    columns=columns,
                )
                picture = decode(file, max_pixels=max_pixels, min_side=needed_side(detector.preprocessing))
        except ImageError as error:
            bad += 1
            typer.echo(f"{shown(file)}: {error.reason}: {error.what}", err=True)
            records.append({"path": shown(file), "error": error.reason})
            continue
        target = out / f"{name}.jpg"
        with atomic_path(target) as partial:
            illustrate(found, picture).save(partial, "JPEG", quality=_QUALITY, subsampling=0)
        record = {"path": shown(file), "error": None, "picture": shown(target), **found.to_dict()}
        write_json(out / f"{name}.json", record)
        records.append(record)
        if form == "table":
            _print(shown(file), found, shown(target))
    if form == "json":
        from workzone.files import canonical_json

        typer.echo(canonical_json({"bundle": detector.manifest.name, "images": records}), nl=False)
    if bad:
        raise typer.Exit(1)


def _files(words: Sequence[Path]) -> Iterator[Path]:
    """Images in the order given, those of a folder sorted."""
    for word in words:
        if not word.is_dir():
            yield word
            continue
        inside = sorted(p for p in word.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
        if not inside:
            raise DataError(
                "the folder holds no images", where=str(word), fix="give a folder with JPEG, PNG or WebP files"
            )
        yield from inside


def _names(files: Sequence[Path]) -> Iterator[str]:
    """A different name for the output of each file: its own, numbered where two share it."""
    taken: set[str] = set()
    for file in files:
        name, number = file.stem, 2
        while name.lower() in taken:
            name, number = f"{file.stem}-{number}", number + 1
        taken.add(name.lower())
        yield name


def _print(path: str, e: Explanation, target: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from workzone.bundle.explain import verdict_sentence, weights_sentence
    from workzone.cli.tables import print_table

    console = Console(highlight=False)
    d = e.decision
    lean = f", leans to {e.towards}" if d.label == "abstain" else ""
    console.print(
        Text(f"{path}: {d.label}{lean}, P(roadwork) {d.probability:.3f}, log-odds {d.log_odds:+.2f} ({d.reason})"),
        soft_wrap=True,
    )
    for line in (*(e.answered.sentences() if e.answered else ()), f"Certificate: {e.certificate}"):
        console.print(Text(line), soft_wrap=True)
    views = Table(
        "view", "part of the picture", "own log-odds", "weight", "contribution", box=None, header_style="bold"
    )
    order = sorted(range(len(e.views)), key=lambda i: -abs(e.views[i].contribution or 0.0))
    for i in order:
        v = e.views[i]
        given = "the only view" if v.contribution is None else f"{v.contribution:+.3f}"
        views.add_row(str(i), _part(v.box), f"{v.log_odds:+.2f}", f"{v.weight:.3f}", given)
    print_table(console, views)
    cells = Table(f"places for {e.towards}", "log-odds they carry", box=None, header_style="bold")
    rows, cols = e.heat.shape
    for r, c, value in e.top_cells(_TOP_CELLS):
        cells.add_row(_part((c / cols, r / rows, (c + 1) / cols, (r + 1) / rows)), f"{value:+.3f}")
    print_table(console, cells)
    for line in (verdict_sentence(e), weights_sentence(e), f"Picture: {target}"):
        console.print(Text(line), soft_wrap=True)
    console.print()


def _part(box: Sequence[Any]) -> str:
    x0, y0, x1, y1 = box
    if (x0, y0, x1, y1) == (0, 0, 1, 1):
        return "all of it"
    return f"{x0:.0%} to {x1:.0%} across, {y0:.0%} to {y1:.0%} down"
