"""``workzone config``: every key with its type, default and meaning."""

from __future__ import annotations

import typer

app = typer.Typer(help="Show configuration keys, or write their reference.", no_args_is_help=True)


@app.command()
def show(
    words: list[str] = typer.Argument(
        None, help="key=value words to resolve, or the start of keys to list.", metavar="[KEY=VALUE | KEY]"
    ),
) -> None:
    """List keys; with key=value words, print the configuration they resolve to."""
    from workzone.config.describe import reference
    from workzone.config.load import dump_yaml, load_config

    given = words or []
    if any("=" in word for word in given):
        typer.echo(dump_yaml(load_config(given)), nl=False)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from workzone.cli.tables import print_table

    table = Table("key", "type", "default", "meaning", box=None, header_style="bold")
    table.columns[0].no_wrap = True
    for row in reference():
        if not given or any(row[0].startswith(word) for word in given):
            table.add_row(*(Text(cell) for cell in row))
    print_table(Console(highlight=False), table)


@app.command()
def docs() -> None:
    """Print the configuration reference as Markdown."""
    from workzone.config.describe import markdown

    typer.echo(markdown(), nl=False)
