"""MLflow's registry on a real PostgreSQL: two writers, a crash, a wrong password, a database that never answers."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from promised import Make

from helpers.command import SOURCES, command, environment
from helpers.postgres import PASSWORD, Postgres
from workzone.errors import ConfigError
from workzone.registry.address import Link, mlflow_gate, registry_of, tell_mlflow
from workzone.registry.store import Registry

DRIVERS = [name for name in ("psycopg", "psycopg2") if find_spec(name)]
DRIVERS_PATH = {"PYTHONPATH": os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")])}
pytestmark = pytest.mark.slow  # a database is laid out, and MLflow alone takes seconds to import


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    if not DRIVERS:
        pytest.skip("no driver of PostgreSQL is installed: psycopg[binary] or psycopg2-binary")
    server = Postgres()
    yield server
    server.close()


@pytest.fixture(params=DRIVERS or ["none"])
def told(
    postgres: Postgres, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Registry:
    """A registry of one version that writes to the database, under a name of its own."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    registry = Registry(tmp_path / "registry")
    registry.promote(registry.add(make("one"), "1.0.0"))
    Link.parse(f"{postgres.uri.replace('://', f'+{request.param}://')}#{secrets.token_hex(4)}").keep(registry)
    return registry


def says(registry: Registry) -> list[str]:
    notes: list[str] = []
    tell_mlflow(registry, notes.append, apart=True)
    return notes


def test_versions_and_aliases_are_in_postgresql(postgres: Postgres, told: Registry, make: Make) -> None:
    assert says(told) == []
    assert mlflow_gate(told).passed is True
    link = Link.of(told)
    assert link is not None
    found = registry_of(f"{link.uri}#{link.name}", apart=True)
    assert found.root == told.root
    told.promote(told.add(make("two"), "1.1.0"))
    gate = mlflow_gate(told)
    assert gate.passed is False
    assert "1.1.0 is missing there" in gate.detail
    assert says(told) == []
    assert mlflow_gate(told).passed is True


def test_two_writers_at_once_make_each_version_once(
    postgres: Postgres, told: Registry, make: Make, tmp_path: Path
) -> None:
    made = [make(f"w{i}") for i in range(4)]
    words = [["registry", "add", str(b), "--version", f"2.0.{i}", "--root", str(told.root)] for i, b in enumerate(made)]
    env = {k: v for k, v in environment(**DRIVERS_PATH).items() if k != "WORKZONE_MLFLOW"}
    running = [
        subprocess.Popen(command(w), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for w in words
    ]
    for process in running:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        assert "not told" not in errors, errors
        assert "no gate has seen" not in errors, errors
    from workzone.registry.mlflow_mirror import client_of, versions_of

    link = Link.of(told)
    assert link is not None
    with client_of(link.uri) as client:
        versions = client.search_model_versions(f"name = '{link.name}'")
        assert set(versions_of(client, link.name)) == {"1.0.0", *(f"2.0.{i}" for i in range(4))}
    assert len(versions) == 5, "no version stands there twice"
    assert mlflow_gate(told).passed is True


def test_a_crash_leaves_the_log_right_and_can_be_repeated(
    postgres: Postgres, told: Registry, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from workzone.registry.mlflow_mirror import mirror

    assert says(told) == []
    told.promote(told.add(make("two"), "1.1.0"))
    link = Link.of(told)
    assert link is not None
    set_alias = MlflowClient.set_registered_model_alias

    def crash(self: MlflowClient, name: str, alias: str, version: str) -> None:
        set_alias(self, name, alias, version)
        postgres.kill()

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", crash)
    with pytest.raises(ConfigError, match="MLflow cannot be used") as caught:
        mirror(told, link.uri, link.name, note=pytest.fail)
    assert "\n" not in str(caught.value)
    started = time.monotonic()
    (note,) = says(told)
    assert time.monotonic() - started < 60
    assert "the registry itself has changed" in note
    assert "Connection refused" in note
    assert told.state().aliases["champion"] == "1.1.0"
    postgres.start()
    assert says(told) == [], "what it had said before it died is no change by others"
    assert mlflow_gate(told).passed is True


def test_a_wrong_password_is_told_at_once_and_never_shown(
    postgres: Postgres, told: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "not-that-one-7")
    started = time.monotonic()
    words = ["registry", "mlflow", "--root", str(told.root)]
    env = environment() | dict(os.environ)
    done = subprocess.run(command(words), env=env, capture_output=True, text=True, timeout=240, check=False)
    assert time.monotonic() - started < 60, "MLflow by itself tries for two minutes"
    assert done.returncode == 2
    assert "password authentication failed" in done.stderr
    assert "Traceback" not in done.stderr
    (note,) = says(told)
    for text in (done.stdout, done.stderr, note, mlflow_gate(told).detail):
        assert "not-that-one-7" not in text


def test_a_database_that_never_answers_does_not_hold_a_change(
    told: Registry, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workzone.registry import address

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        link = Link.of(told)
        assert link is not None
        Link.parse(f"{link.uri.rpartition(':')[0]}:{silent.getsockname()[1]}/postgres").keep(told)
        started = time.monotonic()
        (note,) = says(told)
        assert "timeout expired" in note
        assert time.monotonic() - started < 60
        # And where a connection stands and nothing comes back, the process that waits is ended.
        monkeypatch.setattr(address, "_SECONDS", 3.0)
        started = time.monotonic()
        (note,) = says(told)
        assert "did not answer within 3 s" in note
        assert time.monotonic() - started < 30
