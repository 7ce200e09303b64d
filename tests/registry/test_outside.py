"""What other programs see of the registry: MLflow, Triton, the server, the command line."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from promised import Make
from typer.testing import CliRunner

from helpers.command import command, environment
from workzone.bundle.schema import read_manifest
from workzone.cli.main import app
from workzone.errors import CheckFailedError, ConfigError, WorkzoneError
from workzone.registry.address import Link, mlflow_gate, registry_of, tell_mlflow
from workzone.registry.store import Registry
from workzone.registry.triton import kserve_yaml, write_triton
from workzone.serving.checklist import Given, checklist

KEY = "0123456789abcdef0123"


@pytest.mark.slow  # MLflow takes half a minute to lay out its database
def test_mlflow_has_the_same_versions_and_aliases(registry: Registry, make: Make, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    pytest.importorskip("sqlalchemy", reason="MLflow's store needs sqlalchemy")
    from mlflow import MlflowClient

    from workzone.registry.mlflow_mirror import mirror

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for name in ("one", "two"):
        registry.promote(registry.add(make(name)))
    first = mirror(registry, uri)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    champion = client.get_model_version_by_alias("workzone", "champion")
    assert champion.tags["workzone.version"] == "1.1.0"
    assert champion.tags["workzone.bundle_sha256"] == registry.state().versions["1.1.0"]
    registry.rollback("worse")
    assert mirror(registry, uri) == first, "repeating adds no version"
    assert client.get_model_version_by_alias("workzone", "champion").tags["workzone.version"] == "1.0.0"
    assert set(client.get_registered_model("workzone").aliases) == {"champion"}
    with pytest.raises(ConfigError, match="no name"):
        mirror(registry, uri, "a' OR '1")


@pytest.mark.slow  # as above, and a process of its own for each question
def test_the_command_line_keeps_mlflow_in_step(make: Make, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    pytest.importorskip("sqlalchemy", reason="MLflow's store needs sqlalchemy")
    from mlflow import MlflowClient

    root = str(tmp_path / "registry")
    told = f"sqlite:///{root}/mlflow.db"  # by default, beside the log

    def run(*words: str, code: int = 0, root: str = root) -> str:
        done = CliRunner().invoke(app, ["registry", *words, "--root", root], env={"WORKZONE_MLFLOW": None})
        assert done.exit_code == code, (done.output, done.exception)
        return f"{done.output}{done.exception or ''}"

    def aliases() -> dict[str, str]:
        client = MlflowClient(tracking_uri=told, registry_uri=told)
        held = client.get_registered_model("workzone").aliases
        return {a: client.get_model_version("workzone", v).tags["workzone.version"] for a, v in held.items()}

    for name in ("one", "two"):
        run("add", str(make(name)))
    run("promote", "1.0.0")
    run("promote", "1.1.0", "--to", "challenger")
    assert aliases() == {"champion": "1.0.0", "challenger": "1.1.0"}
    run("promote", "challenger")
    assert aliases() == {"champion": "1.1.0", "previous": "1.0.0"}
    assert "two" in run("list", root=told), "the address of MLflow leads to the registry"
    assert "says what the log says" in run("verify")

    client = MlflowClient(tracking_uri=told, registry_uri=told)
    client.set_registered_model_alias("workzone", "champion", "1")  # past every gate
    assert "champion is 1.0.0 there, 1.1.0 in the log" in run("verify", code=3)
    assert registry_of(root).folder("champion").name == registry_of(root).state().versions["1.1.0"]
    for apart in (False, True):
        with pytest.raises(WorkzoneError, match="does not say what the log says"):
            registry_of(told, apart=apart)
    assert "called 1.0.0 champion, which no gate has seen" in run("rollback", "--reason", "worse")
    assert aliases() == {"champion": "1.0.0"}
    assert registry_of(told, apart=True).root == Path(root)

    other = tmp_path / "other"
    Registry(other).add(make("three"), "7.0.0")
    assert "belongs to another registry" in run("mlflow", "--uri", told, code=1, root=str(other))
    assert "7.0.0: mine version 1" in run("mlflow", "--uri", told, "--name", "mine", root=str(other))
    assert registry_of(f"{told}#mine").root == other
    run("mlflow", "--uri", "off", root=str(other))
    assert mlflow_gate(Registry(other)).passed is None


@pytest.mark.slow  # MLflow alone takes seconds to import
def test_what_cannot_be_told_is_said(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = Registry(tmp_path / "registry")
    registry.add(make())
    Link.parse(f"http://127.0.0.1:{_free_port()}").keep(registry)
    notes: list[str] = []
    assert tell_mlflow(registry, notes.append) == {}
    assert "the registry itself has changed" in notes[0]
    assert mlflow_gate(registry).passed is False


def test_an_address_of_mlflow_is_read_with_care(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="password"):
        Link.parse("postgresql://me:secret@db/workzone")
    for word in ("postgres://me:secret@db/workzone", "postgresql://db/workzone?password=secret", "http://a:secret@m"):
        for read in (Link.parse, registry_of):
            with pytest.raises(ConfigError, match="password must not") as caught:
                read(word)
            assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="no address"):
        Link.parse("ftp://db/workzone")
    with pytest.raises(ConfigError, match="no name"):
        Link.parse("sqlite:///a.db#a' OR '1")
    assert Link.parse("postgresql://me@db/workzone#streets") == Link("postgresql://me@db/workzone", "streets")
    with pytest.raises(ConfigError, match="no such database"):
        registry_of(f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists(), "asking makes no database"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_load_test_is_a_gate(make: Make, tmp_path: Path) -> None:
    registry, report = Registry(tmp_path / "registry"), tmp_path / "load.json"
    bundle = make()
    sha = read_manifest(bundle).sha256
    registry.add(bundle, "1.0.0")
    values = {
        "created": "2026-11-22T00:00:00+00:00", "url": "http://127.0.0.1:1", "bundle_sha256": sha, "users": 2,
        "pause": 0, "seconds": 60, "statuses": {"200": 2000}, "p50": 20, "p95": 30, "p99": 900, "slowest": 1000,
        "limit_p99": 500, "limit_failed": 0,
    }  # fmt: skip

    def promote(code: int, **changed: object) -> str:
        report.write_text(json.dumps(values | changed))
        words = ["registry", "promote", "1.0.0", "--load-test", str(report), "--root", str(registry.root)]
        done = CliRunner().invoke(app, words)
        said = f"{done.output} {done.exception or ''}"
        assert (done.exit_code == 0) == (code == 0), said
        return said

    assert "load test: p99 is 900 ms, the limit 500 ms" in promote(3)
    assert "it tested bundle" in promote(3, p99=20, bundle_sha256="0" * 64)
    assert "900 requests" in promote(3, p99=20, statuses={"200": 900})
    assert registry.state().aliases == {}
    assert "ok     load test: 2000 requests in 60 s" in promote(0, p99=20)
    assert registry.entries()[-1].values["gates"][-1]["name"] == "load test"


def test_triton_has_the_network_and_its_signature(tiny_bundle: Path, tmp_path: Path) -> None:
    import onnxruntime as ort

    written = write_triton(tiny_bundle, tmp_path / "models", instances=2)
    assert len(written) == 4
    for part in ("backbone", "head"):
        folder = next((tmp_path / "models").glob(f"*_{part}"))
        assert (folder / "1/model.onnx").read_bytes() == (tiny_bundle / f"engine/{part}.onnx").read_bytes()
        text = (folder / "config.pbtxt").read_text()
        assert f'name: "{folder.name}"' in text
        assert text.count("{") == text.count("}")
        assert text.count("[") == text.count("]")
        session = ort.InferenceSession(str(folder / "1/model.onnx"), providers=["CPUExecutionProvider"])
        for kind, found in (("input", session.get_inputs()), ("output", session.get_outputs())):
            assert re.findall(rf'^{kind} \[ {{ name: "(\w+)"', text, re.MULTILINE) == [t.name for t in found]
        assert "count: 2" in text
    assert 'name: "log_odds" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }' in text
    assert (
        "TYPE_UINT8 dims: [ 64, 64, 3 ]"
        in (next((tmp_path / "models").glob("*_backbone")) / "config.pbtxt").read_text()
    )
    with pytest.raises(ConfigError, match="already there"):
        write_triton(tiny_bundle, tmp_path / "models")


def test_triton_refuses_a_damaged_bundle(make: Make, tmp_path: Path) -> None:
    bundle = make("one")
    (bundle / "policy.json").write_text("{}")
    with pytest.raises(CheckFailedError):
        write_triton(bundle, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("words", [("A b", "i", "s"), ("a", "i\nx: y", "s"), ("a", "i", 's"\n')])
def test_kserve_takes_no_yaml_from_outside(words: tuple[str, str, str]) -> None:
    with pytest.raises(ConfigError):
        kserve_yaml(*words)


def rows(given: Given) -> dict[str, bool | None]:
    return {g.name: g.passed for g in checklist(given)}


def test_what_is_not_given_has_failed(make: Make) -> None:
    found = rows(Given(make("one")))
    assert found["bundle verifies"] is True
    assert found["parity"] is True
    for name in ("certificate", "limits of the use", "API keys", "monitoring reference", "registry", "server"):
        assert found[name] is False, name


def test_keys_limits_and_registry_are_checked(registry: Registry, make: Make, tmp_path: Path) -> None:
    bundle = make("one", alpha=0.05)
    registry.promote(registry.add(bundle))
    keys = tmp_path / "keys"
    keys.write_text(f"client {KEY}\n")
    keys.chmod(0o600)
    given = Given(bundle, {"false_negative_rate": 0.05}, keys=keys, registry=registry.root)
    found = rows(given)
    assert found["certificate"] is True
    assert found["limits of the use"] is True
    assert found["registry"] is True
    assert found["API keys"] is False, "plain text"
    keys.write_text(f"client sha256:{hashlib.sha256(KEY.encode()).hexdigest()}\n")
    assert rows(given)["API keys"] is True
    keys.chmod(0o644)
    assert rows(given)["API keys"] is False, "open to others"
    assert rows(Given(bundle, {"false_negative_rate": 0.01}))["limits of the use"] is False
    assert rows(Given(make("two"), registry=registry.root))["registry"] is False


def test_the_running_server_is_asked(registry: Registry, make: Make, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="the server is not installed")
    pytest.importorskip("fastapi", reason="the server is not installed")
    registry.promote(registry.add(make("one", alpha=0.05)))
    keys = tmp_path / "keys"
    keys.write_text(f"client {KEY}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, champion = f"http://127.0.0.1:{port}", registry.root / "aliases/champion"
    words = ["serve", champion, "--port", str(port), "--api-key-file", keys, "--drain-seconds", "0", "--threads", "1"]
    with subprocess.Popen(command(words), env=environment(), stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"{url}/healthz", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            found = rows(Given(champion, url=url, key=KEY))
            server_rows = {k: v for k, v in found.items() if k.startswith("server")}
            assert len(server_rows) == 5
            assert set(server_rows.values()) == {True}
            assert rows(Given(champion, url=url, key="wrong"))["server figures"] is False
            assert rows(Given(make("two"), url=url, key=KEY))["server has this bundle"] is False
        finally:
            server.terminate()
    assert rows(Given(champion, url=url))["server lives"] is False
    assert rows(Given(champion, url="file:///etc/passwd"))["server lives"] is False


def test_commands(make: Make, tmp_path: Path) -> None:
    root = tmp_path / "registry"
    one, two = make("one", alpha=0.05), make("two", alpha=0.2)
    at = ["--root", str(root)]
    lines = [
        ["registry", "add", str(one), *at],
        ["registry", "promote", "1.0.0", *at],
        ["registry", "add", str(two), *at],
        ["registry", "promote", "1.1.0", *at],
        ["registry", "promote", "1.1.0", "--force", "tried", *at],
        ["registry", "rollback", "--reason", "worse", *at],
        ["registry", "list", "--json", *at],
        ["registry", "show", "champion", *at],
        ["registry", "verify", *at],
        ["registry", "verify", "--head", "f" * 64, *at],
        ["registry", "assign", "request-1", "--share", "1"],
        ["registry", "power", "0.05", "0.1", "--json"],
        ["registry", "promote", "1.0.0", "--limit", "nonsense", *at],
        ["registry", "kserve", "--storage", "pvc://b/1"],
        ["checklist", str(one)],
    ]
    found = []
    for words in lines:
        done = CliRunner().invoke(app, words)
        found.append((getattr(done.exception, "exit_code", done.exit_code), done.output))
    assert [code for code, _ in found] == [0, 0, 0, 3, 0, 0, 0, 0, 0, 3, 0, 0, 2, 0, 3]
    assert found[0][1].startswith("Version 1.0.0")
    listed = json.loads(found[6][1])
    assert [(r["version"], r["aliases"]) for r in listed] == [("1.0.0", ["champion"]), ("1.1.0", [])]
    assert [e["event"] for e in json.loads(found[7][1])["history"]] == ["add", "promote", "rollback"]
    assert found[10][1] == "challenger\n"
    assert json.loads(found[11][1])["split"] > 100
