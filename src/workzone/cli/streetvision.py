"""``workzone streetvision``: what a bundle would earn on subnet 72, and the folder a miner publishes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from workzone.bundle.chain import AnyDetector
    from workzone.cli.progress import TerminalProgress
    from workzone.streetvision.challenges import Scored
    from workzone.streetvision.report import Simulation

app = typer.Typer(help="StreetVision (subnet 72): simulate the reward offline, publish a model.", no_args_is_help=True)
_COSTS_SHOWN = 12


@app.command("simulate")
def simulate(
    bundle: Path = typer.Argument(..., help="Folder of the bundle.", show_default=False),
    data: Path = typer.Argument(..., help="Labelled images the bundle has not seen: a folder or a table."),
    protocol: str = typer.Option("2.0.4", "--protocol", help="2.0.4, letterbox or 0.4.1."),
    challenges: int = typer.Option(2000, "--challenges", min=100, max=1_000_000, help="Challenges of a run."),
    runs: int = typer.Option(100, "--runs", min=20, max=10_000, help="Runs; the interval is taken over them."),
    calib: Path = typer.Option(
        None, "--calib", help="Other labelled images, on which threshold and silence are chosen (such as val_calib)."
    ),
    draws: int = typer.Option(2, "--draws", min=1, max=64, help="Transformed copies of each image and level."),
    images: int = typer.Option(500, "--images", min=2, help="At most so many images of each class are scored."),
    out: Path = typer.Option(Path("streetvision"), "--out", "-o", help="Folder for scores, figures and the plot."),
    threads: int = typer.Option(0, "--threads", min=0, help="Threads of the engine, 0 for all cores."),
    seed: int = typer.Option(42, "--seed", min=0, help="Seed of transformations and challenges."),
) -> None:
    """Simulate the challenges and the reward of the subnet, offline: mean, spread, interval, and what costs most.

    Without --calib only the threshold 0.5 and the policy of the bundle are measured: a threshold must not be chosen on
    the images that it is reported on.
    """
    from rich.console import Console

    from workzone.bundle import open_bundle
    from workzone.cli.bundle import need_eval
    from workzone.cli.progress import TerminalProgress
    from workzone.cli.tables import print_table
    from workzone.errors import ConfigError
    from workzone.vision.streetvision.transforms import PROTOCOLS

    need_eval("the simulation")
    from workzone.streetvision import report
    from workzone.streetvision.simulate import choose, make_streams, require_disjoint

    if protocol not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {protocol!r}", where="--protocol", fix=f"take {', '.join(PROTOCOLS)}")
    if runs * challenges > 20_000_000:
        raise ConfigError("more than 20 million challenges", where="--runs", fix="take fewer runs or challenges")
    progress = TerminalProgress()
    detector = open_bundle(bundle, threads=threads)

    def scores(place: Path, name: str) -> Scored:
        return _scores(detector, place, protocol, out / name, images, draws, seed, threads, progress)

    scored = scores(data, "scores.npz")
    choice = None
    if calib is not None:
        chosen_on = scores(calib, "scores_calib.npz")
        require_disjoint(chosen_on, scored)
        with progress.bar("choosing the rule") as advance:
            choice = choose(chosen_on, challenges=challenges, runs=max(1, runs // 5), seed=seed + 1, progress=advance)
    with progress.bar("simulating") as advance:
        streams = make_streams(scored, challenges=challenges, runs=runs, seed=seed)
        found = report.simulate(
            detector.manifest.name,
            scored,
            streams,
            challenges=challenges,
            runs=runs,
            draws=draws,
            seed=seed,
            choice=choice,
            progress=advance,
        )
    report.write_simulation(found, out)
    console = Console(highlight=False)
    print_table(console, _earnings(found))
    print_table(console, _costs(found))
    for sentence in (found.sources, _choice(found), found.sentence()):
        console.print(sentence, soft_wrap=True, markup=False)
    console.print(f"Figures: {out / report.JSON}, plot: {out / report.PNG}", soft_wrap=True, markup=False)


def _scores(
    detector: AnyDetector,
    place: Path,
    protocol: str,
    stored: Path,
    images: int,
    draws: int,
    seed: int,
    threads: int,
    progress: TerminalProgress,
) -> Scored:
    from workzone.data.sources.build import build_manifest
    from workzone.streetvision import challenges
    from workzone.vision.streetvision.transforms import PROTOCOLS

    version = PROTOCOLS[protocol]
    with progress.bar("reading images") as advance:
        manifest = build_manifest(place, progress=advance)
    pictures = challenges.Pictures.from_manifest(manifest).sample(images, seed=seed)
    key = challenges.score_key(detector, pictures, version, draws=draws, seed=seed)
    known = challenges.load_scores(pictures, version, stored, key)
    if known is not None:
        progress.message(f"  scores of {place} taken from {stored}")
        return known
    with progress.bar("scoring challenges") as advance:
        fresh = challenges.score(detector, pictures, version, draws=draws, seed=seed, workers=threads, progress=advance)
    challenges.save_scores(fresh, stored, key)
    return fresh


def _earnings(found: Simulation) -> Table:
    from rich.table import Table

    table = Table(title="Reward by rule of answering", title_justify="left", box=None, header_style="bold")
    for name in ("rule", "mean reward", "sd of a step", "sd of a run", "moving average", "TPR", "TNR", "answered"):
        table.add_column(name)
    for e in found.earnings:
        r = e.reward
        table.add_row(
            e.rule.words(),
            f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]",
            f"{e.sd_step:.3f}",
            f"{e.sd_run:.3f}",
            "-" if math.isnan(e.score) else f"{e.score:.3f} ± {e.sd_score:.3f}",
            _rate(e.tpr),
            _rate(e.tnr),
            f"{e.answered:.1%}",
        )
    return table


def _costs(found: Simulation) -> Table:
    from rich.table import Table

    from workzone.evaluation.report.style import printable

    table = Table(title=f"What costs most, {found.rule.words()}", title_justify="left", box=None, header_style="bold")
    for name in ("column", "kind", "n", "share", "TPR", "TNR", "answered", "reward lost"):
        table.add_column(name)
    for c in found.costs[:_COSTS_SHOWN]:
        lost = f"{c.cost.value:.3f} [{c.cost.low:.3f}, {c.cost.high:.3f}]"
        rates = (_rate(c.tpr), _rate(c.tnr), f"{c.answered:.1%}")
        table.add_row(printable(c.column), printable(c.kind), str(c.images), f"{c.share:.1%}", *rates, lost)
    return table


def _rate(value: float) -> str:
    """A rate, or a dash where no image of the class is of that kind."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def _choice(found: Simulation) -> str:
    if found.choice is None:
        return "No rule was chosen: give other labelled images with --calib."
    c = found.choice
    return (
        f"Rule chosen on {c.images} other images: {c.rule.words()} (always answering: above {c.always.threshold:.3f})."
    )


