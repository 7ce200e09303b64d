"""Tables that fit a terminal, and lose nothing where there is none."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table

_NO_LIMIT = 100_000


def print_table(console: Console, table: Table) -> None:
    """Print ``table``; into a pipe or a file every cell stays whole and on one line."""
    if console.is_terminal:
        for column in table.columns:
            column.overflow = "fold"
        console.print(table)
        return
    text = io.StringIO()
    Console(file=text, width=_NO_LIMIT, highlight=False, color_system=None).print(table)
    for line in text.getvalue().splitlines():
        console.out(line.rstrip(), highlight=False)
