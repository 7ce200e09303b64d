"""``workzone certify`` and ``workzone decide``: certify the scores of any model, and apply what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from workzone.cli.options import ANSWERS, FORMAT, note
from workzone.errors import ConfigError

if TYPE_CHECKING:
    from workzone.bundle.rules.card import Card
    from workzone.config.run import RunConfig

SECTIONS = ("calibrate", "decide", "evaluate")


def certify(
    table: Path = typer.Argument(
        ..., help="Labelled predictions of any model (CSV or Parquet).", metavar="TABLE", show_default=False
    ),
    words: list[str] = typer.Argument(
        None,
        help="Keys of the sections calibrate, decide and evaluate, for example decide.target_fnr=0.05.",
        metavar="KEY=VALUE",
    ),
    out: Path = typer.Option(
        ...,
        "--out",
        "-o",
        help="Folder of the result: new, empty, or an older one to replace.",
        metavar="FOLDER",
        show_default=False,
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of the split in two parts, the folds and the bootstrap."),
) -> None:
    """Calibrate and certify a table of predictions: choose a calibrator, fit the policy, say what can be promised.

    Columns as for evaluate: id, label, and probability or log_odds; optionally group, and others that slice. With a
    column split, the rows 'calibration' are fitted to and the rows 'test' are measured afterwards, with a report. The
    model must not have been trained or chosen on any of these. A promise that cannot be given is an answer too (exit
    code 0), unless decide.if_not_certifiable=stop (exit code 3).
    """
    from workzone.cli.bundle import need_eval

    need_eval("certification")
    from workzone.bundle.rules.certify import Settings
    from workzone.bundle.rules.certify import certify as certify_table
    from workzone.bundle.rules.rule import require_replaceable
    from workzone.bundle.rules.write import write_certified
    from workzone.cli.progress import TerminalProgress
    from workzone.evaluation.given import load_given

    if table.is_dir():
        raise ConfigError(
            "a table is certified, and this is a folder",
            where=str(table),
            fix="give a CSV or Parquet file with scores of images that the model was neither trained nor chosen on",
        )
    config = _config(table, words or [], out, seed)
    require_replaceable(out)
    progress = TerminalProgress()
    given = load_given(table)
    with progress.bar("calibrating and certifying"):
        found = certify_table(given, Settings(config.calibrate, config.decide, seed))
    with progress.bar("writing"):
        card, summary = write_certified(found, out, config.evaluate)
    _print(card, out, summary)


def _config(table: Path, words: list[str], out: Path, seed: int) -> RunConfig:
    from workzone.config.load import build_config, parse_words

    values = parse_words(words)
    config = build_config({**values, "data": str(table), "out": str(out), "seed": seed})
    others = [key for key in values if key not in SECTIONS]
    if others:
        raise ConfigError(
            f"a table of predictions knows nothing of {others[0]!r}",
            where=next(word for word in words if word.startswith(others[0])),
            fix=f"give keys of the sections {', '.join(SECTIONS)}",
        )
    return config


def _print(card: Card, out: Path, summary: Any) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from workzone.bundle.rules.card import HEAD, before_and_after
    from workzone.bundle.rules.rule import RuleFolder
    from workzone.cli.tables import print_table
    from workzone.evaluation.report.terminal import summary_table

    console = Console(highlight=False)

    def say(title: str, sentences: tuple[str, ...]) -> None:
        console.print(f"\n{title}", style="bold")
        for sentence in sentences:
            console.print(sentence, markup=False, soft_wrap=not console.is_terminal)

    say("Images", card.images)
    say("Calibrator", card.calibrator)
    if card.answers:
        table = Table(*HEAD, box=box.SIMPLE_HEAD)
        for row in card.answers:
            table.add_row(*row)
        print_table(console, table)
    say(f"Promise: {card.status}", card.promises)
    say("Coverage", card.coverage)
    say("Limits", card.limits)
    if summary is not None:
        say("On the test images", before_and_after(summary))
        print_table(console, summary_table(summary))
    places = RuleFolder(out)
    console.print()
    if summary is not None:
        console.print(f"Report: {places.report}", soft_wrap=True)
    console.print(f"All of it: {out}. For new scores: workzone decide SCORES --by {out}", soft_wrap=True, markup=False)


def decide(
    scores: Path = typer.Argument(
        ...,
        help="Scores of new images by the same model (CSV or Parquet): id, and log_odds or probability.",
        metavar="SCORES",
        show_default=False,
    ),
    by: Path = typer.Option(
        ..., "--by", "-b", help="Folder that 'workzone certify' wrote.", metavar="FOLDER", show_default=False
    ),
    form: str | None = FORMAT,
    out: Path | None = ANSWERS,
) -> None:
    """Decide on scores of new images by what 'workzone certify' wrote; its hashes are checked first (exit code 3)."""
    from workzone.cli.bundle import need_eval

    need_eval("reading tables")
    from workzone.bundle.rules.rule import Rule
    from workzone.cli.predict import chosen_format
    from workzone.cli.results import SCORE_COLUMNS, write
    from workzone.evaluation.given import load_given

    chosen = chosen_format(form, out)
    rule = Rule.load(by)
    predictions = rule.scores_of(load_given(scores, answers=False))
    decided = rule.decide(predictions)
    name = rule.record.table.name
    if not rule.certificate.guarantees:
        note(f"No promise: policy {rule.policy.name!r} makes none.")
    for guarantee in rule.certificate.guarantees:
        if guarantee.status != "certified":
            note(guarantee.sentence())
    note(f"Nothing here can check that these scores come from the model that made {name}.")
    if outside := rule.outside(predictions):
        table = rule.record.table
        note(
            f"{outside:,} of {len(predictions):,} log-odds lie outside of {table.lowest:.2f} to {table.highest:.2f}, "
            "the range of the calibration images."
        )
    write(_rows(predictions, decided), chosen, out, columns=SCORE_COLUMNS)
    left = int((~decided.accepted).sum())
    note(f"{len(predictions):,} scores: {len(predictions) - left:,} decided, {left:,} abstained")


def _rows(predictions: Any, decided: Any) -> Iterator[dict[str, Any]]:
    from workzone.decisions.types import NAMES
    from workzone.predictions import LABELS

    for i, image_id in enumerate(predictions.ids.tolist()):
        yield {
            "id": image_id,
            "decision": NAMES[int(decided.codes[i])],
            "probability": float(decided.probability[i]),
            "log_odds": float(predictions.log_odds[i]),
            "prediction_set": sorted(n for n, inside in zip(LABELS, decided.sets[i], strict=True) if inside),
            "reason": decided.reasons[i],
        }
