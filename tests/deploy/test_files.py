"""The files of deploy/ parse, agree with each other, and name only what the program has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml")
pytest.importorskip("prometheus_client")

import typer
import yaml

from workzone.cli.main import app
from workzone.monitoring.prometheus import _HELP
from workzone.monitoring.void import mark_path
from workzone.registry.triton import kserve_yaml
from workzone.serving.gate import HEALTH
from workzone.serving.metrics import STATES, Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
YAML = sorted([*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml")])
USER = 10001
PORT = 8000
_NAME = re.compile(r"\bworkzone_[a-z_]+\b")
_LABELS = re.compile(r"\b(workzone_[a-z_]+)\{([^}]*)\}")


def load(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def exposed() -> dict[str, set[str]]:
    """Names of all series and their labels, as the server and the monitor write them."""
    found: dict[str, set[str]] = {name: set() for name in _HELP}
    metrics = Metrics()
    for metric in vars(metrics).values():
        labels = set(getattr(metric, "_labelnames", ()))
        if not hasattr(metric, "describe"):
            continue
        for family in metric.describe():
            ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}[family.type]
            found.update({f"{family.name}{end}": labels | ({"le"} if end == "_bucket" else set()) for end in ends})
    return found


def expressions() -> list[str]:
    rules = [r["expr"] for g in load("prometheus/rules.yml")["groups"] for r in g["rules"]]
    board = json.loads((DEPLOY / "grafana/dashboards/workzone.json").read_text())
    return rules + [t["expr"] for p in board["panels"] for t in p.get("targets", [])]


def options(words: list[str]) -> set[str]:
    """Options of the command that ``words`` name."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if word.startswith("-") or not hasattr(command, "commands"):
            break
        command = command.commands[word]
    return {name for p in command.params for name in p.opts}


def workloads() -> list[dict[str, Any]]:
    deployment = load("kubernetes/deployment.yaml")["spec"]["template"]["spec"]
    return [deployment, load("kserve/inferenceservice.yaml")["spec"]["predictor"]]


@pytest.mark.parametrize("path", YAML, ids=lambda p: p.relative_to(DEPLOY).as_posix())
def test_yaml_parses(path: Path) -> None:
    assert all(isinstance(d, dict) and d for d in yaml.safe_load_all(path.read_text()))


def test_enough_files_are_here() -> None:
    assert len(YAML) >= 14
    assert len(expressions()) >= 25


def test_every_figure_in_rules_and_dashboard_exists() -> None:
    known = exposed()
    assert "workzone_predictions_total" in known
    assert "workzone_promise_e_value" in known
    for text in expressions():
        assert "workzone_" in text or "up{" in text, text
        unknown = set(_NAME.findall(text)) - set(known)
        assert not unknown, f"{unknown} in {text}"
        for name, labels in _LABELS.findall(text):
            asked = set(re.findall(r"(\w+)\s*=", labels))
            if name not in _HELP:
                assert asked <= known[name], f"{name} has no {asked - known[name]}"


def test_values_of_labels_exist() -> None:
    sources = "".join(p.read_text() for p in (DEPLOY.parent / "src/workzone/serving").glob("*.py"))
    text = "\n".join(expressions())
    assert set(re.findall(r'state="(\w+)"', text)) <= set(STATES)
    assert set(re.findall(r'decision="(\w+)"', text)) <= {"abstain", "roadwork", "no_roadwork"}
    values = [v for group in re.findall(r'(?:code|part)=~?"([\w|]+)"', text) for v in group.split("|")]
    assert len(values) >= 4
    for value in values:
        assert f'"{value}"' in sources, value


def test_the_textfile_names_labels_that_rules_ask_for() -> None:
    source = (DEPLOY.parent / "src/workzone/monitoring/prometheus.py").read_text()
    asked = {label for t in expressions() for label in re.findall(r"by \(([^)]*)\)", t)}
    for label in {x.strip() for group in asked for x in group.split(",")} - {"le", "instance", "state", "status"}:
        served = label in {"decision", "code", "role", "outcome"}
        assert served or f"{label}=" in source or f'"{label}"' in source, label


def test_every_rule_can_be_routed() -> None:
    receivers = {r["name"] for r in load("alertmanager/alertmanager.yml")["receivers"]}
    for rule in (r for g in load("prometheus/rules.yml")["groups"] for r in g["rules"]):
        assert rule["labels"]["severity"] in receivers
        assert rule["annotations"]["summary"].endswith(".")


def test_the_commands_of_containers_exist() -> None:
    compose = load("compose.yaml")["services"]
    given = [compose["server"]["command"], compose["monitor"]["command"]]
    given += [w["containers"][0]["args"] for w in workloads()]
    for name in ("cpu", "cuda"):
        text = (DEPLOY / f"docker/Dockerfile.{name}").read_text()
        given.append(json.loads(re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)[-1]))
    assert len(given) == 6
    for words in given:
        asked = {w for w in words if w.startswith("--")}
        assert asked <= options(words), f"{asked - options(words)} of {words[0]}"
        if words[0] == "serve":
            assert words[words.index("--port") + 1] == str(PORT)
            assert "--api-key-file" in words, "a server for others asks for keys"


