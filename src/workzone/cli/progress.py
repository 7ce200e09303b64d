"""Progress on a terminal: messages always, bars only where somebody looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from workzone.pipeline.phase import Advance, Progress

_LINE_EVERY = 15.0
"""Seconds between two lines about one loop where standard error is no terminal."""


class TerminalProgress(Progress):
    """Writes to standard error, so that standard output stays clean for results."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)

    def message(self, text: str) -> None:
        """One line; the names of phases stand out."""
        name, sign, rest = text.partition(":")
        if sign and not text.startswith(" "):
            self.console.print(Text.assemble((name, "bold cyan"), ":", rest), soft_wrap=True)
        else:
            self.console.print(Text(text), soft_wrap=True)

    @contextmanager
    def bar(self, text: str) -> Iterator[Advance]:
        """A bar with count and remaining time; where standard error is no terminal, now and then a line."""
        if not sys.stderr.isatty():
            yield self._lines(text)
            return
        columns = (
            TextColumn("  {task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=self.console, transient=True, redirect_stdout=False) as bars:
            task = bars.add_task(text, total=None)

            def advance(done: int, total: int) -> None:
                bars.update(task, completed=done, total=total or None)

            yield advance

    def _lines(self, text: str) -> Advance:
        last = time.monotonic()

        def advance(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _LINE_EVERY:
                last = now
                self.console.print(Text(f"  {text}: {done}/{total}" if total else f"  {text}: {done}"), soft_wrap=True)

        return advance
