"""Runs phases in order: skips what is up to date, records what was done, survives a kill, admits one process a folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from workzone import __version__
from workzone.config import RunConfig
from workzone.config.load import dump_yaml
from workzone.errors import ArtifactError, ConfigError, RunLockedError
from workzone.files import read_json, sha256_file, sha256_json, write_atomic, write_json
from workzone.pipeline.artifacts import Artifacts
from workzone.pipeline.phase import Context, PhaseSpec, Progress

_PACKAGES = ("numpy", "pillow", "onnxruntime", "openvino", "torch", "timm", "polars", "scipy")


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """What happened to one phase: ran or skipped, why, and how long it took."""

    name: str
    ran: bool
    why: str
    seconds: float


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
        ConfigError: unknown phase name, unwritable folder.
        RunLockedError: another process works in the folder.
        ArtifactError: an input is missing and no phase of this run makes it, or a phase did not write what it declared.
    """
    show = progress or Progress()
    names = [p.name for p in phases]
    for name in (to, start):
        if name is not None and name not in names:
            raise ConfigError(f"there is no phase {name!r}", fix=f"the phases are {', '.join(names)}")
    wanted = phases[: names.index(to) + 1] if to else phases
    forced = set(names[names.index(start) :]) if start else set()
    artifacts = Artifacts(config.out)
    if dry_run:
        return _plan(config, wanted, artifacts, forced)
    _make_folder(config.out)
    with _lock(artifacts.lock):
        _sweep(config.out)
        record = _load_record(artifacts.record)
        write_atomic(artifacts.config, dump_yaml(config))
        results = []
        for spec in wanted:
            results.append(_run_phase(spec, config, artifacts, record, spec.name in forced, show))
        return results


def _run_phase(
    spec: PhaseSpec, config: RunConfig, artifacts: Artifacts, record: dict[str, Any], force: bool, show: Progress
) -> PhaseResult:
    key, parts = _key(spec, config, artifacts)
    why = "forced" if force else _stale(spec, config, artifacts, record, key, parts)
    if why is None:
        show.message(f"{spec.name}: up to date")
        return PhaseResult(spec.name, False, "up to date", 0.0)
    show.message(f"{spec.name}: {why}")
    context = Context(spec, config, artifacts, show)
    started, clock = datetime.now(UTC), time.monotonic()
    try:
        spec.run(context)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ArtifactError(
                f"the disk is full; phase {spec.name!r} stopped and its finished parts were kept",
                where=str(config.out),
                fix="free some space and run the same command again",
            ) from error
        raise
    outputs = spec.outputs(artifacts, config)
    for path in outputs:
        if not path.exists():
            raise ArtifactError(f"phase {spec.name!r} did not write {path.name}", where=str(path), fix="report this as a bug")
    seconds = time.monotonic() - clock
    record["phases"][spec.name] = {
        "key": key,
        "parts": parts,
        "outputs": {str(p.relative_to(artifacts.root)): h for p, h in _hashes(outputs).items()},
        "seed": config.seed,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "roles_opened": context.opened,
        "environment": environment(),
        "git_commit": git_commit(),
        "workzone_version": __version__,
    }
    for role, times in context.opened.items():
        record["roles_opened"][role] = record["roles_opened"].get(role, 0) + times
    write_json(artifacts.record, record)
    return PhaseResult(spec.name, True, why, seconds)


def _key(spec: PhaseSpec, config: RunConfig, artifacts: Artifacts) -> tuple[str, dict[str, Any]]:
    values = config.model_dump(mode="json")
    keys: dict[str, Any] = {}
    for name in spec.config:
        value: Any = values
        for part in name.split("."):
            value = value[part]
        keys[name] = value
    inputs = {}
    for path in spec.inputs(artifacts, config):
        if not path.exists():
            maker = _maker(path, artifacts)
            raise ArtifactError(
                f"phase {spec.name!r} needs {path.name}, which is missing",
                where=str(path),
                fix=f"run phase {maker!r} first" if maker else "check the path",
            )
        inputs[_label(path, artifacts)] = fingerprint(path)
    if spec.outside:
        inputs["data"] = spec.outside(config)
    parts = {"config": keys, "inputs": inputs, "code": f"{spec.name}/{spec.version}"}
    return sha256_json(parts), parts


