"""The figures that a monitor wrote last, for a server that shows them beside its own."""

from __future__ import annotations

import re
from pathlib import Path

from workzone.errors import DataError

FILE = "monitor.prom"
MAX_BYTES = 1024 * 1024
HELP = {
    "workzone_monitor_last_run_timestamp_seconds": "When the monitor looked last.",
    "workzone_monitor_alarm": "1 while an alarm stands.",
    "workzone_monitor_alarms": "Number of alarms that stand.",
    "workzone_monitor_certificate_void": "1 when the certificate of the bundle is void.",
    "workzone_monitor_window_images": "Images of the last judged day.",
    "workzone_monitor_window_timestamp_seconds": "Begin of the last judged day.",
    "workzone_drift_statistic": "Statistic of a drift test on the last judged day.",
    "workzone_drift_adjusted_p": "Its p-value after correction for all tests of the day.",
    "workzone_estimate": "Rate expected from calibrated probabilities on the last judged day.",
    "workzone_estimate_valid": "0 where something speaks against the calibration.",
    "workzone_promise_e_value": "Highest e-value against a promise so far.",
    "workzone_promise_limit": "E-value at which a promise counts as refuted.",
    "workzone_promise_reviewed": "Reviewed labels that count for a promise.",
}
"""Names of all gauges of a monitor, and what they mean."""
_VALUE = r"(?:NaN|[+-]?(?:Inf|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?))"
_LABEL = r"[a-z_][a-z0-9_]*=\"(?:[^\"\\\n]|\\[\\\"n])*\""
_SAMPLE = re.compile(rf"([a-z_]+)\{{(?:{_LABEL}(?:,{_LABEL})*)?\}} {_VALUE}")
_COMMENT = re.compile(r"# (?:HELP ([a-z_]+) [^\n]*|TYPE ([a-z_]+) gauge)")


def read_gauges(path: Path) -> str:
    """The text of the file, once every line is a gauge of a monitor; empty where no monitor has looked yet.

    Raises:
        DataError: the file cannot be read, is too large, or holds something else.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError("the gauges of the monitor are larger than 1 MiB", where=str(path))
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the gauges of the monitor cannot be read: {error}", where=str(path)) from error
    for number, line in enumerate(text.splitlines(), start=1):
        # One bad line would make Prometheus refuse the figures of the server as well.
        found = _SAMPLE.fullmatch(line) or _COMMENT.fullmatch(line)
        name = next((g for g in found.groups() if g), "") if found else ""
        if name not in HELP:
            raise DataError(f"line {number} is no gauge of a monitor", where=str(path), fix="give the folder of --out")
    return text if text.endswith("\n") or not text else f"{text}\n"
