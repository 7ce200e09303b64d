"""The programs that will read the files of deploy/ accept them, and do what the files say."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
pytest.importorskip("prometheus_client")

DEPLOY = Path(__file__).parents[2] / "deploy"


def tool(name: str) -> str:
    """A program from the PATH or the environment of the tests; skips where it is nowhere."""
    found = shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(words: list[str], folder: Path = DEPLOY) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_accepts_configuration_and_rules(tmp_path: Path) -> None:
    promtool = tool("promtool")
    shutil.copytree(DEPLOY / "prometheus", tmp_path / "prometheus")
    config, secret = tmp_path / "prometheus/prometheus.yml", tmp_path / "secret"
    secret.write_text("k" * 32)
    config.write_text(config.read_text().replace("/run/secrets/workzone-prometheus", str(secret)))
    assert "rules found" in run([promtool, "check", "config", str(config)])
    assert "rules found" in run([promtool, "check", "rules", "prometheus/rules.yml"])


def test_every_rule_is_silent_and_fires_when_it_should() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())["groups"]
    names = {r["alert"] for group in rules for r in group["rules"]}
    tests = yaml.safe_load((DEPLOY / "prometheus/rules_test.yml").read_text())["tests"]
    asked = [a for test in tests for a in test["alert_rule_test"]]
    assert {a["alertname"] for a in asked if a["exp_alerts"]} == names
    assert {a["alertname"] for a in asked if not a["exp_alerts"]} == names
    assert "SUCCESS" in run([tool("promtool"), "test", "rules", "prometheus/rules_test.yml"])


def test_promtool_fails_on_a_rule_that_never_fires(tmp_path: Path) -> None:
    promtool = tool("promtool")
    shutil.copytree(DEPLOY / "prometheus", tmp_path / "p")
    path = tmp_path / "p/rules.yml"
    path.write_text(path.read_text().replace("workzone_queue_depth) > 48", "workzone_queue_depth) > 480"))
    words = [promtool, "test", "rules", "rules_test.yml"]
    assert subprocess.run(words, cwd=path.parent, capture_output=True, check=False).returncode != 0


def test_amtool_accepts_the_routes() -> None:
    amtool = tool("amtool")
    routes = "alertmanager/alertmanager.yml"
    assert "SUCCESS" in run([amtool, "check-config", routes])
    for severity in ("page", "ticket"):
        words = [amtool, "config", "routes", "test", f"--config.file={routes}", f"severity={severity}"]
        assert run(words).splitlines()[0] == severity


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_hadolint_finds_nothing(name: str) -> None:
    assert run([tool("hadolint"), f"docker/Dockerfile.{name}"]).strip() == ""


def test_kubernetes_accepts_the_manifests() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    files = sorted(f for f in (DEPLOY / "kubernetes").glob("*.yaml") if f.name != "kustomization.yaml")
    assert len(files) == 8
    for path in files:
        for document in yaml.safe_load_all(path.read_text()):
            validate.validate(document, validate.latest_version(), strict=True)
    with pytest.raises(validate.ValidationError):
        validate.validate({**document, "spcc": {}}, validate.latest_version(), strict=True)


@pytest.mark.parametrize("folder", ["kubernetes", "kubernetes-queue"])
def test_kustomize_builds_what_kubernetes_accepts(folder: str) -> None:
    from workzone.serving.metrics import Metrics

    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    built = [d for d in yaml.safe_load_all(run([tool("kubectl"), "kustomize", folder])) if d]
    assert len(built) == 8
    for document in built:
        validate.validate(document, validate.latest_version(), strict=True)
    (scaler,) = (d for d in built if d["kind"] == "HorizontalPodAutoscaler")
    asked = [m["pods"]["metric"]["name"] for m in scaler["spec"]["metrics"] if m["type"] == "Pods"]
    assert asked == (["workzone_queue_depth"] if folder == "kubernetes-queue" else [])
    (rule,) = yaml.safe_load((DEPLOY / "kubernetes-queue/adapter.yaml").read_text())["rules"]["custom"]
    assert rule["name"]["as"] in {m.name for m in Metrics().registry.collect()}
    assert rule["seriesQuery"].startswith("workzone_queue_depth{")


def test_the_pod_of_kserve_is_one() -> None:
    """KServe hands the predictor, less its own keys, to Kubernetes as a pod; its own schema is not checked."""
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    predictor = yaml.safe_load((DEPLOY / "kserve/inferenceservice.yaml").read_text())["spec"]["predictor"]
    pod = {k: v for k, v in predictor.items() if k not in ("minReplicas", "maxReplicas")}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "workzone"}, "spec": pod}
    validate.validate(document, validate.latest_version(), strict=True)


def test_compose_accepts_its_file(tmp_path: Path) -> None:
    docker = tool("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker has no compose plugin")
    words = [docker, "compose", "-f", "compose.yaml", "config", "--quiet"]
    environment = {"WORKZONE_REGISTRY": str(tmp_path)}
    done = subprocess.run(words, cwd=DEPLOY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_dashboard_is_what_the_program_makes() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="grafana-foundation-sdk is not installed")
    program = DEPLOY.parent / "tools/make_dashboard.py"
    run([sys.executable, str(program), "--check"])
    board = json.loads((DEPLOY / "grafana/dashboards/workzone.json").read_text())
    ids = [p["id"] for p in board["panels"]]
    assert len(ids) == len(set(ids)) >= 17
    places = [p["gridPos"] for p in board["panels"]]
    for i, a in enumerate(places):
        for b in places[i + 1 :]:
            beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
            assert beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], "panels overlap"


@pytest.mark.slow
@pytest.mark.e2e
def test_prometheus_scrapes_a_running_server(tmp_path: Path) -> None:
    prometheus = tool("prometheus")
    pytest.importorskip("httpx2")
    from helpers.server import Running
    from workzone.bundle.starter import starter_bundle

    key, bundle = "k" * 32, starter_bundle()
    assert bundle is not None
    (tmp_path / "keys").write_text(f"prometheus {key}\n")
    (tmp_path / "secret").write_text(key)
    server = Running([str(bundle), "--api-key-file", str(tmp_path / "keys")], tmp_path / "errors.txt")
    shutil.copy(DEPLOY / "prometheus/rules.yml", tmp_path)
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    del config["alerting"]
    config["scrape_configs"] = [c for c in config["scrape_configs"] if c["job_name"] == "workzone"]
    config["scrape_configs"][0]["authorization"]["credentials_file"] = str(tmp_path / "secret")
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{server.port}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def ask(path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def value(query: str) -> float | None:
        found = ask("query?" + urllib.parse.urlencode({"query": query}))["result"]
        return float(found[0]["value"][1]) if found else None

    words = [prometheus, "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    words.append(f"--web.listen-address=127.0.0.1:{port}")
    with (tmp_path / "prometheus.txt").open("w") as log:
        process = subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log)
    try:
        for _ in range(3):
            answer = server.ask((bundle / "golden" / "00.jpg").read_bytes(), Authorization=f"Bearer {key}")
            assert answer.status_code == 200
        wait_for(lambda: value("sum(workzone_predictions_total)") == 3.0)
        assert value('up{job="workzone"}') == 1.0
        assert value('workzone_certificate{state="void"}') == 0.0
        assert value('histogram_quantile(0.99, sum by (le) (workzone_seconds_bucket{part="total"}))') is not None
        queries = {r["name"]: r for g in ask("rules")["groups"] for r in g["rules"]}
        assert len(queries) >= 12
        wait_for(lambda: all(r["health"] == "ok" for g in ask("rules")["groups"] for r in g["rules"]))
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        wait_for(lambda: value('up{job="workzone"}') == 0.0)
        # Rules are judged at their own interval, after the scrape that failed.
        wait_for(lambda: "WorkzoneDown" in {a["labels"]["alertname"] for a in ask("alerts")["alerts"]})
        (down,) = (a for a in ask("alerts")["alerts"] if a["labels"]["alertname"] == "WorkzoneDown")
        assert down["state"] in ("pending", "firing")
    finally:
        process.terminate()
        process.wait(30)
        server.stop()


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):  # it does not listen yet
            if condition():
                return
        assert time.monotonic() < limit
        time.sleep(0.3)
