"""What a phase declares, and the context that holds it to its word."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from workzone.config import RunConfig
from workzone.data.roles import Role, RoleData
from workzone.errors import LeakageError
from workzone.pipeline.artifacts import Artifacts

if TYPE_CHECKING:
    from workzone.data.manifest import Manifest
    from workzone.data.splits import Splits

R = TypeVar("R", bound=RoleData)
Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class PhaseSpec:
    """One step of a run: a function of declared files, declared keys and declared roles.

    Attributes:
        name: name on the command line and in the run manifest.
        version: raised when the code changes what the phase writes.
        config: sections or keys of the configuration that decide its result.
        inputs: files it reads; each is written by an earlier phase.
        outputs: files it writes; folders are hashed file by file.
        roles: split roles it may open.
        run: does the work.
        outside: hash of what it reads outside the run folder, if anything.
        wanted: whether a configuration has this phase at all; None for always.
    """

    name: str
    version: int
    config: tuple[str, ...]
    inputs: Callable[[Artifacts, RunConfig], Sequence[Path]]
    outputs: Callable[[Artifacts, RunConfig], Sequence[Path]]
    roles: tuple[Role, ...]
    run: Callable[[Context], None]
    outside: Callable[[RunConfig], str] | None = None
    wanted: Callable[[RunConfig], bool] | None = None


class Progress:
    """Where a phase reports what it does; the command line draws bars, a library caller hears nothing."""

    def message(self, text: str) -> None:
        """One line a person should see."""

    @contextmanager
    def bar(self, text: str) -> Iterator[Advance]:
        """A bar for a loop: call the result with (done, total)."""

        def ignore(done: int, total: int) -> None:
            return None

        yield ignore


@dataclass
class Context:
    """What a phase is handed: its paths, its configuration, and the roles it declared."""

    spec: PhaseSpec
    config: RunConfig
    artifacts: Artifacts
    progress: Progress = field(default_factory=Progress)
    opened: dict[str, int] = field(default_factory=dict)
    on_open: Callable[[str], None] = lambda role: None

    @cached_property
    def _manifest(self) -> Manifest:
        from workzone.data.manifest import Manifest

        return Manifest.load(self.artifacts.manifest)

    @cached_property
    def _splits(self) -> Splits:
        from workzone.data.splits import Splits

        return Splits.load(self.artifacts.splits)

    def open(self, kind: type[R]) -> R:
        """The images of one role, by type: ``context.open(TrainData)``.

        Raises:
            LeakageError: the phase did not declare this role.
        """
        if kind.role not in self.spec.roles:
            declared = ", ".join(self.spec.roles) or "none"
            raise LeakageError(
                f"phase {self.spec.name!r} asked for role {kind.role!s}, which it did not declare",
                where=f"declared roles: {declared}",
                fix="use a declared role; only evaluate may open val_test",
            )
        from workzone.data.splits import open_role

        self.opened[kind.role] = self.opened.get(kind.role, 0) + 1
        self.on_open(kind.role)
        data = open_role(self._manifest, self._splits, kind.role)
        assert isinstance(data, kind)
        return data
