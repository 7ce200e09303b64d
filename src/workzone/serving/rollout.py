"""The challenger is stopped when reviewed labels show for certain that it is worse, whoever looks how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workzone.monitoring.reviewed import Reviewed
from workzone.monitoring.table import CODES
from workzone.registry.ab import Event, events_of, sequential
from workzone.serving.places import CHALLENGER, CHAMPION
from workzone.serving.review import ReviewStore, Settled
from workzone.serving.roles import Roles


@dataclass(slots=True)
class Judge:
    """Compares the two bundles on the pictures that were kept whatever the answer; see ``registry.ab.sequential``.

    Attributes:
        store: where people label.
        roles: whose challenger is stopped.
        event: what is counted, see ``registry.ab.events_of``.
        delta: chance of ever stopping a challenger that is not worse.
    """

    store: ReviewStore
    roles: Roles
    event: Event
    delta: float
    _seen: tuple[int, str, str] = (-1, "", "")
    _found: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> None:
        """Look at the labels, if any came since, and stop the challenger where it is worse."""
        challenger = self.roles.challenger
        if challenger is None:
            return
        champion = self.roles.champion
        state = (self.store.said(), champion.sha256, challenger.sha256)
        if state == self._seen:
            return
        self._seen = state
        sampled = [s for s in self.store.settled() if s.sampled]
        one = self._events(sampled, CHAMPION, champion.sha256)
        two = self._events(sampled, CHALLENGER, challenger.sha256)
        pairs = min(len(one), len(two))
        worse, better, limit = sequential(one[:pairs], two[:pairs], self.delta)
        self._found = {
            "event": self.event,
            "champion": {"reviewed": len(one), "events": int(sum(one))},
            "challenger": {"reviewed": len(two), "events": int(sum(two))},
            "discordant": worse.step,
            "e_worse": worse.highest,
            "e_better": better.highest,
            "stop_at": limit,
        }
        if worse.fired is not None and (better.fired is None or worse.fired < better.fired):
            self.roles.stop(
                f"reviewed labels: {int(sum(two))} of {len(two)} {self.event} by the challenger, {int(sum(one))} of "
                f"{len(one)} by the champion, e-value {worse.highest:.3g} against {limit:g}"
            )

    def to_dict(self) -> dict[str, Any]:
        """What the labels say so far."""
        return dict(self._found)

    def _events(self, settled: Sequence[Settled], role: str, sha256: str) -> list[bool]:
        own = [s for s in settled if s.role == role and s.bundle_sha256 == sha256]
        reviewed = Reviewed(
            ids=np.array([s.id for s in own], dtype=np.str_),
            labels=np.array([s.label for s in own], dtype=np.int64),
            probability=np.array([s.probability for s in own], dtype=np.float64),
            codes=np.array([CODES[s.decision] for s in own], dtype=np.int64),
            weights=np.ones(len(own)),
        )
        hit, counts = events_of(reviewed, self.event)
        found: list[bool] = hit[counts].tolist()
        return found
