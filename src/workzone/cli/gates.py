"""Gates and promised limits, as ``workzone registry`` and ``workzone checklist`` take and print them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from workzone.errors import ConfigError

if TYPE_CHECKING:
    from workzone.registry.gates import Gate

JSON = typer.Option(False, "--json", help="Print JSON.")
LIMIT = typer.Option(None, "--limit", help="Largest promised limit, as RISK=VALUE; may be repeated.")


def limits_of(words: Sequence[str] | None) -> dict[str, float]:
    """Limits by risk from the words of ``--limit``; raises ConfigError on one that is no RISK=VALUE in (0, 1)."""
    found: dict[str, float] = {}
    for word in words or ():
        risk, _, value = word.partition("=")
        try:
            found[risk] = float(value)
        except ValueError as error:
            raise ConfigError(f"{word[:80]!r} is no limit", where="--limit", fix="write RISK=VALUE") from error
        if not risk or not 0 < found[risk] < 1:
            raise ConfigError(f"{word[:80]!r} is no limit", where="--limit", fix="give a value between 0 and 1")
    return found


def print_gates(gates: Sequence[Gate], as_json: bool) -> None:
    """One line a gate, or all as JSON."""
    if as_json:
        typer.echo(json.dumps([g.to_dict() for g in gates], indent=2))
        return
    for g in gates:
        word = {True: "ok    ", False: "FAILED", None: "-     "}[g.passed]
        typer.echo(f"{word} {g.name}: {g.detail}")
