from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from promised import Make

from helpers.command import environment
from workzone.bundle import schema
from workzone.errors import CheckFailedError, ConfigError
from workzone.files import sha256_bytes
from workzone.monitoring.void import mark_path, write_mark
from workzone.registry import log
from workzone.registry.log import FIRST, LOG, append, read_log, require_intact
from workzone.registry.store import Registry
from workzone.registry.version import Version

CHILD = """
import os, signal, sys
from pathlib import Path
from workzone.registry import log, store
point, root, bundle = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
registry = store.Registry(root)
if point == "copying":
    store._require_good = die
elif point == "before the head":
    write, calls = log.write_json, []
    log.write_json = lambda *a: (calls.append(a), die() if len(calls) == 2 else write(*a))  # the head of the new entry
elif point == "before the link":
    registry.promote("1.0.0", "challenger")
    kept = store.Registry._link
    store.Registry._link = lambda self, state: die() if state.aliases.get("champion") == "1.0.0" else kept(self, state)
    registry.promote("1.0.0")
registry.add(bundle, sys.argv[4] if len(sys.argv) > 4 else None)
"""


def child(point: str, registry: Registry, bundle: Path, *more: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", CHILD, point, str(registry.root), str(bundle), *more]
    return subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE)


def failed(registry: Registry) -> dict[str, str]:
    return {g.name: g.detail for g in registry.verify() if g.passed is False}


def champion(registry: Registry) -> str:
    """Name of the bundle that a server would open now."""
    return schema.read_manifest(registry.root / "aliases/champion").name


def test_versions_are_ordered_as_semver_says() -> None:
    words = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0",
        "1.2.0",
        "1.10.0",
    ]
    assert [str(v) for v in sorted(map(Version.parse, reversed(words)))] == words
    for bad in ("1.0", "01.0.0", "v1.0.0", "1.0.0-", "1.0.0-01", "1.0.0 ", ""):
        with pytest.raises(ConfigError):
            Version.parse(bad)


def test_add_promote_and_rollback(registry: Registry, make: Make) -> None:
    one, two = make("one"), make("two")
    assert registry.add(one) == "1.0.0"
    assert registry.add(one) == "1.0.0", "the same bundle again is no new version"
    assert registry.add(two) == "1.1.0"
    shutil.rmtree(one)
    registry.promote("1.0.0")
    registry.promote("1.1.0", "challenger")
    assert champion(registry) == "one"
    registry.promote("challenger")
    assert registry.state().aliases == {"champion": "1.1.0", "previous": "1.0.0"}
    assert champion(registry) == "two"
    with pytest.raises(CheckFailedError, match="nobody would serve"):
        registry.promote("1.1.0", "challenger")
    assert champion(registry) == "two"
    assert registry.rollback("too many complaints") == "1.0.0"
    assert champion(registry) == "one"
    with pytest.raises(CheckFailedError, match="no previous"):
        registry.rollback("again")
    assert [e.event for e in registry.entries()] == ["add", "add", "promote", "promote", "promote", "rollback"]
    assert failed(registry) == {}


def test_a_version_never_changes(registry: Registry, make: Make) -> None:
    one, two = make("one"), make("two")
    registry.add(one, "2.0.0")
    with pytest.raises(ConfigError, match="another bundle"):
        registry.add(two, "2.0.0")
    with pytest.raises(ConfigError, match="this bundle"):
        registry.add(one, "2.0.1")


def test_a_damaged_bundle_does_not_enter(registry: Registry, make: Make) -> None:
    bundle = make("one")
    (bundle / "MODEL_CARD.md").write_text("changed")
    with pytest.raises(CheckFailedError, match="does not verify"):
        registry.add(bundle)
    assert registry.entries() == []
    assert list((registry.root / "bundles").iterdir()) == []


def test_expect_refuses_another_champion(registry: Registry, make: Make) -> None:
    registry.add(make("one"))
    with pytest.raises(CheckFailedError, match="is nobody, not"):
        registry.promote("1.0.0", expect="9.0.0")


def test_rollback_only_where_the_certificate_is_void(registry: Registry, make: Make) -> None:
    for name in ("one", "two"):
        registry.promote(registry.add(make(name)))
    assert registry.rollback("automatic", only_if_void=True) is None
    served = registry.root / "aliases/champion"
    write_mark(mark_path(served), schema.read_manifest(served).sha256, ["too many missed"], [{}])
    assert registry.rollback("automatic", only_if_void=True) == "1.0.0"
    assert "too many missed" in registry.entries()[-1].values["reason"]


