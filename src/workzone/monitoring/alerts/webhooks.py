"""Receivers that take JSON: any webhook, Slack, PagerDuty, Alertmanager."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

from pydantic import Field

from workzone.monitoring.alerts.base import Alarm, Notifier, body, subject
from workzone.monitoring.alerts.http import post_json, secret

SLACK_CHARACTERS = 3000


class Webhook(Notifier):
    """Any address that takes ``{"subject", "alarms": [...]}``: a ticket, a retraining job, a rollback."""

    kind: Literal["webhook"] = "webhook"
    url_env: str = Field(description="environment variable with the address")
    token_env: str = Field(default="", description="environment variable with a bearer token")

    def send(self, alarms: Sequence[Alarm]) -> None:
        """Post all alarms at once."""
        headers = {"Authorization": f"Bearer {secret(self.token_env)}"} if self.token_env else {}
        content = {"subject": subject(alarms), "alarms": [a.to_dict() for a in alarms]}
        post_json(secret(self.url_env), content, timeout=self.timeout, headers=headers)


class Slack(Notifier):
    """An incoming webhook of Slack."""

    kind: Literal["slack"] = "slack"
    url_env: str = Field(description="environment variable with the address of the incoming webhook")

    def send(self, alarms: Sequence[Alarm]) -> None:
        """Post one message."""
        text = f"*{subject(alarms)}*\n{body(alarms)}"[:SLACK_CHARACTERS]
        # Slack reads these three as markup; from a file name they could make links or mentions.
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        post_json(secret(self.url_env), {"text": text}, timeout=self.timeout)


class PagerDuty(Notifier):
    """PagerDuty, Events API v2; an alarm that stands keeps one incident."""

    kind: Literal["pagerduty"] = "pagerduty"
    routing_key_env: str = Field(description="environment variable with the routing key")
    url: str = Field(default="https://events.pagerduty.com/v2/enqueue", pattern=r"^https?://")

    def send(self, alarms: Sequence[Alarm]) -> None:
        """Trigger one event for each alarm; events sent twice fall together by their key."""
        key = secret(self.routing_key_env)
        for alarm in alarms:
            post_json(self.url, pagerduty_event(alarm, key), timeout=self.timeout)


class Alertmanager(Notifier):
    """Prometheus Alertmanager, API v2; it wants standing alarms at each run and resolves those that stop coming."""

    kind: Literal["alertmanager"] = "alertmanager"
    repeats: ClassVar[bool] = True
    url: str = Field(description="for example http://alertmanager:9093", pattern=r"^https?://")
    resolve_after: float = Field(default=7200.0, gt=0, description="seconds; longer than the time between runs")

    def send(self, alarms: Sequence[Alarm]) -> None:
        """Post all alarms at once."""
        ends = datetime.now(UTC) + timedelta(seconds=self.resolve_after)
        alerts = [alertmanager_alert(a, ends) for a in alarms]
        post_json(f"{self.url.rstrip('/')}/api/v2/alerts", alerts, timeout=self.timeout)


def pagerduty_event(alarm: Alarm, routing_key: str) -> dict[str, Any]:
    """One event of PagerDuty's Events API v2."""
    return {
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": alarm.key,
        "payload": {
            "summary": f"{subject([alarm])}: {alarm.sentence}"[:1024],
            "source": alarm.bundle,
            "severity": alarm.severity,
            "timestamp": alarm.since,
            "component": "workzone",
            "class": alarm.kind,
            "custom_details": alarm.to_dict(),
        },
    }


def alertmanager_alert(alarm: Alarm, ends: datetime) -> dict[str, Any]:
    """One alert of Alertmanager's API v2."""
    return {
        "labels": {
            "alertname": f"Workzone{alarm.kind.capitalize()}",
            "signal": alarm.name,
            "severity": alarm.severity,
            "bundle": alarm.bundle,
            "bundle_sha256": alarm.bundle_sha256,
        },
        "annotations": {"summary": subject([alarm]), "description": alarm.sentence},
        "startsAt": alarm.since,
        "endsAt": ends.isoformat(timespec="seconds"),
    }
