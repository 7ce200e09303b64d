"""``workzone data fuse``, ``mine`` and ``cross``: several data sets as one, more of them, and one judged by another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from workzone.cli.manifests import WORDS, read_manifest
from workzone.cli.progress import TerminalProgress

if TYPE_CHECKING:
    from workzone.data.manifest import Manifest


def fuse(
    parts: list[str] = typer.Argument(
        ...,
        help="Data sets: manifest, table or folder, each with a name of its own if you like.",
        metavar="[NAME=]DATA",
    ),
    strategy: str = typer.Option(
        "naive",
        "--strategy",
        "-s",
        help="naive, balanced, inverse_frequency, domain_stratified, hard_negative, ratio or adaptive.",
    ),
    out: Path = typer.Option(Path("manifest.parquet"), "--out", "-o", help="Manifest to write (.parquet or .csv)."),
    ratio: list[str] | None = typer.Option(None, "--ratio", help="For ratio: share of a set.", metavar="NAME=SHARE"),
    by: str = typer.Option("origin", "--by", help="What a data set is: origin (the arguments), or column source."),
    hard_weight: float = typer.Option(2.0, "--hard-weight", min=1.0, max=100.0, help="Loss weight of hard negatives."),
    splits: Path | None = typer.Option(
        None, "--splits", help="Split file of an earlier run whose roles are kept; new images are for training."
    ),
) -> None:
    """Make one manifest of several: origin, licence, common groups, and weights for fuse.mixture=manifest."""
    from workzone.data.fusion.combine import combine, keep_roles
    from workzone.data.fusion.strategies import LOSS, SAMPLE, weigh
    from workzone.errors import ConfigError

    named: dict[str, Manifest] = {}
    for part in parts:
        name, sign, place = part.partition("=")
        if not sign or Path(part).exists():
            name, place = Path(part).stem if Path(part).is_file() else Path(part).name, part
            if Path(part).is_file() and name in ("manifest", "metadata", "labels"):
                name = Path(part).absolute().parent.name
        if name in named:
            raise ConfigError(f"two data sets are called {name!r}", fix=f"name one: other={place}")
        named[name] = read_manifest(Path(place))
    combined = combine(named)
    manifest = weigh(combined.manifest, strategy, by=by, ratios=_shares(ratio or []), hard_weight=hard_weight)
    if splits is not None:
        from workzone.data.splits import Splits

        manifest, without = keep_roles(manifest, Splits.load(splits))
        typer.echo(f"roles of {splits} kept; {without} new images have none, as they share a group", err=True)
    manifest.save(out)
    for sentence in combined.sentences():
        typer.echo(sentence, err=True)
    known = manifest.frame.filter(manifest.frame["label"].is_not_null())
    for name in known["domain_set"].unique(maintain_order=True).to_list():
        own = known.filter(known["domain_set"] == name)
        typer.echo(
            f"{name}: {len(own)} labelled, {int((own['label'] == 1).sum())} roadwork, "
            f"{float(own[SAMPLE].sum()) / float(known[SAMPLE].sum()):.1%} of the draws, "
            f"mean loss weight {float(own[LOSS].sum()) / len(own):.2f}"
        )
    typer.echo(f"{len(manifest)} images -> {out}")


def _shares(words: list[str]) -> dict[str, float]:
    from workzone.errors import ConfigError

    found = {}
    for word in words:
        name, sign, share = word.partition("=")
        try:
            found[name] = float(share)
        except ValueError:
            sign = ""
        if not sign or found[name] != found[name]:
            raise ConfigError(f"{word!r} is no NAME=SHARE", where="--ratio", fix="say for example --ratio natix=70")
    return found


def mine(
    data: Path = typer.Argument(..., help="Manifest, table or folder, labelled or not."),
    words: list[str] | None = WORDS,
    bundle: Path = typer.Option(..., "--bundle", help="The bundle that scores the images."),
    out: Path = typer.Option(Path("queue.csv"), "--out", "-o", help="Queue to write, a review file."),
    splits: Path | None = typer.Option(
        None, "--splits", help="Split file: images of other roles than train are left out, as they must be."
    ),
    budget: int = typer.Option(100, "--budget", min=1, help="Images of each kind in the queue."),
    ranking: str = typer.Option(
        "mixed", "--rank", help="Unlabelled images: entropy, margin, disagreement, diversity or mixed."
    ),
    confidence: float = typer.Option(0.9, "--confidence", min=0.51, max=1.0, help="Of a mistake."),
    pseudo: float = typer.Option(0.95, "--pseudo", min=0.51, max=1.0, help="Of a pseudo-label."),
    balance: str = typer.Option("prior", "--balance", help="Classes of pseudo-labels: prior, equal or none."),
    most: int | None = typer.Option(None, "--most", min=1, help="Largest number of pseudo-labels."),
) -> None:
    """Find confident mistakes, orange candidates, images worth a label, and pseudo-labels; a person decides."""
    from workzone.bundle.runtime import Detector
    from workzone.data.mining.acquire import RANKINGS
    from workzone.data.splits import Splits
    from workzone.errors import ConfigError
    from workzone.pipeline.commands.mining import MineOptions, only_training, run_mine
    from workzone.pipeline.embedding import tool_config

    for name, value, known in (("--rank", ranking, RANKINGS), ("--balance", balance, ("prior", "equal", "none"))):
        if value not in known:
            raise ConfigError(f"{name} {value!r} is unknown", fix=f"take one of {', '.join(known)}")
    config = tool_config(data, out.parent, words or [])
    manifest = read_manifest(data)
    if splits is not None:
        manifest = only_training(manifest, Splits.load(splits))
    options = MineOptions(budget, ranking, confidence, pseudo, balance, most)  # type: ignore[arg-type]
    detector = Detector.load(bundle, threads=config.compute.threads)
    mined = run_mine(manifest, detector, config, out, options, progress=TerminalProgress())
    typer.echo(
        f"{mined.pool} images scored: " + ", ".join(f"{n} {k.replace('_', ' ')}" for k, n in mined.counts.items())
    )
    negative, positive = mined.pseudo_labels.eligible
    chosen = int(mined.pseudo_labels.labels.sum()), int((mined.pseudo_labels.labels == 0).sum())
    typer.echo(
        f"pseudo-labels at {pseudo:.2f}: {chosen[0]} of {positive} roadwork, {chosen[1]} of {negative} without"
        + (f" -> {mined.pseudo}" if mined.pseudo else "")
    )
    typer.echo(f"-> {mined.queue}")


def cross(
    data: Path = typer.Argument(..., help="Manifest, table or folder of images of several data sets."),
    words: list[str] | None = WORDS,
    out: Path = typer.Option(Path("cross"), "--out", "-o", help="Folder of the results and of all trainings."),
    by: str = typer.Option("source", "--by", help="Column that names the data set; origin after data fuse."),
    fewest: int = typer.Option(10, "--fewest", min=2, help="Images of each class a set needs to be trained on."),
    resamples: int = typer.Option(1000, "--resamples", min=100, help="Draws of whole groups for intervals."),
) -> None:
    """Train on one data set and test on each other, and on all but one and test on that one; AUROC with intervals.

    Only images of train and val_select are used; val_calib and val_test stay shut.
    """
    from rich.console import Console
    from rich.table import Table

    from workzone.cli.tables import print_table
    from workzone.pipeline.embedding import tool_config
    from workzone.tuning.cross import CrossPlan, run_cross

    plan = CrossPlan(by=by, fewest=fewest, resamples=resamples)
    config = tool_config(data, out / "base", words or [])
    result = run_cross(config, out.resolve(), plan, progress=TerminalProgress())
    table = Table("trained on", "tested on", "AUROC", "images", "roadwork", "groups", box=None)
    for row in result["rows"]:
        told = "not defined" if row["value"] is None else f"{row['value']:.3f}"
        if row["low"] is not None:
            told += f" [{row['low']:.3f}, {row['high']:.3f}]"
        elif row["n_groups"] == 1:
            told += " (one group, no interval)"
        counts = (str(row[k]) for k in ("n", "n_positive", "n_groups"))
        table.add_row(row["trained"], row["tested"], told, *counts)
    print_table(Console(highlight=False), table)
    for name, why in result["not_tested"].items():
        typer.echo(f"not judged: {name}: {why}")
    typer.echo(f"Table: {out / 'cross.csv'}  Picture: {out / 'cross.png'}")