def edit(text: str, number: int, old: str, new: str) -> str:
    lines = text.splitlines(keepends=True)
    assert old in lines[number]
    lines[number] = lines[number].replace(old, new)
    return "".join(lines)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: edit(t, 1, '"force":""', '"force":"x"'), "line 2 was changed"),
        (lambda t: "".join(t.splitlines(keepends=True)[1:]), "line 1 does not follow"),
        (lambda t: "".join(t.splitlines(keepends=True)[:-1]), "the log was cut"),
        (lambda t: t[:-1], "whole line"),
        (lambda t: t + "{}\n", "line 4 is no entry"),
        (lambda t: "".join(t.splitlines(keepends=True)[i] for i in (0, 2, 1)), "line 2 does not follow"),
        (lambda t: "", "the log was cut"),
    ],
)
def test_a_changed_log_is_found(registry: Registry, make: Make, change: object, reason: str) -> None:
    registry.promote(registry.add(make("one")), "challenger")
    registry.promote("challenger")
    assert failed(registry) == {}
    path = registry.root / LOG
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    assert reason in failed(registry)["log"]
    with pytest.raises(CheckFailedError, match="damaged"):
        registry.promote("1.0.0")


def test_a_log_written_anew_is_found_by_a_noted_head(registry: Registry, make: Make) -> None:
    registry.add(make("one"))
    noted = registry.head()
    raw = json.loads((registry.root / LOG).read_text())
    raw["note"] = "forged"
    del raw["sha256"]
    body = json.dumps(raw, sort_keys=True, separators=(",", ":"))
    raw["sha256"] = sha256_bytes(body.encode())
    (registry.root / LOG).write_text(json.dumps(raw, sort_keys=True, separators=(",", ":")) + "\n")
    (registry.root / "head.json").write_text(json.dumps({"entries": 1, "sha256": raw["sha256"]}))
    assert failed(registry) == {}, "whoever rewrites everything is not found by the registry alone"
    assert [g.name for g in registry.verify(head=noted) if g.passed is False] == ["head"]


def test_a_changed_bundle_and_a_moved_link_are_found(registry: Registry, make: Make) -> None:
    for name in ("one", "two"):
        registry.promote(registry.add(make(name)))
    link = registry.root / "aliases/champion"
    link.unlink()
    link.symlink_to(f"../bundles/{registry.state().versions['1.0.0']}")
    assert set(failed(registry)) == {"aliases"}
    (registry.folder("1.1.0") / "policy.json").write_text("{}")
    assert set(failed(registry)) == {"aliases", "bundle 1.1.0"}
    (registry.folder("1.0.0") / "policy.json").write_text("{}")
    with pytest.raises(CheckFailedError, match="does not verify"):
        registry.rollback("to a damaged bundle")


def test_two_changes_that_were_killed_before_their_head_are_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(tmp_path, [], "add", {"version": "1.0.0"})
    write, written = log.write_json, 0

    def killed(path: Path, content: object) -> None:
        nonlocal written
        written += 1
        if written % 2 == 0:  # the head of the new entry, not that of the ones before
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(log, "write_json", killed)
    for number in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            append(tmp_path, require_intact(tmp_path), "add", {"version": f"1.{number}.0"})
    entries, problems = read_log(tmp_path)
    assert problems == []
    assert [e.values["version"] for e in entries] == ["1.0.0", "1.1.0", "1.2.0"]


@pytest.mark.parametrize("point", ["copying", "before the head", "before the link"])
def test_killed_at_a_bad_moment(registry: Registry, make: Make, point: str) -> None:
    registry.promote(registry.add(make("one")), "challenger")
    two = make("two")
    process = child(point, registry, two)
    process.communicate(timeout=60)
    assert process.returncode == -9
    entries, problems = read_log(registry.root)
    assert problems == []
    assert len(entries) == {"copying": 2, "before the head": 3, "before the link": 3}[point]
    assert registry.add(two, "1.1.0") == "1.1.0"  # the next change mends what is not whole
    assert failed(registry) == {}
    assert not list((registry.root / "bundles").glob(".*"))
    if point == "before the link":
        assert champion(registry) == "one"


def test_two_processes_do_not_lose_a_change(registry: Registry, make: Make) -> None:
    started = [child("", registry, make(f"b{i}")) for i in range(2)]
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert sorted(registry.state().versions) == ["1.0.0", "1.1.0"]
    assert failed(registry) == {}
    assert registry.entries()[0].prev == FIRST


def test_a_reader_between_the_two_files_of_a_writer_is_not_alarmed(
    registry: Registry, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workzone.registry import log

    registry.add(make("one"))
    text = (registry.root / LOG).read_text()
    registry.promote("1.0.0")
    whole = (registry.root / LOG).read_text()
    (registry.root / LOG).write_text(text)
    monkeypatch.setattr(log.time, "sleep", lambda _: (registry.root / LOG).write_text(whole))
    assert len(registry.entries()) == 2
