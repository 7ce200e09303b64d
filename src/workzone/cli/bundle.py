"""``workzone verify`` and ``workzone evaluate``: is this bundle what it says, and how good is it on these images?"""

from __future__ import annotations

from pathlib import Path

import typer

from workzone.cli.options import DEVICE, Device


def verify(
    bundle: Path = typer.Argument(..., help="Folder of the bundle, or of what 'workzone certify' wrote."),
    device: Device = DEVICE,
    as_json: bool = typer.Option(False, "--json", help="Print the checks as JSON."),
) -> None:
    """Recompute hashes, check that the certificate fits, answer the golden cases again; exit 3 when a check fails."""
    import json

    from workzone.bundle import schema
    from workzone.bundle.verify import verify_bundle

    kind = "rule" if (bundle / schema.RULE).is_file() else "bundle"
    if kind == "rule":
        need_eval("reading the answers to test images")
        from workzone.bundle.rules.verify import verify_rule

        checks = verify_rule(bundle)
    else:
        checks = verify_bundle(bundle, device=device.value)
    failed = [c for c in checks if not c.passed]
    if as_json:
        typer.echo(json.dumps([{"name": c.name, "passed": c.passed, "detail": c.detail} for c in checks], indent=2))
    else:
        for c in checks:
            typer.echo(f"{'ok    ' if c.passed else 'FAILED'} {c.name}: {c.detail}")
        on = f" on {device.value}" if device is not Device.cpu and kind == "bundle" else ""
        typer.echo(f"The {kind} is good{on}." if not failed else f"The {kind} must not be used{on}.")
    if failed:
        raise typer.Exit(3)


def evaluate(
    bundle: Path = typer.Argument(..., help="Folder of the bundle, or a table of predictions (CSV or Parquet)."),
    data: str = typer.Argument(
        None,
        help="Labelled images: a folder with one sub-folder per class, or a table. Not with a table of predictions.",
    ),
    out: Path = typer.Option(Path("evaluation"), "--out", "-o", help="Folder for figures and report."),
    words: list[str] = typer.Argument(
        None, help="Keys of section evaluate, for example resamples=2000.", metavar="KEY=VALUE"
    ),
    threads: int = typer.Option(0, "--threads", help="Threads of the engine, 0 for all cores."),
    seed: int = typer.Option(42, "--seed", help="Seed of the bootstrap."),
    robustness: bool = typer.Option(
        False, "--robustness", help="Count the promises on changed pictures as well: corruptions, StreetVision."
    ),
    robustness_images: int = typer.Option(
        100, "--robustness-images", min=2, help="Images of the sample that is changed, each 58 times."
    ),
) -> None:
    """Measure a bundle on labelled images it has not seen: figures with intervals, slices, plots, report.

    A table of predictions of any model is measured in the same way: columns id, label, and probability or log_odds;
    optionally decision (roadwork, no_roadwork or abstain), source, group, hour, weather, path and others to slice by.
    With a column split, calibrators are compared on the images 'calibration', and only those of 'test' are measured.
    """
    from rich.console import Console

    from workzone.cli.progress import TerminalProgress
    from workzone.cli.tables import print_table
    from workzone.config.load import build_config
    from workzone.errors import ConfigError

    need_eval("evaluation")
    from workzone.config.load import parse_words
    from workzone.evaluation.evaluate import evaluate as write_evaluation
    from workzone.evaluation.given import TABLE, evaluated_from, is_table, load_given, save_scores
    from workzone.evaluation.report.terminal import summary_table

    made = is_table(bundle)
    keys = list(words or [])
    if made and data is not None:
        if "=" not in data:
            raise ConfigError(
                "a table of predictions is evaluated alone",
                where=data,
                fix="leave the data out, or give a bundle instead of the table",
            )
        keys.insert(0, data)
    if made and robustness:
        raise ConfigError(
            "corrupted pictures need a bundle that scores them",
            where="--robustness",
            fix="give a bundle and its images",
        )
    if not made and data is None:
        raise ConfigError(
            "a bundle needs labelled images to be evaluated on",
            where=str(bundle),
            fix="give a folder or table of images, or give a table of predictions (.csv, .parquet) instead of a bundle",
        )
    place = str(bundle if made else data)
    settings = build_config({"data": place, "out": str(out), "evaluate": parse_words(keys)}).evaluate
    progress = TerminalProgress()
    if made:
        evaluated = evaluated_from(load_given(bundle), seed=seed)
    else:
        from workzone.pipeline.external import evaluate_bundle_inputs

        evaluated = evaluate_bundle_inputs(bundle, Path(place), threads=threads, progress=progress)
    with progress.bar("figures and report"):
        save_scores(evaluated, out / TABLE)
        summary = write_evaluation(evaluated, settings, out, seed=seed)
    console = Console(highlight=False)
    print_table(console, summary_table(summary))
    console.print(f"Report: {out / 'report.html'}", soft_wrap=True)
    if robustness:
        from workzone.cli.robustness import measure_robustness

        first = measure_robustness(
            bundle,
            evaluated,
            settings,
            out,
            images=robustness_images,
            threads=threads,
            seed=seed,
            progress=progress,
        )
        console.print(f"{first} Curves: {out / 'robustness.png'}", soft_wrap=True)


def need_eval(feature: str) -> None:
    """Stop with one clear sentence where the packages of the extra 'eval' are missing."""
    from workzone.errors import MissingExtraError

    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
        import polars  # noqa: F401
        import scipy  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "polars", "eval", feature=feature) from error
