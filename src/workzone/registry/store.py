"""The registry: a folder of bundles by content, a log that says who serves, and links that servers open.

bundles/SHA256/     a copy of each bundle, named by the hash that stands for every byte of it
log.jsonl           every event, chained by hashes; versions and aliases are what it adds up to
head.json           length and last hash of the log
aliases/NAME        link to the bundle of an alias; made again from the log where it is missing
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workzone.bundle.chain import read_bundle
from workzone.bundle.verify import verify_bundle
from workzone.errors import CheckFailedError, ConfigError, DataError
from workzone.registry.gates import Gate, certificate_of, judge, not_void
from workzone.registry.log import Entry, append, head_of, read_log, require_intact
from workzone.registry.version import Version

ALIASES = ("champion", "challenger", "previous")
EVENTS = ("add", "promote", "rollback", "withdraw")


@dataclass(slots=True)
class State:
    """What the log adds up to.

    Attributes:
        versions: hash of the bundle by version, in order of adding.
        added: the entry that added a version.
        aliases: version by alias.
    """

    versions: dict[str, str] = field(default_factory=dict)
    added: dict[str, Entry] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: list[Entry]) -> State:
        """The state after ``entries``."""
        made = cls()
        for e in entries:
            if e.event == "add":
                made.versions[e.values["version"]] = e.values["bundle_sha256"]
                made.added[e.values["version"]] = e
            else:
                made.aliases = dict(e.values["aliases"])
        return made


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry in the folder ``root``; a change holds a lock, and when killed leaves the old state or the new one."""

    root: Path

    @contextmanager
    def _locked(self) -> Iterator[list[Entry]]:
        import fcntl

        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = require_intact(self.root)
            self._link(State.of(entries))  # a process killed before may not have come so far
            yield entries

    def _need(self) -> None:
        if not self.root.is_dir():
            raise DataError("there is no registry here", where=str(self.root), fix="make one: workzone registry add")

    def state(self) -> State:
        """Versions and aliases now.

        Raises:
            CheckFailedError: the log was changed.
            DataError: no such folder.
        """
        self._need()
        return State.of(require_intact(self.root))

    def entries(self) -> list[Entry]:
        """The log; raises as ``state``."""
        self._need()
        return require_intact(self.root)

    def head(self) -> str:
        """Hash that stands for the whole log; raises as ``state``."""
        return head_of(self.entries())

    def folder(self, version: str) -> Path:
        """Folder of the bundle of a version or an alias.

        Raises:
            ConfigError: nobody has this name.
        """
        return self._folder(self.state(), version)

    def _folder(self, state: State, name: str) -> Path:
        return self.root / "bundles" / state.versions[self._name(state, name)]

    def _name(self, state: State, name: str) -> str:
        version = state.aliases.get(name, name)
        if version not in state.versions:
            known = ", ".join([*state.versions][-10:]) or "none yet"
            what = f"the registry has no version {name[:60]!r}"
            raise ConfigError(what, where=str(self.root), fix=f"take one of: {known}")
        return version

    def add(self, bundle: Path, version: str | None = None, *, note: str = "") -> str:
        """Check a bundle, keep a copy of it and give it a version, which is returned.

        Args:
            bundle: folder; it may vanish afterwards.
            version: a semantic version; the next minor one where left out.
            note: for people.

        Raises:
            CheckFailedError: the bundle does not verify.
            ConfigError: the version is taken by another bundle, or the bundle has another version.
        """
        if version is not None:
            Version.parse(version)
        sha = read_bundle(bundle).sha256
        with self._locked() as entries:
            state = State.of(entries)
            for known, held in state.versions.items():
                if held == sha and version in (None, known):
                    return known
                if held == sha or known == version:
                    raise ConfigError(
                        f"version {known} is already there, for {'this' if held == sha else 'another'} bundle",
                        fix="versions never change; leave --version out or take a new one",
                    )
            if version is None:
                newest = max(map(Version.parse, state.versions), default=None)
                version = str(newest.next() if newest else Version(1, 0, 0))
            target = self.root / "bundles" / sha
            self._copy(bundle, target, sha)
            manifest, certificate = read_bundle(target), certificate_of(target)
            about = {
                "version": version,
                "bundle_sha256": sha,
                "name": manifest.name,
                "engine": certificate.engine,
                "certified": certificate.certified,
                "note": note,
            }
            append(self.root, entries, "add", about)
        return version

    def _copy(self, bundle: Path, target: Path, sha: str) -> None:
        target.parent.mkdir(exist_ok=True)
        for left in target.parent.glob(".*.partial"):
            shutil.rmtree(left)  # of a killed process: we hold the lock
        if target.is_dir():
            _require_good(target, sha)
            return
        work = target.with_name(f".{sha[:12]}-{secrets.token_hex(4)}.partial")
        try:
            shutil.copytree(bundle, work, symlinks=True)
            _require_good(work, sha)  # what was copied, not what lay there before
            for path in work.rglob("*"):
                if path.is_file():
                    with path.open("rb") as stream:
                        os.fsync(stream.fileno())
            work.rename(target)
        finally:
            if work.exists():
                shutil.rmtree(work)

    def promote(
        self,
        version: str,
        to: str = "champion",
        *,
        limits: Mapping[str, float] | None = None,
        force: str = "",
        expect: str | None = None,
        more: Sequence[Callable[[Path], Gate]] = (),
    ) -> list[Gate]:
        """Make a version the champion (the old one becomes ``previous``) or the challenger; returns its gates.

        Args:
            version: or an alias, such as ``challenger``.
            to: ``champion`` or ``challenger``.
            limits: largest promised limit by risk.
            force: why a failed gate is overruled; it is kept in the log.
            expect: version that must be champion, else nothing is changed.
            more: gates besides, each judges the folder of the version.

        Raises:
            CheckFailedError: a gate failed, the champion is another one than expected, or would become challenger.
            ConfigError: unknown version or alias.
        """
        if to not in ("champion", "challenger"):
            raise ConfigError(f"nobody is promoted to {to!r}", fix="say champion or challenger")
        with self._locked() as entries:
            state = State.of(entries)
            name = self._name(state, version)
            champion = state.aliases.get("champion")
            if expect is not None and champion != expect:
                raise CheckFailedError(f"the champion is {champion or 'nobody'}, not {expect}", where=str(self.root))
            if state.aliases.get(to) == name:
                return []
            if to == "challenger" and name == champion:
                fix = "promote another version first, or name another challenger"
                raise CheckFailedError(f"{name} is the champion, and nobody would serve", where=str(self.root), fix=fix)
            against = self._folder(state, champion) if champion and champion != name else None
            gates = judge(self._folder(state, name), against, limits)
            if gates[0].passed:
                gates += [gate(self._folder(state, name)) for gate in more]
            failed = [g for g in gates if g.passed is False]
            # A bundle that does not verify cannot be opened by a server either, so no reason is good enough.
            if failed and (not force or failed[0].name == "verify"):
                words = "; ".join(f"{g.name}: {g.detail}" for g in failed)
                fix = "take another version; --force REASON overrules every gate but 'verify'"
                raise CheckFailedError(f"version {name} does not pass: {words}", where=str(self.root), fix=fix)
            aliases = {k: v for k, v in state.aliases.items() if v != name or k == "previous"}
            if to == "champion" and champion:
                aliases["previous"] = champion
            aliases[to] = name
            self._commit(
                entries,
                "promote",
                {"version": name, "to": to, "aliases": aliases, "gates": [g.to_dict() for g in gates], "force": force},
            )
        return gates

    def rollback(self, reason: str, *, only_if_void: bool = False) -> str | None:
        """Let the previous champion serve again, in one step; returns its version, None where nothing had to be done.

        Args:
            reason: kept in the log.
            only_if_void: do nothing while the champion verifies and no monitor has found its certificate void.

        Raises:
            CheckFailedError: there is no previous champion, or it does not verify.
        """
        with self._locked() as entries:
            state = State.of(entries)
            champion, previous = state.aliases.get("champion"), state.aliases.get("previous")
            if champion is None or previous is None or previous == champion:
                raise CheckFailedError("there is no previous champion to go back to", where=str(self.root))
            if only_if_void:
                why = void_reasons(self._folder(state, champion))
                if not why:
                    return None
                reason = f"{reason}: {'; '.join(why)}"
            _require_good(self._folder(state, previous), state.versions[previous])
            # Without 'previous': a second rollback must not bring the bad one back.
            aliases = {k: v for k, v in state.aliases.items() if k != "previous" and v != previous}
            aliases["champion"] = previous
            self._commit(
                entries,
                "rollback",
                {"version": previous, "from": champion, "reason": reason, "aliases": aliases},
            )
        return previous

    def withdraw(self, reason: str) -> str | None:
        """Take the challenger out of the race; returns its version, None where there is none."""
        with self._locked() as entries:
            aliases = dict(State.of(entries).aliases)
            version = aliases.pop("challenger", None)
            if version is not None:
                self._commit(entries, "withdraw", {"version": version, "reason": reason, "aliases": aliases})
        return version

    def _commit(self, entries: list[Entry], event: str, values: Mapping[str, Any]) -> None:
        made = append(self.root, entries, event, values)
        self._link(State.of([*entries, made]))

    def _link(self, state: State) -> None:
        folder = self.root / "aliases"
        folder.mkdir(exist_ok=True)
        for left in folder.glob(".*.partial"):
            left.unlink()
        for alias in ALIASES:
            link, version = folder / alias, state.aliases.get(alias)
            if version is None:
                link.unlink(missing_ok=True)
                continue
            target = f"../bundles/{state.versions[version]}"
            if not (link.is_symlink() and os.readlink(link) == target):  # noqa: PTH115
                work = folder / f".{alias}-{secrets.token_hex(4)}.partial"
                work.symlink_to(target)
                work.replace(link)

    def verify(self, *, head: str | None = None, bundles: bool = True) -> list[Gate]:
        """Check the chain, the links and every bundle; ``head`` is a hash of the log that was noted elsewhere."""
        self._need()
        entries, problems = read_log(self.root)
        checks = [Gate("log", not problems, "; ".join(problems) or f"{len(entries)} entries, chain unbroken")]
        if head is not None:
            known = head in {e.sha256 for e in entries}
            checks.append(Gate("head", known, "the noted hash is in the log" if known else "the noted hash is missing"))
        unknown = [e.event for e in entries if e.event not in EVENTS]
        if problems or unknown:
            return [*checks, *([Gate("events", False, f"unknown event {unknown[0]!r}")] if unknown else [])]
        state = State.of(entries)
        off = []
        for alias in ALIASES:
            link, version = self.root / "aliases" / alias, state.aliases.get(alias)
            wanted = f"../bundles/{state.versions[version]}" if version else None
            found = os.readlink(link) if link.is_symlink() else None  # noqa: PTH115
            if found != wanted or (found is None and link.exists()):
                off.append(f"{alias} leads to {found}, the log says {wanted}")
        checks.append(Gate("aliases", not off, "; ".join(off) or f"{len(state.aliases)} links as the log says"))
        for version, sha in state.versions.items() if bundles else []:
            why = _problems(self.root / "bundles" / sha, sha)
            checks.append(Gate(f"bundle {version}", not why, "; ".join(why) or "verifies"))
        return checks


def void_reasons(folder: Path) -> list[str]:
    """Why a bundle must not serve: it does not verify, or a monitor found its certificate void."""
    failed = [f"{c.name}: {c.detail}" for c in verify_bundle(folder) if not c.passed]
    if failed:
        return failed
    gate = not_void(folder)
    return [] if gate.passed else [gate.detail]


def _problems(folder: Path, sha: str) -> list[str]:
    why = [f"{c.name}: {c.detail}" for c in verify_bundle(folder) if not c.passed]
    return why or ([] if read_bundle(folder).sha256 == sha else ["another bundle lies in this place"])


def _require_good(folder: Path, sha: str) -> None:
    why = _problems(folder, sha)
    if why:
        raise CheckFailedError(f"the bundle does not verify: {why[0]}", where=str(folder), fix="export it again")
