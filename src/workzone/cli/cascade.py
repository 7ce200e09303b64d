"""``workzone cascade``: several finished runs become one bundle that asks the dearer models only where it pays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


def cascade(
    words: list[str] = typer.Argument(
        ...,
        help="Folders of finished runs, the cheapest model first; then keys of section decide, such as "
        "decide.budget=0.35, over those of the last run.",
        metavar="RUN RUN... [KEY=VALUE]...",
    ),
    out: Path = typer.Option(..., "--out", "-o", help="Folder for bundle/ and evaluate/."),
    stages: str | None = typer.Option(
        None,
        "--stages",
        help="Views seen by each stage of each model, such as 1,10/10. Without it: one and all by the first model, all "
        "by the others.",
        metavar="N,N/N",
    ),
    costs: str | None = typer.Option(
        None, "--costs", help="Cost of one look by each model, such as 1,7.5; measured where left out.", metavar="X,X"
    ),
    scores: str = typer.Option(
        "mean", "--scores", help="mean: a later model adds to the score of those before; last: it replaces it."
    ),
) -> None:
    """Make one certified cascade from the bundles of several runs on the same data and split.

    Exits, calibrators and operating points come from the images of val_calib that fitted a calibrator of the runs, the
    one certificate from those that fitted none.
    """
    from workzone.cli.bundle import need_eval
    from workzone.cli.progress import TerminalProgress
    from workzone.config.load import parse_words
    from workzone.errors import ConfigError

    need_eval("evaluation")
    from workzone.pipeline.commands.chain import ChainOptions, build_chain

    keys = [w for w in words if "=" in w and not Path(w).exists()]
    given: dict[str, Any] = parse_words(keys)
    if wrong := sorted(set(given) - {"decide"}):
        raise ConfigError(
            f"the key {wrong[0]!r} belongs to the runs, which are finished", fix="give keys of section decide only"
        )
    if scores not in ("mean", "last"):
        raise ConfigError(f"scores cannot be {scores!r}", where="--scores", fix="take mean or last")
    decide = given.get("decide", {})
    if not isinstance(decide, dict):
        raise ConfigError("decide is a section, not a value", fix="set decide.KEY=VALUE")
    options = ChainOptions(
        looks=() if stages is None else tuple(_numbers(part, int, "--stages") for part in stages.split("/")),
        costs=() if costs is None else _numbers(costs, float, "--costs"),
        mean=scores == "mean",
        decide=decide,
    )
    runs = [Path(w) for w in words if w not in keys]
    made = build_chain(runs, out, options, TerminalProgress())
    typer.echo(made.sentence)
    typer.echo(f"Bundle: {made.bundle}")


def _numbers(text: str, kind: type[Any], where: str) -> tuple[Any, ...]:
    from workzone.errors import ConfigError

    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{text!r} is no list of numbers", where=where, fix="write, for example, 1,10") from error
