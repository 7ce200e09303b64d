"""An alarm, and what tells somebody about it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from workzone.files import sha256_json

AlarmKind = Literal["drift", "certificate"]
KINDS: tuple[AlarmKind, ...] = ("drift", "certificate")


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that stands until it is resolved.

    Attributes:
        kind: ``drift``, or ``certificate`` (a promise is refuted).
        name: signal or risk.
        severity: ``critical`` or ``warning``.
        bundle: name of the bundle.
        bundle_sha256: its hash.
        since: when it began to stand, RFC 3339.
        sentence: what it is, in words.
    """

    kind: AlarmKind
    name: str
    severity: Literal["critical", "warning"]
    bundle: str
    bundle_sha256: str
    since: str
    sentence: str

    @property
    def key(self) -> str:
        """The same for the same alarm at every run, so that nobody is told twice while it stands."""
        return sha256_json([self.kind, self.name, self.bundle_sha256])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {**asdict(self), "key": self.key}


class DeliveryError(Exception):
    """One attempt failed; ``retry`` tells whether another may succeed."""

    def __init__(self, what: str, *, retry: bool = True) -> None:
        self.retry = retry
        super().__init__(what)


class Notifier(BaseModel, ABC):
    """Tells about alarms, with a time limit and retries; nothing is told unless it is configured.

    A member names its ``kind`` and sends once; secrets are read from environment variables whose names it is given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    repeats: ClassVar[bool] = False
    """Whether the receiver wants a standing alarm again at each run."""

    name: str = Field(default="", description="how it is called in messages; the kind where left out")
    on: tuple[AlarmKind, ...] = Field(default=KINDS, min_length=1, description="kinds of alarms it is told about")
    timeout: float = Field(default=10.0, gt=0, le=600, description="seconds for one attempt")
    retries: int = Field(default=3, ge=0, le=10, description="further attempts after the first")
    wait: float = Field(default=1.0, ge=0, le=60, description="seconds before the first retry, doubled each time")

    @property
    def label(self) -> str:
        """Its name, or its kind."""
        return self.name or str(getattr(self, "kind", type(self).__name__))

    @abstractmethod
    def send(self, alarms: Sequence[Alarm]) -> None:
        """Send once.

        Raises:
            DeliveryError: it was not taken.
        """

    def deliver(self, alarms: Sequence[Alarm], *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Send, and try again while that may help.

        Raises:
            DeliveryError: the last attempt failed, or it is no use to try again.
        """
        for attempt in range(self.retries + 1):
            try:
                return self.send(alarms)
            except DeliveryError as error:
                if attempt == self.retries or not error.retry:
                    raise
                sleep(self.wait * 2**attempt)


def subject(alarms: Sequence[Alarm]) -> str:
    """One line about all of them, without line breaks."""
    first = f"{alarms[0].bundle}: {alarms[0].kind} alarm ({alarms[0].name})"
    text = first if len(alarms) == 1 else f"{first} and {len(alarms) - 1} more"
    return "".join(c if c.isprintable() else " " for c in f"workzone: {text}")


def body(alarms: Sequence[Alarm]) -> str:
    """All of them in words, one paragraph each."""
    return "\n\n".join(
        f"[{a.severity}] {a.kind}, {a.name}, since {a.since}\n{a.sentence}\nBundle {a.bundle} ({a.bundle_sha256[:12]})"
        for a in alarms
    )