@app.command("publish")
def publish(
    bundle: Path = typer.Argument(..., help="Folder of the bundle.", show_default=False),
    out: Path = typer.Option(..., "--out", "-o", help="New folder to write.", metavar="FOLDER"),
    name: str = typer.Option(..., "--name", help="Name of the model."),
    description: str = typer.Option(..., "--description", help="What it is, in a sentence."),
    submitted_by: str = typer.Option(..., "--submitted-by", help="Hotkey address (SS58)."),
    version: str = typer.Option("1.0.0", "--version", help="Version x.y.z."),
    threshold: float = typer.Option(0.5, "--threshold", help="Threshold that 0.5 stands for in the answers."),
    run: Path = typer.Option(
        None, "--run", help="Run the bundle came from, for a transformers model of its one-view head."
    ),
) -> None:
    """Write the folder a miner publishes: model_card.json, README with figures, the bundle, a transformers model."""
    from rich.console import Console

    from workzone.cli.progress import TerminalProgress
    from workzone.streetvision.publish import Card, publish_folder

    card = Card(name, description, version, submitted_by)
    with TerminalProgress().bar("publishing"):
        done = publish_folder(bundle, out, card, threshold=threshold, run=run)
    console = Console(highlight=False)
    console.print(f"Published in {out}.", soft_wrap=True, markup=False)
    console.print(done.transformers, soft_wrap=True, markup=False)
