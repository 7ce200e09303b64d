"""Entry point: collects the commands and turns errors into one paragraph and an exit code.

Exit codes: 0 done, 1 finished with some inputs unreadable, 2 wrong usage, configuration or input,
3 a check failed, 70 a fault of the program.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from inspect import cleandoc

import typer

from workzone.cli import (
    bundle,
    cascade,
    certify,
    checklist,
    compare,
    config,
    data,
    drives,
    explain,
    export,
    load,
    map,
    monitor,
    predict,
    registry,
    run,
    score,
    serve,
    streetvision,
    tune,
)
from workzone.errors import WorkzoneError
from workzone.processors import limit_libraries, processors

app = typer.Typer(
    name="workzone",
    help="Roadwork decisions from street images: calibrated, certified, exported and verifiable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_DECIDE, _TRAIN, _MEASURE, _WORK, _REST = (
    "Decide on images",
    "Make a bundle",
    "Measure and compare",
    "Put it to work",
    "Data and settings",
)
for _name, _command, _panel in (
    ("predict", predict.predict, _DECIDE),
    ("score", score.score, _DECIDE),
    ("decide", certify.decide, _DECIDE),
    ("explain", explain.explain, _DECIDE),
    ("map", map.make_map, _DECIDE),
    ("demo", run.demo, _TRAIN),
    ("run", run.run, _TRAIN),
    ("export", export.export, _TRAIN),
    ("cascade", cascade.cascade, _TRAIN),
    ("drives", drives.drives, _TRAIN),
    ("ablate", tune.ablate, _TRAIN),
    ("sweep", tune.sweep, _TRAIN),
    ("verify", bundle.verify, _MEASURE),
    ("evaluate", bundle.evaluate, _MEASURE),
    ("compare", compare.compare, _MEASURE),
    ("certify", certify.certify, _MEASURE),
    ("serve", serve.serve, _WORK),
    ("load", load.load, _WORK),
    ("checklist", checklist.checklist, _WORK),
):
    app.command(_name, rich_help_panel=_panel)(_command)
for _name, _group, _panel in (
    ("streetvision", streetvision.app, _MEASURE),
    ("review", serve.review_app, _WORK),
    ("monitor", monitor.app, _WORK),
    ("registry", registry.app, _WORK),
    ("data", data.app, _REST),
    ("config", config.app, _REST),
):
    app.add_typer(_group, name=_name, rich_help_panel=_panel)


def _unwrap(group: typer.Typer) -> None:
    """Let the terminal break the lines of help texts: docstrings are broken for the source, and typer keeps that."""
    for command in group.registered_commands:
        text = cleandoc(command.help or getattr(command.callback, "__doc__", None) or "")
        command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", text)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _unwrap(inner.typer_instance)


_unwrap(app)


def _version(value: bool) -> None:
    if value:
        from workzone import __version__

        typer.echo(f"workzone {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    """Options that hold for every command."""
    if debug:
        os.environ["WORKZONE_DEBUG"] = "1"


def main() -> None:
    """Run the command line and exit."""
    if os.getpid() == 1:
        # The first process of a container is not ended by a signal that it does not handle, and would be killed when
        # the patience of whoever stops it is over.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    limit_libraries(processors(), os.environ)
    try:
        app(prog_name="workzone")
    except WorkzoneError as error:
        _fail(error, str(error), error.exit_code)
    except KeyboardInterrupt:
        _print("Stopped. What was finished is kept; run the same command again to go on.")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        what = f"{error.strerror or error}".rstrip(".")
        where = f" Where: {error.filename}." if error.filename else ""
        _fail(error, f"{what}.{where} What to do: check the path, its permissions and the free space.", 2)
    except Exception as error:
        # Nobody should meet this; if somebody does, a paragraph helps more than a page of code.
        what = f"{type(error).__name__}: {error}".rstrip(".")
        fix = "run the same command as 'workzone --debug ...' and report what it prints."
        _fail(error, f"This is a fault of workzone itself ({what}). What to do: {fix}", 70)


def _fail(error: Exception, text: str, code: int) -> None:
    if os.environ.get("WORKZONE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    _print(f"Error: {text}")
    sys.exit(code)


def _print(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=not sys.stderr.isatty())
