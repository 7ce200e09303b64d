"""How the commands look on a terminal, in a pipe and in a log."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path

import pytest

from helpers.command import command, environment, workzone
from workzone.cli.progress import TerminalProgress

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


def on_terminal(*words: object, columns: int = 100) -> list[str]:
    """Lines that ``workzone`` shows on a terminal of this width."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = environment(TERM="xterm-256color")
    process = subprocess.Popen(command([str(w) for w in words]), env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    read = b""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        ready, _, _ = select.select([ours], [], [], 1)
        if not ready:
            continue
        try:
            part = os.read(ours, 65_536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        read += part
    process.wait(timeout=30)
    os.close(ours)
    return _CONTROL.sub("", read.decode()).splitlines()


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["predict", "--help"], ["config", "show", "train"]], ids=" ".join
)
@pytest.mark.parametrize("columns", [80, 100])
def test_no_line_is_wider_than_the_terminal(words: list[str], columns: int) -> None:
    lines = on_terminal(*words, columns=columns)
    assert max(map(len, lines)) <= columns
    assert "…" not in "".join(lines)


def test_the_program_says_its_own_name() -> None:
    assert "Usage: workzone run" in workzone("run", "--help").stdout


def test_a_pipe_gets_every_cell_whole() -> None:
    lines = workzone("config", "show", "train").stdout.splitlines()
    assert any(line.strip().startswith("train.adapter.init") and line.endswith("of the factors") for line in lines)
    assert all(line == line.rstrip() for line in lines)
    assert "\x1b" not in "".join(lines)


@pytest.mark.e2e
def test_long_paths(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path.joinpath(*(f"folder-{i:02d}" for i in range(12)), "[bold] picture.jpg")
    path.parent.mkdir(parents=True)
    path.write_text("no picture")
    piped = workzone("predict", path, "-b", tiny_bundle).stdout
    assert str(path) in piped
    shown = on_terminal("predict", path, "-b", tiny_bundle)
    table = shown[next(i for i, line in enumerate(shown) if line.strip().startswith("image")) + 1 : -1]
    assert max(map(len, table)) <= 100
    width = table[0].index("unreadable")
    assert "".join(line[:width].strip() for line in table).replace(" ", "") == str(path).replace(" ", "")


@pytest.mark.e2e
def test_a_plan_on_a_terminal(tiny_run: Path) -> None:
    lines = on_terminal("run", "--config", tiny_run / "config.yaml", "--dry-run", "decide.delta=0.2")
    rows = {line.split()[0]: line.split()[1] for line in lines if line.strip()}
    assert (rows["prepare"], rows["decide"], rows["evaluate"]) == ("no", "yes", "perhaps")


def test_a_loop_says_little_where_nobody_watches(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    progress = TerminalProgress()
    with progress.bar("embedding [x]") as advance:
        for i in range(1000):
            clock[0] += 0.05
            advance(i + 1, 1000)
    lines = capfd.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 4, "50 seconds at one line in 15"
    assert all(line.startswith("  embedding [x]: ") for line in lines)


def test_messages_are_taken_literally(capfd: pytest.CaptureFixture[str]) -> None:
    progress = TerminalProgress()
    progress.message("train: changed: [bold]x[/bold]")
    progress.message("  [red]y")
    assert capfd.readouterr().err == "train: changed: [bold]x[/bold]\n  [red]y\n"
