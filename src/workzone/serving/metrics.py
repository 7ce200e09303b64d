"""Figures for Prometheus; several processes are added up by prometheus_client's multi-process mode."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from workzone.decisions import Decision

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STATES = ("certified", "not_certified", "void")
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """Every figure of one server process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.decisions = Counter("workzone_predictions", "Answers by decision.", ["decision", "role"], registry=r)
        self.stages = Counter("workzone_stage", "Answers of a cascade by stage.", ["stage", "role"], registry=r)
        self.cost = Counter(
            "workzone_cost", "Cost of the answers of a cascade; looking at all of it is 1.", ["role"], registry=r
        )
        self.rejected = Counter("workzone_rejected", "Images and requests refused, by code.", ["code"], registry=r)
        self.requests = Counter("workzone_requests", "Requests by route and status.", ["route", "status"], registry=r)
        self.seconds = Histogram(
            "workzone_seconds", "Time of a request (total) and of an image.", ["part"], buckets=_SECONDS, registry=r
        )
        self.batch_size = Histogram(
            "workzone_batch_size", "Images taken from the queue at once.", buckets=(1, 2, 4, 8, 16, 32), registry=r
        )
        live: Any = "livesum"
        self.queue_depth = Gauge("workzone_queue_depth", "Images that wait.", registry=r, multiprocess_mode=live)
        worst: Any = "livemax"
        self.certificate = Gauge(
            "workzone_certificate",
            "1 for the state of the certificate.",
            ["state"],
            registry=r,
            multiprocess_mode=worst,
        )
        self.role_seconds = Histogram(
            "workzone_role_seconds",
            "Time of an image by the role of its bundle.",
            ["role"],
            buckets=_SECONDS,
            registry=r,
        )
        self.bundle = Gauge(
            "workzone_bundle",
            "1 for the bundle of each role.",
            ["role", "bundle", "bundle_sha256"],
            registry=r,
            multiprocess_mode=worst,
        )
        self.share = Gauge(
            "workzone_challenger_share", "Share of the requests that it answers.", registry=r, multiprocess_mode=worst
        )
        self.stopped = Gauge(
            "workzone_challenger_stopped", "1 once it was stopped.", registry=r, multiprocess_mode=worst
        )
        self.shadow = Counter("workzone_shadow", "Images given to the shadow, by outcome.", ["outcome"], registry=r)
        self.shadow_queue = Gauge(
            "workzone_shadow_queue_depth", "Images that wait for the shadow.", registry=r, multiprocess_mode=live
        )
        self.monitor_readable = Gauge(
            "workzone_monitor_readable",
            "1 while the figures of the monitor can be read.",
            registry=r,
            multiprocess_mode=worst,
        )
        self.log_dropped = Counter("workzone_log_dropped", "Predictions that the log could not take.", registry=r)

    def state(self, state: str) -> None:
        """Set the state of the certificate."""
        for name in STATES:
            self.certificate.labels(name).set(float(name == state))

    def answered(self, decision: Decision, role: str) -> None:
        """Count a decision that somebody got."""
        self.decisions.labels(decision.label, role).inc()
        if decision.stage is not None and decision.cost is not None:
            self.stages.labels(str(decision.stage), role).inc()
            self.cost.labels(role).inc(decision.cost)

    def serves(self, role: str, name: str, sha256: str, *, now: bool = True) -> None:
        """Say that a bundle has a role, or that it has it no more."""
        self.bundle.labels(role, name, sha256).set(float(now))

    def text(self) -> bytes:
        """Exposition format of this process, or of all processes of the server."""
        if os.environ.get(MULTIPROCESS):
            from prometheus_client.multiprocess import MultiProcessCollector

            everything = CollectorRegistry()
            MultiProcessCollector(everything)  # type: ignore[no-untyped-call]
            return generate_latest(everything)
        return generate_latest(self.registry)

    def leave(self) -> None:
        """Take the gauges of this process out of those of all processes."""
        if os.environ.get(MULTIPROCESS):
            from prometheus_client.multiprocess import mark_process_dead

            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]

    def fault(self, error: Exception) -> None:
        """Write a fault of the program to the log, with its traceback; clients get the request id only."""
        text = "".join(traceback.format_exception(error))
        log_line("fault", error=type(error).__name__, traceback=text)


_unwritten = 0


def log_line(event: str, **values: object) -> None:
    """Write one line of JSON to standard error; pictures, file names and keys must not be among the values.

    A line that the disk or the pipe does not take must not end the thread that says it: the next one that is
    written tells how many were not.
    """
    global _unwritten
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() // 1_000_000 % 1000:03d}Z"
    told = {"unwritten_before": _unwritten} if _unwritten else {}
    line = json.dumps({"time": stamp, "event": event, **values, **told}, ensure_ascii=True, default=str)
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except OSError:
        _unwritten += 1
    else:
        _unwritten = 0
