"""Progress on a terminal: messages always, bars only where somebody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from workzone.pipeline.phase import Advance, Progress


class TerminalProgress(Progress):
    """Writes to standard error, so that standard output stays clean for results."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)

    def message(self, text: str) -> None:
        """One line; the names of phases stand out."""
        name, sign, rest = text.partition(":")
        if sign and not text.startswith(" "):
            self.console.print(f"[bold cyan]{name}[/bold cyan]:", rest.strip(), soft_wrap=True)
        else:
            self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, text: str) -> Iterator[Advance]:
        """A bar with count and remaining time; a plain line per tenth where standard error is no terminal."""
        if not sys.stderr.isatty():
            yield self._lines(text)
            return
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with RichProgress(*columns, console=self.console, transient=True) as bars:
            task = bars.add_task(text, total=None)

            def advance(done: int, total: int) -> None:
                bars.update(task, completed=done, total=total)

            yield advance

    def _lines(self, text: str) -> Advance:
        last = -1

        def advance(done: int, total: int) -> None:
            nonlocal last
            tenth = 10 * done // max(total, 1)
            if tenth > last and total >= 20:
                last = tenth
                self.console.print(f"  {text}: {done}/{total}", markup=False, soft_wrap=True)

        return advance
