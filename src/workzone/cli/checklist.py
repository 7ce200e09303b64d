"""``workzone checklist``: may this bundle go into production?"""

from __future__ import annotations

from pathlib import Path

import typer

from workzone.cli.gates import JSON, LIMIT, limits_of, print_gates


def checklist(
    bundle: Path = typer.Argument(..., help="Folder of the bundle."),
    limit: list[str] | None = LIMIT,
    api_key_file: Path | None = typer.Option(None, "--api-key-file", help="That of the server."),
    reference: Path | None = typer.Option(None, "--reference", help="What 'workzone monitor freeze' made."),
    registry: str | None = typer.Option(None, "--registry", help="Its champion should be this bundle."),
    url: str | None = typer.Option(None, "--url", help="Of the running server."),
    api_key: str | None = typer.Option(None, "--api-key", help="To ask the server.", envvar="WORKZONE_API_KEY"),
    load_test: Path | None = typer.Option(None, "--load-test", help="Report of 'workzone load'."),
    as_json: bool = JSON,
) -> None:
    """What must hold before production, computed; what cannot be proved has failed. Exit 3 where anything failed."""
    from workzone.serving.checklist import Given
    from workzone.serving.checklist import checklist as rows

    given = Given(bundle, limits_of(limit), api_key_file, api_key, reference, registry, url, load=load_test)
    gates = rows(given)
    print_gates(gates, as_json)
    if any(g.passed is not True for g in gates):
        raise typer.Exit(3)