def _label(path: Path, artifacts: Artifacts) -> str:
    return str(path.relative_to(artifacts.root)) if path.is_relative_to(artifacts.root) else str(path)


def _maker(path: Path, artifacts: Artifacts) -> str | None:
    return path.relative_to(artifacts.root).parts[0] if path.is_relative_to(artifacts.root) else None


def fingerprint(path: Path) -> str:
    """Hash of a file's content; for a folder, of the names, sizes and times of all files below it."""
    if path.is_file():
        return sha256_file(path)
    rows = []
    for folder, _, files in os.walk(path):
        for name in files:
            full = Path(folder) / name
            if name.startswith("."):
                continue
            stat = full.stat()
            rows.append([str(full.relative_to(path)), stat.st_size, stat.st_mtime_ns])
    return sha256_json(sorted(rows))


def _hashes(paths: Sequence[Path]) -> dict[Path, str]:
    found: dict[Path, str] = {}
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        found.update({file: sha256_file(file) for file in files})
    return found


def _stale(
    spec: PhaseSpec,
    config: RunConfig,
    artifacts: Artifacts,
    record: dict[str, Any],
    key: str,
    parts: dict[str, Any],
) -> str | None:
    """Why the phase must run, or None."""
    entry = record["phases"].get(spec.name)
    if entry is None:
        return "not done yet"
    if entry["key"] != key:
        old = entry["parts"]
        changed = [k for k, v in parts["config"].items() if old["config"].get(k) != v]
        changed += [k for k, v in parts["inputs"].items() if old["inputs"].get(k) != v]
        return f"changed: {', '.join(changed)}" if changed else "the code of the phase changed"
    try:
        found = {str(p.relative_to(artifacts.root)): h for p, h in _hashes(spec.outputs(artifacts, config)).items()}
    except OSError:
        return "an output is missing"
    if found != entry["outputs"]:
        return "an output was changed or is missing"
    return None


def _plan(config: RunConfig, wanted: Sequence[PhaseSpec], artifacts: Artifacts, forced: set[str]) -> list[PhaseResult]:
    record = _load_record(artifacts.record)
    results: list[PhaseResult] = []
    upstream = False
    for spec in wanted:
        why: str | None
        if upstream:
            why = "an earlier phase would run"
        else:
            key, parts = _key(spec, config, artifacts)
            why = "forced" if spec.name in forced else _stale(spec, config, artifacts, record, key, parts)
        results.append(PhaseResult(spec.name, why is not None, why or "up to date", 0.0))
        upstream = upstream or why is not None
    return results


def _load_record(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"version": 1, "phases": {}, "roles_opened": {}}
    try:
        record = read_json(path)
        if record["version"] != 1 or not isinstance(record["phases"], dict) or not isinstance(record["roles_opened"], dict):
            raise ValueError("unknown version")
    except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ArtifactError(
            f"the run manifest cannot be read: {error}", where=str(path), fix="restore it, or delete it to run every phase again"
        ) from error
    return dict(record)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / ".writable", "")
        (out / ".writable").unlink()
    except OSError as error:
        raise ConfigError(
            f"the run folder cannot be written: {error.strerror or error}", where=str(out), fix="choose another folder with out=DIR"
        ) from error


def _sweep(out: Path) -> None:
    """Remove what a killed process left half-written; only names of atomic writes match."""
    import shutil

    for path in [*out.rglob(".*.partial*"), *out.rglob(".*.old")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            owner = stream.read().strip() or "another process"
            raise RunLockedError(
                f"another run is working in this folder ({owner})", where=str(path.parent), fix="wait for it, stop it, or use another out=DIR"
            ) from error
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {platform.node()} since {datetime.now(UTC).isoformat(timespec='seconds')}")
        stream.flush()
        yield  # the lock goes with the process, however it ends


def environment() -> dict[str, str]:
    """Versions that a result may depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "processor": platform.machine()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Commit of the working folder, or None outside a repository or without git."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()



