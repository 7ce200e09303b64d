"""Actions on alarms by kind, read from a file that the operator writes; without it nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workzone.errors import ConfigError, unreadable
from workzone.files import read_json, write_json
from workzone.monitoring.alerts.base import KINDS, Alarm, AlarmKind, DeliveryError, Notifier
from workzone.monitoring.alerts.command import Command
from workzone.monitoring.alerts.email import Email
from workzone.monitoring.alerts.webhooks import Alertmanager, PagerDuty, Slack, Webhook

NOTIFIERS: Mapping[str, type[Notifier]] = {
    "email": Email,
    "slack": Slack,
    "pagerduty": PagerDuty,
    "webhook": Webhook,
    "alertmanager": Alertmanager,
    "command": Command,
}
Action = Annotated[Email | Slack | PagerDuty | Webhook | Alertmanager | Command, Field(discriminator="kind")]

__all__ = [
    "KINDS",
    "NOTIFIERS",
    "Alarm",
    "AlarmKind",
    "Alertmanager",
    "Command",
    "Delivery",
    "DeliveryError",
    "Email",
    "Notifier",
    "PagerDuty",
    "Slack",
    "Webhook",
    "load_actions",
    "tell",
]


class _Actions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of telling one receiver; ``problem`` is empty where it was told."""

    action: str
    alarms: tuple[str, ...]
    problem: str = ""


def load_actions(path: Path) -> tuple[Notifier, ...]:
    """Actions of a JSON file ``{"actions": [{"kind": ..., ...}]}``.

    Raises:
        ConfigError: the file cannot be read, or an action is malformed.
    """
    try:
        return _Actions.model_validate(read_json(path)).actions
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        what = f"the actions are malformed{key and f' at {key!r}'}: {first['msg']}"
        fix = first.get("ctx", {}).get("fix") or 'write {"actions": [{"kind": ...}]}, see the page about monitoring'
        raise ConfigError(what, where=str(path), fix=fix) from error
    except (OSError, ValueError) as error:
        raise unreadable(ConfigError, "the actions", path, error) from error


def tell(
    actions: Sequence[Notifier],
    alarms: Sequence[Alarm],
    told: Path,
    *,
    sleep: Callable[[float], None] | None = None,
) -> list[Delivery]:
    """Tell each receiver about the alarms it has not been told about; the file ``told`` remembers across runs.

    What could not be delivered is not remembered, so the next run tries again.
    """
    known = _known(told)
    found = []
    standing = {a.key for a in alarms}
    for place, action in enumerate(actions):
        name = f"{place} {action.label}"
        before = known.get(name, set())
        due = [a for a in alarms if a.kind in action.on and (action.repeats or a.key not in before)]
        if due:
            try:
                action.deliver(due, **({} if sleep is None else {"sleep": sleep}))
            except DeliveryError as error:
                found.append(Delivery(action.label, tuple(a.key for a in due), str(error)))
            else:
                before = before | {a.key for a in due}
                found.append(Delivery(action.label, tuple(a.key for a in due)))
                # At once: the next receiver may take long, and a rollback must not run twice.
                known[name] = before
                _remember(told, known)
        known[name] = before & standing
    _remember(told, known)
    return found


def _known(told: Path) -> dict[str, set[str]]:
    if not told.is_file():
        return {}
    try:
        return {str(k): set(map(str, v)) for k, v in read_json(told).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"the record of what was told cannot be read: {error}",
            where=str(told),
            fix="remove it; standing alarms are then told once more",
        ) from error


def _remember(told: Path, known: Mapping[str, set[str]]) -> None:
    write_json(told, {k: sorted(v) for k, v in known.items()})
