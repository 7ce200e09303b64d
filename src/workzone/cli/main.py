"""Entry point: collects the commands and turns errors into one paragraph and an exit code.

Exit codes: 0 done, 1 finished with some inputs unreadable, 2 wrong usage, configuration or input,
3 a check failed, 70 a fault of the program.
"""

from __future__ import annotations

import os
import sys

import typer

from workzone.cli import (
    bundle,
    cascade,
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

app = typer.Typer(
    name="workzone",
    help="Roadwork decisions from street images: calibrated, certified, exported and verifiable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("demo")(run.demo)
app.command("predict")(predict.predict)
app.command("score")(score.score)
app.command("verify")(bundle.verify)
app.command("evaluate")(bundle.evaluate)
app.command("compare")(compare.compare)
app.command("cascade")(cascade.cascade)
app.command("explain")(explain.explain)
app.command("export")(export.export)
app.command("map")(map.make_map)
app.command("drives")(drives.drives)
app.command("ablate")(tune.ablate)
app.command("sweep")(tune.sweep)
app.command("serve")(serve.serve)
app.command("load")(load.load)
app.command("checklist")(registry.checklist)
app.add_typer(serve.review_app, name="review")
app.add_typer(data.app, name="data")
app.add_typer(config.app, name="config")
app.add_typer(streetvision.app, name="streetvision")
app.add_typer(monitor.app, name="monitor")
app.add_typer(registry.app, name="registry")


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
