"""Which bundle answers what: champion, challenger with a share of the requests, and shadow that answers nobody.

A role names a folder, or an alias of a registry. An alias is looked up at every check, so a promotion, a rollback or a
withdrawal reaches a running server: the new bundle is opened beside the old one and takes over between two requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from workzone.errors import ConfigError, WorkzoneError
from workzone.registry.address import registry_of, tell_mlflow
from workzone.registry.split import assign
from workzone.serving.metrics import Metrics, log_line
from workzone.serving.model import Model
from workzone.serving.places import CHALLENGER, CHAMPION, SHADOW, place_of
from workzone.serving.settings import ServeSettings

PINNED = "pinned"
"""Role of a bundle that a client named; such requests belong to no experiment."""


@dataclass(frozen=True, slots=True)
class Arm:
    """The bundle that answers a request, and as what."""

    role: str
    model: Model

    def told(self) -> dict[str, str]:
        """What an answer says about who gave it."""
        return {"name": self.model.name, "sha256": self.model.sha256, "role": self.role}

    def headers(self) -> dict[str, str]:
        """The same for who never looks into the body, with the state of the certificate."""
        return {
            "X-Workzone-Certificate": self.model.state(),
            "X-Workzone-Bundle": self.model.sha256[:12],
            "X-Workzone-Role": self.role,
        }


@dataclass(slots=True)
class Roles:
    """The bundles of one server process; ``check`` may run in a thread beside requests.

    Attributes:
        settings: of the server.
        metrics: where roles are shown.
        champion: answers all that nobody else answers.
        challenger: answers its share, None where there is none.
        shadow: decides on the same images, None where there is none.
        stopped: why the challenger gets no requests; empty while it does.
    """

    settings: ServeSettings
    metrics: Metrics
    champion: Model
    challenger: Model | None = None
    shadow: Model | None = None
    stopped: str = ""
    _failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, settings: ServeSettings, metrics: Metrics, champion: Model | None = None) -> Roles:
        """Open every bundle and answer its golden cases.

        Raises:
            WorkzoneError: a bundle cannot be opened, or the challenger needs columns that the champion does not.
        """
        model = champion or load_champion(settings)
        made = cls(settings, metrics, model)
        metrics.state(model.state())
        metrics.serves(CHAMPION, model.name, model.sha256)
        for role in (CHALLENGER, SHADOW):
            made._follow(role)
        made._show()
        return made

    def pick(self, unit: str) -> Arm:
        """Who answers a request or sequence: the same one always the same, while the share is the same."""
        challenger, s = self.challenger, self.settings
        if challenger is not None and not self.stopped and assign(unit, s.share, s.salt) == CHALLENGER:
            return Arm(CHALLENGER, challenger)
        return Arm(CHAMPION, self.champion)

    def named(self, name: str, version: str | None) -> Arm | None:
        """The bundle that a client names by its name and the beginning of its hash; None where nobody is called so."""
        for model in (self.champion, self.challenger):
            if model is not None and model.name == name and version in (None, model.sha256[:12]):
                return Arm(CHAMPION if self.challenger is None else PINNED, model)
        return None

    def stop(self, reason: str) -> None:
        """Give the challenger no more requests, and withdraw it from the registry it came from."""
        if self.stopped or self.challenger is None:
            return
        self.stopped = reason
        log_line("challenger_stopped", reason=reason, bundle_sha256=self.challenger.sha256)
        if self.settings.registry is not None and self.settings.challenger == CHALLENGER:
            try:
                registry = registry_of(self.settings.registry)
                registry.withdraw(reason)
                tell_mlflow(registry, lambda text: log_line("registry", role=CHALLENGER, note=text), apart=True)
            except (WorkzoneError, OSError) as error:
                log_line("registry", error=str(error), failed="the challenger was not withdrawn there")
        self._show()

    def check(self) -> None:
        """Look up the aliases again, and check every bundle as ``Model.check`` does; a void challenger is stopped."""
        for role in (CHAMPION, CHALLENGER, SHADOW):
            try:
                self._follow(role)
                self._failed.pop(role, None)
            except (WorkzoneError, OSError) as error:
                if self._failed.get(role) != str(error):
                    log_line("registry", role=role, error=str(error))
                self._failed[role] = str(error)
        for model in (self.champion, self.challenger, self.shadow):
            if model is not None:
                model.check()
        if CHAMPION in self._failed:
            # Who was told to serve something else must not go on as if nothing had been said.
            self.champion.void = (*self.champion.void, f"the registry cannot be followed: {self._failed[CHAMPION]}")
        if self.challenger is not None and self.challenger.void:
            self.stop(f"its certificate is void: {'; '.join(self.challenger.void)}")
        self._show()

    def to_dict(self) -> dict[str, object]:
        """What ``/v1/rollout`` tells."""
        s = self.settings
        told: dict[str, object] = {"champion": self._about(self.champion)}
        if self.challenger is not None:
            split = {"share": s.share, "salt": s.salt, "stopped": self.stopped or None}
            told["challenger"] = {**self._about(self.challenger), **split}
        if self.shadow is not None:
            told["shadow"] = self._about(self.shadow)
        return told

    @staticmethod
    def _about(model: Model) -> dict[str, object]:
        return {"name": model.name, "sha256": model.sha256, "certificate": model.certificate()}

    def _show(self) -> None:
        self.metrics.state(self.champion.state())
        serving = self.challenger is not None and not self.stopped
        self.metrics.share.set(self.settings.share if serving else 0.0)
        self.metrics.stopped.set(float(bool(self.stopped)))

    def _follow(self, role: str) -> None:
        """Open the bundle that ``role`` means now, if it is another one than before."""
        held: Model | None = getattr(self, role)
        folder = place_of(self.settings, role)
        if held is not None and (self.settings.registry is None or folder == held.detector.folder):
            return
        fresh = None
        if folder is not None:
            threads = 1 if role == SHADOW else self.settings.threads
            fresh = Model.load(folder, device=self.settings.device, threads=threads)
            if role == CHAMPION and self.settings.budget is not None:
                fresh.spend(self.settings.budget)
            self._require_columns(fresh, role)
        if fresh is held:
            return
        setattr(self, role, fresh)
        if held is not None:
            self.metrics.serves(role, held.name, held.sha256, now=False)
        if fresh is not None:
            self.metrics.serves(role, fresh.name, fresh.sha256)
        if role == CHALLENGER and fresh is not None:
            self.stopped = ""
        log_line("role", role=role, bundle_sha256=None if fresh is None else fresh.sha256)

    def _require_columns(self, model: Model, role: str) -> None:
        if role == CHAMPION:
            return
        more = sorted(set(model.detector.calibrator.needs) - set(self.champion.detector.calibrator.needs))
        if more:
            fix = "compare bundles that are asked in the same way"
            raise ConfigError(f"the {role} needs the column {more[0]!r}, the champion does not", fix=fix)


def load_champion(settings: ServeSettings) -> Model:
    """Open the bundle that answers; raises as ``Model.load``, ``Model.spend`` and ``place_of`` do."""
    folder = place_of(settings, CHAMPION)
    assert folder is not None
    model = Model.load(folder, device=settings.device, threads=settings.threads)
    if settings.budget is not None:
        model.spend(settings.budget)
    return model
