"""Findings as gauges, in the text format that the textfile collector of node_exporter reads."""

from __future__ import annotations

import math
from collections.abc import Mapping

from workzone.monitoring.daily import standing
from workzone.monitoring.gauge_file import HELP as _HELP
from workzone.monitoring.run import Findings


def gauges(f: Findings) -> str:
    """The text of one ``.prom`` file."""
    rows: dict[str, list[tuple[Mapping[str, str], float]]] = {name: [] for name in _HELP}
    own = {"bundle": f.bundle.name, "bundle_sha256": f.bundle.sha256}

    def put(name: str, value: float, **labels: str) -> None:
        rows[name].append(({**own, **labels}, value))

    put("workzone_monitor_last_run_timestamp_seconds", f.time.timestamp())
    put("workzone_monitor_alarms", len(f.alarms))
    put("workzone_monitor_certificate_void", float(f.mark is not None))
    last, off = standing(f.days)
    if last is not None:
        put("workzone_monitor_window_images", last.n)
        begin = f.time.replace(
            year=last.day.year, month=last.day.month, day=last.day.day, hour=0, minute=0, second=0, microsecond=0
        )
        put("workzone_monitor_window_timestamp_seconds", begin.timestamp())
        for signal in dict.fromkeys(t.signal for t in last.tests):
            put("workzone_monitor_alarm", float(signal in off), kind="drift", signal=signal)
        for t in last.tests:
            labels = {"signal": t.signal, "reference": t.reference, "test": t.test}
            put("workzone_drift_statistic", t.statistic, **labels)
            put("workzone_drift_adjusted_p", t.adjusted, **labels)
        if last.day in f.estimates:
            made = f.estimates[last.day]
            put("workzone_estimate_valid", float(made.valid))
            for name, rate in made.rates.items():
                for bound in ("value", "low", "high"):
                    put("workzone_estimate", getattr(rate, bound), rate=name, bound=bound)
    for risk, e in f.watch.processes.items():
        put("workzone_monitor_alarm", float(e.fired is not None), kind="certificate", signal=risk)
        put("workzone_promise_e_value", e.highest, risk=risk)
        put("workzone_promise_limit", 1 / e.delta, risk=risk)
        put("workzone_promise_reviewed", e.step, risk=risk)
    lines = []
    for name, found in rows.items():
        if found:
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge"]
            lines += [f"{name}{{{_labels(labels)}}} {_number(value)}" for labels, value in found]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{k}="{_escape(v)}"' for k, v in labels.items())


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else repr(float(value))
