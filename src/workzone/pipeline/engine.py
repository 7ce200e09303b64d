"""Runs phases in order: skips what is up to date, records what was done, survives a kill."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workzone import __version__
from workzone.config import RunConfig
from workzone.config.load import dump_yaml
from workzone.errors import ArtifactError, ConfigError
from workzone.files import sha256_json, write_atomic
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.environment import environment, git_commit
from workzone.pipeline.folder import full_disk_explained, run_folder
from workzone.pipeline.hashing import Hasher
from workzone.pipeline.phase import Context, PhaseSpec, Progress
from workzone.pipeline.record import Record

UP_TO_DATE = "up to date"
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """What happened to one phase: ran or skipped, why, and how long it took.

    In a plan (``dry_run``) ``ran`` says that the phase would run, and ``sure`` is False when it would run only if an
    earlier phase writes something else than it did last time.
    """

    name: str
    ran: bool
    why: str
    seconds: float
    sure: bool = True


def run_pipeline(
    config: RunConfig,
    phases: Sequence[PhaseSpec],
    *,
    to: str | None = None,
    start: str | None = None,
    progress: Progress | None = None,
    dry_run: bool = False,
) -> list[PhaseResult]:
    """Run ``phases`` for ``config``; a phase whose inputs, keys and code are unchanged is skipped.

    Args:
        to: last phase to run.
        start: run this phase and all after it even when they are up to date.
        dry_run: say what would run, write nothing.

    Raises:
        ConfigError: unknown phase name, unwritable folder, folder of something else.
        RunLockedError: another process works in the folder.
        ArtifactError: an input is missing and no phase of this run makes it, a phase did not write what it declared, or
            the disk is full.
    """
    known = [p.name for p in phases]
    phases = [p for p in phases if p.wanted is None or p.wanted(config)]
    names = [p.name for p in phases]
    for name in (to, start):
        if name in known and name not in names:
            key = "set augment.search=true" if name == "augment" else f"set a method, such as {name}.method"
            raise ConfigError(f"phase {name!r} is switched off", fix=key)
        if name is not None and name not in names:
            raise ConfigError(f"there is no phase {name!r}", fix=f"the phases are {', '.join(names)}")
    last = names.index(to) + 1 if to else len(names)
    first = names.index(start) if start else len(names)
    if start and first >= last:
        raise ConfigError(f"phase {start!r} comes after phase {to!r}, so nothing would run", fix="swap --from and --to")
    run = _Run(config, set(names[first:]), progress or Progress())
    wanted = phases[:last]
    if dry_run:
        return run.plan(wanted)
    # Bad data are better found before a folder is made for them.
    run.parts(wanted[0])
    with full_disk_explained(run.artifacts), run_folder(run.artifacts):
        run.record = Record.load(run.artifacts.record)
        write_atomic(run.artifacts.config, dump_yaml(config))
        return [run.phase(spec) for spec in wanted]


class _Run:
    """One call of ``run_pipeline``."""

    def __init__(self, config: RunConfig, forced: set[str], show: Progress) -> None:
        self.config = config
        self.forced = forced
        self.show = show
        self.artifacts = Artifacts(config.out)
        self.record = Record.load(self.artifacts.record)
        self.hasher = Hasher()

    def phase(self, spec: PhaseSpec) -> PhaseResult:
        """Run one phase unless it is up to date."""
        parts = self.parts(spec)
        why = self._stale(spec, parts)
        self.show.message(f"{spec.name}: {why or UP_TO_DATE}")
        if why is None:
            return PhaseResult(spec.name, False, UP_TO_DATE, 0.0)
        context = Context(spec, self.config, self.artifacts, self.show, on_open=self.record.opened)
        started, clock = datetime.now(UTC), time.monotonic()
        spec.run(context)
        outputs = self._written(spec)
        seconds = time.monotonic() - clock
        self.record.remove_stale(spec.name, outputs, self.artifacts.root, self.hasher)
        self.record.finish(
            spec.name,
            {
                "key": sha256_json(parts),
                "parts": parts,
                "outputs": outputs,
                "seed": self.config.seed,
                "started": started.isoformat(timespec="seconds"),
                "seconds": round(seconds, 3),
                "roles_opened": context.opened,
                "environment": environment(),
                "git_commit": git_commit(),
                "workzone_version": __version__,
            },
        )
        return PhaseResult(spec.name, True, why, seconds)

    def plan(self, wanted: Sequence[PhaseSpec]) -> list[PhaseResult]:
        """What ``phase`` would do for each, as far as that is known beforehand."""
        results: list[PhaseResult] = []
        pending: dict[Path, str] = {}
        for spec in wanted:
            inputs = spec.inputs(self.artifacts, self.config)
            waits = {i: maker for i in inputs for path, maker in pending.items() if _overlap(i, path)}
            why = self._stale(spec, self.parts(spec, but=waits))
            sure = why is not None or not waits
            if not sure:
                why = f"if {', '.join(dict.fromkeys(waits.values()))} writes something else than before"
            results.append(PhaseResult(spec.name, why is not None, why or UP_TO_DATE, 0.0, sure))
            if why is not None:
                pending |= dict.fromkeys(spec.outputs(self.artifacts, self.config), spec.name)
        return results

    def parts(self, spec: PhaseSpec, but: Sequence[Path] | dict[Path, str] = ()) -> dict[str, Any]:
        """Everything that decides the result of a phase; inputs in ``but`` are not known yet."""
        values = self.config.model_dump(mode="json")
        inputs = {}
        for path in spec.inputs(self.artifacts, self.config):
            if path in but:
                continue
            if not path.exists():
                maker = self._label(path).partition("/")[0] if path.is_relative_to(self.artifacts.root) else None
                raise ArtifactError(
                    f"phase {spec.name!r} needs {path.name}, which is missing",
                    where=str(path),
                    fix=f"run phase {maker!r} first" if maker else "check the path",
                )
            inputs[self._label(path)] = self.hasher.one(path)
        if spec.outside:
            inputs["data"] = spec.outside(self.config)
        keys = {name: _value(values, name) for name in spec.config}
        return {"config": keys, "inputs": inputs, "code": f"{spec.name}/{spec.version}"}

    def _label(self, path: Path) -> str:
        root = self.artifacts.root
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)

    def _stale(self, spec: PhaseSpec, parts: dict[str, Any]) -> str | None:
        """Why the phase must run, or None."""
        if spec.name in self.forced:
            return "forced"
        entry = self.record.entry(spec.name)
        if entry is None:
            return "not done yet"
        old = entry["parts"]
        changed = [n for k, v in parts["config"].items() for n in _differing(k, old["config"].get(k, _NOTHING), v)]
        changed += [k for k, v in parts["inputs"].items() if old["inputs"].get(k) != v]
        if changed:
            return f"changed: {', '.join(changed)}"
        if parts["code"] != old["code"] or parts["config"].keys() != old["config"].keys():
            return "the code of the phase changed"
        declared = {self._label(p) for p in spec.inputs(self.artifacts, self.config)}
        if gone := sorted(old["inputs"].keys() - declared - {"data"}):
            return f"no longer read: {', '.join(gone)}"
        try:
            found = self.hasher.many(spec.outputs(self.artifacts, self.config), self.artifacts.root)
        except FileNotFoundError as error:
            return f"an output is missing: {self._label(Path(error.filename))}"
        differing = sorted(dict(found.items() ^ entry["outputs"].items()))
        return f"an output was changed: {differing[0]}" if differing else None

    def _written(self, spec: PhaseSpec) -> dict[str, str]:
        outputs = spec.outputs(self.artifacts, self.config)
        for path in outputs:
            if not path.exists():
                raise ArtifactError(
                    f"phase {spec.name!r} did not write {path.name}", where=str(path), fix="report this as a bug"
                )
        return self.hasher.many(outputs, self.artifacts.root)


def _value(values: dict[str, Any], name: str) -> Any:
    found: Any = values
    for part in name.split("."):
        found = found[part]
    return found


def _differing(name: str, old: Any, new: Any) -> list[str]:
    """Dotted names of the values that are not equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys([*new, *old])
        return [n for k in names for n in _differing(f"{name}.{k}", old.get(k, _NOTHING), new.get(k, _NOTHING))]
    return [] if old == new else [name]


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
