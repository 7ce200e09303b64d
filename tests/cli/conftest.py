from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run ``workzone`` in this process through its entry point, where errors are turned into paragraphs."""

    def run(*words: object) -> Answer:
        from workzone.cli.main import main

        monkeypatch.setattr(
            sys, "argv", ["workzone", *(os.fspath(w) if isinstance(w, os.PathLike) else str(w) for w in words)]
        )
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        captured = capfd.readouterr()
        return Answer(code, captured.out, captured.err)

    return run
