"""The folder of a monitor: ``monitor.json``, ``monitor.html``, ``monitor.prom``, and what it remembers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from workzone.errors import RunLockedError
from workzone.files import write_atomic, write_json
from workzone.monitoring.alerts import Delivery
from workzone.monitoring.gauge_file import FILE
from workzone.monitoring.page import render
from workzone.monitoring.prometheus import gauges
from workzone.monitoring.run import Findings

TOLD = "told.json"


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Hold the folder; two monitors at once would count labels twice.

    Raises:
        RunLockedError: another process holds it.
    """
    import fcntl

    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunLockedError(
                "another monitor works in this folder", where=str(out), fix="give each monitor a folder of its own"
            ) from error
        yield


def write_findings(f: Findings, out: Path, deliveries: Sequence[Delivery] = ()) -> None:
    """Write the three files, each whole."""
    write_json(out / "monitor.json", f.to_dict(deliveries))
    write_atomic(out / "monitor.html", render(f, deliveries))
    # The collector reads whatever ends in .prom, so the name must not end so before the file is whole.
    fresh = out / f"{FILE}.new"
    write_atomic(fresh, gauges(f))
    fresh.replace(out / FILE)
