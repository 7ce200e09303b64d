"""``workzone monitor``: freeze a reference, then look at predictions once or again and again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from workzone.errors import ConfigError

if TYPE_CHECKING:
    from workzone.monitoring.run import Findings

app = typer.Typer(no_args_is_help=True, help="Watch a bundle in use: drift, promises against reviewed labels, alarms.")


class VoidPolicy(StrEnum):
    """What a void certificate means for further answers."""

    abstain = "abstain"
    warn = "warn"


@app.command("freeze")
def freeze(
    bundle: Path = typer.Argument(..., help="Folder of the bundle."),
    predictions: Path = typer.Argument(
        ..., help="Its predictions on images that stand for what was promised, best those of the certification role."
    ),
    out: Path = typer.Option(Path("reference.parquet"), "--out", "-o", help="Parquet file; its record is beside it."),
) -> None:
    """Keep predictions as the frozen reference of a bundle."""
    from workzone.cli.bundle import need_eval

    need_eval("monitoring")
    from workzone.bundle.chain import read_bundle
    from workzone.monitoring.reference import freeze as freeze_log
    from workzone.monitoring.sqlite import open_log
    from workzone.monitoring.table import to_log

    sha = read_bundle(bundle).sha256
    log = to_log(open_log(predictions).columns(), str(predictions), bundle_sha256=sha)
    record = freeze_log(log, sha, out)
    typer.echo(f"Reference of {record['n']} predictions ({', '.join(record['signals'])}): {out}")


@app.command("run")
def run(
    bundle: Path = typer.Option(..., "--bundle", "-b", help="Folder of the bundle.", envvar="WORKZONE_BUNDLE"),
    log: Path = typer.Option(..., "--log", help="Its predictions: CSV, Parquet, JSON lines or SQLite (.db, .sqlite)."),
    reference: Path = typer.Option(..., "--reference", help="What 'workzone monitor freeze' made."),
    out: Path = typer.Option(Path("monitor"), "--out", "-o", help="Folder for results, and for what is remembered."),
    labels: Path | None = typer.Option(None, "--labels", help="Reviewed labels: id (or path), label, weight."),
    once: bool = typer.Option(False, "--once", help="Look once; the default without --every."),
    every: float | None = typer.Option(None, "--every", min=1.0, help="Look again after so many seconds."),
    day: str | None = typer.Option(
        None, "--day", help="Day of all predictions, where the log has no times.", metavar="DAY"
    ),
    days: int = typer.Option(14, "--days", min=2, max=366, help="Days to look at."),
    q: float = typer.Option(0.05, "--q", min=1e-6, max=0.5, help="False share among the alarms of a day."),
    in_a_row: int = typer.Option(2, "--in-a-row", min=1, max=30, help="Judged days off before an alarm stands."),
    fewest: int = typer.Option(50, "--fewest", min=10, help="Images of a day below which it is not judged."),
    least: list[str] | None = typer.Option(
        None, "--least", help="Smallest statistic that counts, for example psi=0.1.", metavar="TEST=VALUE"
    ),
    limits: list[str] | None = typer.Option(
        None, "--limit", help="Watch this limit too, for example selective_error=0.05.", metavar="RISK=VALUE"
    ),
    delta: float = typer.Option(0.05, "--delta", min=1e-6, max=0.5, help="Chance of ever refuting a kept promise."),
    actions: Path | None = typer.Option(None, "--actions", help="JSON file with whom to tell and what to start."),
    void: Path | None = typer.Option(None, "--void", help="Mark of a void certificate, else BUNDLE.void.json."),
    if_void: VoidPolicy = typer.Option(VoidPolicy.abstain, "--if-void", help="What the mark asks for."),
    now: datetime | None = typer.Option(None, "--now", help="Time of the look, UTC; now where left out."),
) -> None:
    """Look at the predictions of a bundle: JSON, a page and gauges for Prometheus; exit 3 while an alarm stands."""
    from workzone.cli.bundle import need_eval

    need_eval("monitoring")
    from workzone.monitoring.alerts import load_actions, tell
    from workzone.monitoring.daily import DriftSettings
    from workzone.monitoring.drift import DRIFT_TESTS
    from workzone.monitoring.output import TOLD, only_one, write_findings
    from workzone.monitoring.reference import load_reference
    from workzone.monitoring.run import Settings, Watched, look
    from workzone.monitoring.sqlite import open_log
    from workzone.monitoring.table import TableLog
    from workzone.monitoring.void import mark_path
    from workzone.monitoring.watch import check_limits

    if once and every is not None:
        raise ConfigError("--once and --every exclude each other", fix="leave one of them out")
    smallest = _numbers(least or [], "--least")
    if unknown := sorted(set(smallest) - set(DRIFT_TESTS)):
        raise ConfigError(f"unknown test {unknown[0]!r}", where="--least", fix=f"take one of {', '.join(DRIFT_TESTS)}")
    more = _numbers(limits or [], "--limit")
    check_limits(more)
    all_of = _day(day)
    told = load_actions(actions) if actions is not None else ()
    settings = Settings(DriftSettings(q, in_a_row, fewest, least=smallest), days, delta, if_void.value)
    moment = None if now is None else now.replace(tzinfo=UTC)
    with only_one(out):
        while True:
            watched = Watched.of(bundle, more)
            found = look(
                watched,
                open_log(log),
                load_reference(reference, watched.sha256),
                out,
                void or mark_path(bundle),
                labels=None if labels is None else TableLog(labels).columns(),
                settings=settings,
                where=str(log),
                labels_where=str(labels),
                day=all_of,
                now=moment,
            )
            deliveries = tell(told, found.alarms, out / TOLD)
            write_findings(found, out, deliveries)
            _say(found, out)
            for d in deliveries:
                typer.echo(f"{d.action}: {'told' if not d.problem else f'not told: {d.problem}'}", err=bool(d.problem))
            if every is None:
                break
            time.sleep(every)
    if found.alarms:
        raise typer.Exit(3)


def _numbers(words: Sequence[str], option: str) -> dict[str, float]:
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError as error:
            raise ConfigError(f"{word!r} is no NAME=NUMBER", where=option) from error
    return found


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no day", where="--day", fix="say for example --day 2026-01-31") from error


def _say(found: Findings, out: Path) -> None:
    from workzone.monitoring.page import status

    typer.echo(status(found)[1])
    for alarm in found.alarms:
        typer.echo(f"{alarm.severity}: {alarm.sentence}")
    typer.echo(f"Page: {out / 'monitor.html'}")