def test_ports_and_paths_agree() -> None:
    for work in workloads():
        box = work["containers"][0]
        assert [p["containerPort"] for p in box["ports"]] == [PORT]
        for name, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
            probe = box[name]["httpGet"]
            assert probe["path"] == path
            assert probe["path"] in HEALTH
            assert probe["port"] in (PORT, box["ports"][0]["name"])
        mounted = {m["mountPath"] for m in box["volumeMounts"]}
        assert str(Path(box["args"][box["args"].index("--api-key-file") + 1]).parent) in mounted
        assert {m["name"] for m in box["volumeMounts"]} <= {v["name"] for v in work["volumes"]}
    scrape = {s["job_name"]: s for s in load("prometheus/prometheus.yml")["scrape_configs"]}
    compose = load("compose.yaml")
    for job in scrape.values():
        host = job["static_configs"][0]["targets"][0].partition(":")[0]
        assert host in compose["services"]
    assert scrape["workzone"]["static_configs"][0]["targets"] == [f"server:{PORT}"]
    secret = scrape["workzone"]["authorization"]["credentials_file"].removeprefix("/run/secrets/")
    assert secret in compose["services"]["prometheus"]["secrets"]
    assert secret in compose["secrets"]


def test_compose_mounts_exist_and_jobs_are_known() -> None:
    compose = load("compose.yaml")
    for service in compose["services"].values():
        for mount in service.get("volumes", []):
            source = mount.partition(":")[0]
            if source.startswith("./") and source != "./state":
                assert (DEPLOY / source).exists(), source
            elif not source.startswith((".", "$")):
                assert source in compose["volumes"]
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
    jobs = {s["job_name"] for s in load("prometheus/prometheus.yml")["scrape_configs"]}
    assert set(re.findall(r'job="([\w-]+)"', "\n".join(expressions()))) <= jobs
    assert (DEPLOY / compose["services"]["server"]["build"]["dockerfile"].removeprefix("deploy/")).is_file()


def test_the_server_of_compose_is_checked_as_the_image_is() -> None:
    compose = load("compose.yaml")["services"]
    text = (DEPLOY / "docker/Dockerfile.cpu").read_text()
    (command,) = re.findall(r"^  CMD (\[.*\])$", text, re.MULTILINE)
    assert compose["server"]["healthcheck"]["test"] == ["CMD", *json.loads(command)]
    # A promotion must reach it, and the first who mounts a new volume may own it.
    assert "--registry" in compose["server"]["command"]
    assert compose["node-exporter"]["depends_on"] == ["monitor"]


def test_the_gpu_image_takes_the_version_that_was_tested() -> None:
    text = (DEPLOY / "docker/Dockerfile.cuda").read_text()
    assert "s/^onnxruntime==//p" in text
    pins = (DEPLOY.parent / "constraints.txt").read_text()
    assert len(re.findall(r"^onnxruntime==\d+\.\d+\.\d+$", pins, re.MULTILINE)) == 1


def test_marks_of_void_certificates_reach_the_pods() -> None:
    """A mark lies beside its bundle, so the folder above must be mounted."""
    (box,) = load("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["containers"]
    bundle = Path(box["args"][1])
    (mount,) = (m for m in box["volumeMounts"] if m["name"] == "bundles")
    assert mark_path(bundle).parent == Path(mount["mountPath"])
    assert "subPath" not in mount


def test_kubernetes_names_agree() -> None:
    labels = load("kubernetes/deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert load("kubernetes/deployment.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert load("kubernetes/service.yaml")["spec"]["selector"] == labels
    assert load("kubernetes/disruption.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert load("kubernetes/network.yaml")["spec"]["podSelector"]["matchLabels"] == labels
    target = load("kubernetes/autoscaler.yaml")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "workzone")
    service = load("kubernetes/service.yaml")
    for rule in load("kubernetes/ingress.yaml")["spec"]["rules"][0]["http"]["paths"]:
        backend = rule["backend"]["service"]
        assert backend["name"] == service["metadata"]["name"]
        assert backend["port"]["name"] == service["spec"]["ports"][0]["name"]
    resources = load("kubernetes/kustomization.yaml")["resources"]
    assert set(resources) == {p.name for p in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    claim = load("kubernetes/storage.yaml")["metadata"]["name"]
    assert claim in (DEPLOY / "kubernetes/deployment.yaml").read_text()


def test_containers_are_confined() -> None:
    for work in workloads():
        assert work["securityContext"]["runAsNonRoot"] is True
        assert work["securityContext"]["runAsUser"] == USER
        for box in work["containers"]:
            assert box["securityContext"]["readOnlyRootFilesystem"] is True
            assert box["securityContext"]["allowPrivilegeEscalation"] is False
            assert box["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert set(box["resources"]["limits"]) == {"cpu", "memory"}
    for name in ("cpu", "cuda"):
        text = (DEPLOY / f"docker/Dockerfile.{name}").read_text()
        assert re.search(rf"^USER {USER}:{USER}$", text, re.MULTILINE)
        assert "HEALTHCHECK" in text
        assert f":{PORT}/healthz" in text
    assert "UNTESTED" in (DEPLOY / "docker/Dockerfile.cuda").read_text()


def test_images_copy_what_exists() -> None:
    for path in (DEPLOY / "docker").iterdir():
        for line in re.findall(r"^COPY (?!--from)(.+)$", path.read_text(), re.MULTILINE):
            for source in line.split()[:-1]:
                assert (DEPLOY.parent / source).exists(), f"{path.name}: {source}"


def test_the_grace_of_kubernetes_is_longer_than_that_of_the_server() -> None:
    pod = load("kubernetes/deployment.yaml")["spec"]["template"]["spec"]
    words = pod["containers"][0]["args"]
    asked = sum(int(words[words.index(w) + 1]) for w in ("--drain-seconds", "--grace-seconds"))
    assert pod["terminationGracePeriodSeconds"] > asked


def test_the_kserve_file_is_what_the_command_writes() -> None:
    text = (DEPLOY / "kserve/inferenceservice.yaml").read_text()
    assert text == kserve_yaml("workzone", "workzone:cpu", "pvc://workzone-bundles/REPLACE-WITH-SHA256")
