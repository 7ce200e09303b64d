"""Make the Grafana dashboard in deploy/ from the figures that server and monitor expose.

    python tools/make_dashboard.py [--check]

With ``--check`` nothing is written, and the exit code is 1 where the committed file differs.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import TimeZoneUtc
from grafana_foundation_sdk.models.dashboard import DataSourceRef, GridPos

TARGET = Path(__file__).resolve().parents[1] / "deploy/grafana/dashboards/workzone.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
ACROSS, HIGH, WIDE = 3, 8, 8


@dataclass(frozen=True)
class Shown:
    """A panel: queries by the name that their line gets."""

    title: str
    queries: dict[str, str]
    about: str
    unit: str = "short"
    number: bool = False


def _quantiles(series: str, by: str = "") -> dict[str, str]:
    """Three quantiles of a histogram; ``by`` adds a label to each line."""
    labels, name = (f"le, {by}", f"{{{{{by}}}}} ") if by else ("le", "")
    return {f"{name}{q}": f"histogram_quantile({q}, sum by ({labels}) (rate({series}[5m])))" for q in (0.5, 0.95, 0.99)}


_ABSTAINED = 'sum(rate(workzone_predictions_total{decision="abstain"}[1h])) / sum(rate(workzone_predictions_total[1h]))'
_MEAN_BATCH = "sum(rate(workzone_batch_size_sum[5m])) / sum(rate(workzone_batch_size_count[5m]))"
ROWS: dict[str, list[Shown]] = {
    "Server": [
        Shown(
            "Certificate",
            {"{{state}}": "max by (state) (workzone_certificate)"},
            "1 for the present state: certified, not certified or void.",
            number=True,
        ),
        Shown(
            "Decisions per second",
            {"{{decision}}": "sum by (decision) (rate(workzone_predictions_total[5m]))"},
            "Pictures answered, by decision.",
        ),
        Shown("Share that is not decided", {"abstain": _ABSTAINED}, "Of the answers of one hour.", "percentunit"),
        Shown(
            "Time of a request",
            _quantiles('workzone_seconds_bucket{part="total"}'),
            "From the first byte to the answer, refused ones included.",
            "s",
        ),
        Shown(
            "Requests by status",
            {"{{status}}": "sum by (status) (rate(workzone_requests_total[5m]))"},
            "Per second; 429 is a full queue.",
        ),
        Shown(
            "Refused, by code",
            {"{{code}}": "sum by (code) (rate(workzone_rejected_total[5m]))"},
            "Pictures and requests per second.",
        ),
        Shown(
            "Images that wait",
            {"{{instance}}": "max by (instance) (workzone_queue_depth)"},
            "The queue holds 64 in each process unless the server was told otherwise.",
        ),
        Shown("Mean batch", {"images": _MEAN_BATCH}, "Images taken from the queue at once."),
        Shown(
            "Predictions missing from the log",
            {"{{instance}}": "increase(workzone_log_dropped_total[1h])"},
            "The monitor does not see them.",
        ),
    ],
    "Roll-out": [
        Shown(
            "Who answers",
            {"{{role}}": "sum by (role) (rate(workzone_predictions_total[5m]))"},
            "Pictures per second, by the role of the bundle that answered.",
        ),
        Shown(
            "Share of the challenger",
            {"share": "max(workzone_challenger_share)"},
            "Of the requests.",
            "percentunit",
        ),
        Shown(
            "Challenger stopped",
            {"stopped": "max(workzone_challenger_stopped)"},
            "1 once it was stopped, by a person or by its test.",
            number=True,
        ),
        Shown(
            "Undecided, by role",
            {
                "{{role}}": 'sum by (role) (rate(workzone_predictions_total{decision="abstain"}[1h]))'
                " / sum by (role) (rate(workzone_predictions_total[1h]))"
            },
            "Share of the answers of one hour.",
            "percentunit",
        ),
        Shown("Time of an image, by role", _quantiles("workzone_role_seconds_bucket", "role"), "In the network.", "s"),
        Shown(
            "Shadow",
            {"{{outcome}}": "sum by (outcome) (rate(workzone_shadow_total[5m]))"},
            "Images per second given to the shadow, by outcome.",
        ),
    ],
    "Monitor": [
        Shown(
            "Drift: corrected p-values",
            {"{{signal}} {{test}} {{reference}}": "workzone_drift_adjusted_p"},
            "Of the last full day, corrected for the number of tests.",
        ),
        Shown(
            "Drift: statistics",
            {"{{signal}} {{test}} {{reference}}": "workzone_drift_statistic"},
            "Sizes; what counts is the p-value beside.",
        ),
        Shown(
            "Promises: e-value over its limit",
            {"{{risk}}": "workzone_promise_e_value / workzone_promise_limit"},
            "At 1 reviewed labels refute the promise, and the certificate is void.",
        ),
        Shown(
            "Expected rates without labels",
            {"{{rate}} {{bound}}": "workzone_estimate"},
            "From calibrated probabilities; wrong where the meaning of the pictures changed.",
            "percentunit",
        ),
        Shown(
            "Alarms that stand",
            {"{{bundle}}": "max by (bundle) (workzone_monitor_alarms)"},
            "Of the last run of the monitor.",
            number=True,
        ),
        Shown("Reviewed labels", {"{{risk}}": "workzone_promise_reviewed"}, "That the test has used.", number=True),
    ],
}


def _panel(shown: Shown, number: int, x: int, y: int) -> Any:
    panel: Any = stat.Panel() if shown.number else timeseries.Panel().fill_opacity(8).show_points("never")
    panel = panel.id(number).title(shown.title).description(shown.about).datasource(SOURCE).unit(shown.unit)
    panel = panel.grid_pos(GridPos(h=HIGH, w=WIDE, x=x, y=y))
    if shown.unit == "percentunit":
        panel = panel.min(0).max(1)
    for letter, (name, query) in zip("ABCDEFGH", shown.queries.items(), strict=False):
        panel = panel.with_target(prometheus.Dataquery().ref_id(letter).expr(query).legend_format(name))
    return panel


def text() -> str:
    """The dashboard as JSON."""
    board: Any = dashboard.Dashboard("workzone").uid("workzone").tags(["workzone"]).readonly().refresh("30s")
    board = board.time("now-24h", "now").timezone(TimeZoneUtc).version(1)
    number, y = 1, 0
    for title, panels in ROWS.items():
        board = board.with_row(dashboard.Row(title).id(number).grid_pos(GridPos(h=1, w=24, x=0, y=y)))
        number, y = number + 1, y + 1
        for place, shown in enumerate(panels):
            x = WIDE * (place % ACROSS)
            board = board.with_panel(_panel(shown, number, x, y + HIGH * (place // ACROSS)))
            number += 1
        y += HIGH * -(-len(panels) // ACROSS)
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def main() -> None:
    """Write or check the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        if TARGET.read_text() != text():
            print(f"{TARGET} is not what this program makes: run it without --check", file=sys.stderr)
            raise SystemExit(1)
        return
    TARGET.write_text(text())


if __name__ == "__main__":
    main()
