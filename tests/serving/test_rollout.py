from __future__ import annotations

import gc
import hashlib
import json
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from workzone.decisions import Decision
from workzone.decisions.policies.threshold import ThresholdPolicy
from workzone.errors import ConfigError
from workzone.monitoring.void import mark_path, write_mark
from workzone.registry.ab import judge
from workzone.registry.address import registry_of
from workzone.registry.shadow import compare
from workzone.registry.split import assign
from workzone.registry.store import Registry
from workzone.serving.log import Row, connect, read_log, write_rows
from workzone.serving.metrics import Metrics
from workzone.serving.model import Model
from workzone.serving.review import Kept, ReviewStore
from workzone.serving.roles import Roles
from workzone.serving.rollout import Judge
from workzone.serving.service import Service
from workzone.serving.settings import ServeSettings
from workzone.serving.shadow import Shadow, Task

Start = Callable[..., TestClient]
RAW = {"Content-Type": "application/octet-stream"}
BOTH = frozenset({"roadwork", "no_roadwork"})


def with_thresholds(model: Model, low: float, high: float) -> Model:
    policy = ThresholdPolicy.from_parameters(model.detector.policy.parameters())
    policy.low, policy.high = replace(policy.low, threshold=low), replace(policy.high, threshold=high)
    manifest = model.detector.manifest.model_copy(update={"sha256": "c" * 64})
    return Model(replace(model.detector, policy=policy, manifest=manifest))


@pytest.fixture
def second(model: Model) -> Model:
    """A bundle that answers roadwork to everything."""
    return with_thresholds(model, 0.0, 0.0)


@pytest.fixture
def pair(tiny_bundle: Path, model: Model, second: Model, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in whose place the second model is opened."""
    folder, load = Path("second"), Model.load
    monkeypatch.setattr(Model, "load", lambda f, **how: second if f == folder else load(f, **how))
    return folder


def ask(client: TestClient, picture: bytes, name: str, **headers: str) -> dict[str, Any]:
    answer = client.post("/v1/predict", content=picture, headers={**RAW, "X-Request-ID": name, **headers})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert answer.headers["X-Workzone-Role"] == told["bundle"]["role"]
    assert answer.headers["X-Workzone-Bundle"] == told["bundle"]["sha256"][:12]
    return told


def test_the_split_is_that_of_the_registry_and_every_answer_names_its_bundle(
    start: Start, model: Model, second: Model, pair: Path, picture: bytes, tmp_path: Path
) -> None:
    client = start(challenger=str(pair), share=0.4, salt="one", log_db=tmp_path / "log.db")
    names = [f"r{i}" for i in range(24)]
    told = [ask(client, picture, name) for name in names]
    expected = [assign(name, 0.4, "one") for name in names]
    assert 4 <= expected.count("challenger") <= 16
    assert [t["bundle"]["role"] for t in told] == expected
    assert {t["bundle"]["sha256"] for t in told} == {model.sha256, second.sha256}
    assert all(t["decision"] == "roadwork" for t in told if t["bundle"]["role"] == "challenger")
    text = client.get("/metrics").text
    count = expected.count("challenger")
    assert f'workzone_predictions_total{{decision="roadwork",role="challenger"}} {float(count)}' in text
    assert "workzone_challenger_share 0.4" in text
    assert f'role="challenger"}} {float(count)}' in text.split("workzone_role_seconds_count")[-1]
    client.app.state.service.log.close()
    log = read_log(tmp_path / "log.db")
    assert log.columns["role"].tolist() == expected
    assert log.columns["bundle_sha256"].tolist() == [t["bundle"]["sha256"] for t in told]


def test_a_sequence_stays_with_one_bundle(start: Start, pair: Path, picture: bytes, tmp_path: Path) -> None:
    client = start(challenger=str(pair), share=0.5, log_db=tmp_path / "log.db")
    for drive in ("d1", "d2", "d3", "d4"):
        told = [ask(client, picture, f"{drive}-{i}", **{"X-Sequence-ID": drive}) for i in range(3)]
        assert {t["bundle"]["role"] for t in told} == {assign(drive, 0.5)}
    bad = client.post("/v1/predict", content=picture, headers={**RAW, "X-Sequence-ID": "a b"})
    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "bad_sequence")
    client.app.state.service.log.close()
    logged = read_log(tmp_path / "log.db").columns["sequence"].tolist()
    assert logged == [d for d in ("d1", "d2", "d3", "d4") for _ in "123"]


def test_v2_splits_by_sequence_and_a_version_names_the_bundle(
    start: Start, model: Model, second: Model, pair: Path, picture: bytes
) -> None:
    import base64

    client = start(challenger=str(pair), share=0.5)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(picture).decode()]}
    path = f"/v2/models/{model.name}"
    drive = next(f"d{i}" for i in range(99) if assign(f"d{i}", 0.5) == "challenger")
    told = client.post(f"{path}/infer", json={"inputs": [tensor], "parameters": {"sequence_id": drive}}).json()
    assert told["parameters"]["role"] == "challenger"
    assert told["model_version"] == second.sha256[:12]
    for held in (model, second):
        told = client.post(f"{path}/versions/{held.sha256[:12]}/infer", json={"inputs": [tensor]}).json()
        assert (told["model_version"], told["parameters"]["role"]) == (held.sha256[:12], "pinned")
    assert sorted(client.get(path).json()["versions"]) == sorted([model.sha256[:12], second.sha256[:12]])


def test_the_shadow_answers_nobody_and_is_compared(
    start: Start, model: Model, pair: Path, picture: bytes, tmp_path: Path
) -> None:
    client = start(shadow=str(pair), shadow_seconds=300, log_db=tmp_path / "log.db")
    told = [ask(client, picture, f"r{i}") for i in range(6)]
    assert {t["bundle"]["sha256"] for t in told} == {model.sha256}
    service = client.app.state.service
    service.shadow.flush()
    about = client.get("/v1/rollout").json()["shadow"]
    assert about["compared"] == 6
    differ = told[0]["decision"] != "roadwork"
    assert about["opposite"] + about["differ"] == (6 if differ else 0)
    assert about["mean_absolute_difference"] == pytest.approx(0.0, abs=1e-9)
    service.shadow.close()
    service.log.close()
    path = tmp_path / "log.db"
    assert len(read_log(path)) == 6
    assert read_log(path, roles=("shadow",)).columns["decision"].tolist() == ["roadwork"] * 6
    found = compare(path, path, roles=("champion", "shadow"))
    assert (found.n, found.decisions.events) == (6, 6 if differ else 0)


class Slow:
    """A model whose answers wait for a signal."""

    sha256 = "d" * 64

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()

    def state(self) -> str:
        return "certified"

    def answer(self, content: bytes, **_: Any) -> Any:
        self.begun.set()
        assert self.go.wait(20)
        return SimpleNamespace(decision=Decision("roadwork", 0.9, 2.0, frozenset({"roadwork"}), ""), embedding=None)


def task(i: int) -> Task:
    given = Decision("no_roadwork", 0.1, -2.0, frozenset({"no_roadwork"}), "")
    return Task(b"x", {}, f"r{i}", 0, "", "", given, "champion")


def test_what_the_shadow_cannot_take_is_dropped_and_counted(capfd: pytest.CaptureFixture[str]) -> None:
    metrics, slow = Metrics(), Slow()
    shadow = Shadow(
        lambda: slow, metrics, None, lambda: False, size=2, seconds=30.0, max_pixels=1, embeddings=False  # type: ignore[arg-type, return-value]
    )
    shadow.submit(task(0))
    assert slow.begun.wait(10)
    began = time.monotonic()
    for i in range(1, 6):
        shadow.submit(task(i))
    assert time.monotonic() - began < 1.0  # whoever hands over never waits
    assert shadow.counts["dropped"] == 3
    slow.go.set()
    shadow.flush()
    shadow.close()
    assert shadow.counts["opposite"] == 3
    assert 'workzone_shadow_total{outcome="dropped"} 3.0' in metrics.text().decode()
    lines = [json.loads(x) for x in capfd.readouterr().err.splitlines() if x.startswith("{")]
    assert [x["request_id"] for x in lines if x["event"] == "shadow"] == ["r0", "r1", "r2"]


def test_the_shadow_waits_for_the_clients_and_gives_up_in_time() -> None:
    metrics, slow = Metrics(), Slow()
    slow.go.set()
    shadow = Shadow(
        lambda: slow, metrics, None, lambda: True, size=4, seconds=0.05, max_pixels=1, embeddings=False  # type: ignore[arg-type, return-value]
    )
    for i in range(3):
        shadow.submit(task(i))
    shadow.flush()
    shadow.close()
    assert shadow.counts == {"late": 3}
    assert not slow.begun.is_set()


def decided(label: str) -> Decision:
    return Decision(label, 0.5, 0.0, BOTH, "")  # type: ignore[arg-type]


def fill(store: ReviewStore, champion: str, challenger: str, *, n: int = 40, share: float = 1.0) -> None:
    """Pictures of roadwork; the challenger misses 8 of 10, the champion none."""
    for i in range(n):
        role = "challenger" if i % 2 else "champion"
        label = "no_roadwork" if role == "challenger" and i % 10 != 1 else "roadwork"
        content = b"%d" % i
        kept = Kept(f"r{i}", challenger if i % 2 else champion, 0, role, "", share)
        store.keep(content, decided(label), kept)
        if share == 1.0 or label == "abstain":
            store.label(hashlib.sha256(content).hexdigest(), "ann", "roadwork")


def test_a_challenger_that_harms_is_stopped_and_stays_stopped(
    start: Start, model: Model, second: Model, pair: Path, picture: bytes, tmp_path: Path
) -> None:
    settings = {"challenger": str(pair), "share": 1.0, "keep_abstained": tmp_path / "keep", "keep_share": 1.0}
    client = start(**settings)
    assert ask(client, picture, "a")["bundle"]["role"] == "challenger"
    service = client.app.state.service
    service.review.flush()
    fill(service.review, model.sha256, second.sha256)
    service.judge()
    assert ask(client, picture, "b")["bundle"]["role"] == "champion"
    told = client.get("/v1/rollout").json()
    assert "e-value" in told["challenger"]["stopped"]
    assert told["labels"]["e_worse"] >= told["labels"]["stop_at"] == 20
    assert "workzone_challenger_stopped 1.0" in client.get("/metrics").text
    again = start(**settings)
    assert ask(again, picture, "c")["bundle"]["role"] == "champion"


def test_an_equal_challenger_and_an_unsampled_one_go_on(model: Model, second: Model, tmp_path: Path) -> None:
    settings = ServeSettings(bundle=tmp_path, challenger="b", share=0.5)
    for name, share in (("equal", 1.0), ("unsampled", 0.0)):
        roles = Roles(settings, Metrics(), model, challenger=second)
        store = ReviewStore(tmp_path / name, max_bytes=10**6)
        fill(store, model.sha256, model.sha256 if name == "equal" else second.sha256, share=share)
        Judge(store, roles, event="wrong", delta=0.05)()
        assert not roles.stopped


def registry_with(tmp_path: Path, bundle: Path) -> tuple[Registry, Path]:
    """A registry with a champion and a challenger of another hash."""
    from workzone.bundle import schema
    from workzone.files import read_json, write_atomic

    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    values = {k: v for k, v in read_json(other / schema.MANIFEST).items() if k != "sha256"}
    values["name"] = "other"
    write_atomic(other / schema.MANIFEST, schema.seal(values))
    registry = Registry(tmp_path / "registry")
    registry.add(bundle, "1.0.0")
    registry.add(other, "1.1.0")
    registry.promote("1.0.0", force="test")
    registry.promote("1.1.0", "challenger", force="test")
    return registry, other


def test_aliases_are_followed_without_a_restart(tiny_bundle: Path, tmp_path: Path) -> None:
    registry, _ = registry_with(tmp_path, tiny_bundle)
    settings = ServeSettings(
        bundle=Path("champion"), registry=registry.root.as_uri(), challenger="challenger", share=0.5, threads=1
    )
    roles = Roles.open(settings, Metrics())
    assert (roles.champion.name, roles.challenger is not None and roles.challenger.name) != ("other", "other")
    assert roles.challenger is not None
    roles.stop("it harms")
    assert "challenger" not in registry.state().aliases
    assert registry.entries()[-1].values["reason"] == "it harms"
    roles.check()
    assert roles.challenger is None
    service = Service.open(settings, roles=roles)
    before = weakref.ref(roles.champion.detector.engine)
    registry.promote("1.1.0", force="test")
    roles.check()
    assert roles.champion.name == service.model.name == "other"
    gc.collect()
    assert before() is None, "the bundle that serves no more is still in memory"
    write_mark(mark_path(roles.champion.detector.folder), roles.champion.sha256, ["too many misses"], [{"e": 25.0}])
    assert registry.rollback("monitor", only_if_void=True) == "1.0.0"
    roles.check()
    assert roles.champion.name != "other"
    assert roles.champion.state() != "void"
    (registry.root / "log.jsonl").write_text("broken\n")
    roles.check()
    assert roles.champion.state() == "void"
    assert "registry" in roles.champion.certificate()["sentence"]


def test_a_void_challenger_gets_nothing(tiny_bundle: Path, model: Model, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    roles = Roles.open(ServeSettings(bundle=tiny_bundle, challenger=str(folder), share=1.0), Metrics(), model)
    assert roles.pick("x").role == "challenger"
    write_mark(mark_path(folder), model.sha256, ["too many misses"], [{"e": 25.0}])
    roles.check()
    assert roles.pick("x").role == "champion"
    assert "void" in roles.stopped
    assert roles.champion.state() != "void"


def test_wrong_use_is_refused(tmp_path: Path) -> None:
    for values in ({"challenger": "b"}, {"share": 0.5}, {"keep_share": 0.5}):
        with pytest.raises(ValueError, match=r"challenger|keep_share"):
            ServeSettings(bundle=tmp_path, **values)
    with pytest.raises(ConfigError, match="folder"):
        registry_of("ftp://example.org/registry")


def test_the_log_of_the_server_is_judged_by_role(tmp_path: Path) -> None:
    store, path = ReviewStore(tmp_path / "keep", max_bytes=10**6), tmp_path / "log.db"
    fill(store, "a" * 64, "b" * 64)
    rows = [
        Row(float(i), s.id[:-2], 0, s.bundle_sha256, "certified", 0.0, 0.5, s.decision, "", "{}", 1, "{}", None, s.role)
        for i, s in enumerate(store.settled())
    ]
    with closing(connect(path)) as db:
        write_rows(db, rows)
    (tmp_path / "keep/manifest.csv").write_text(store.export())
    found = judge(path, path, tmp_path / "keep/manifest.csv", roles=("champion", "challenger"))
    assert (found.mode, found.verdict) == ("split", "challenger worse")
    assert (found.champion.events, found.challenger.events) == (0, 16)


def test_a_shadow_that_left_images_out_is_judged_on_the_others(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    rows = [
        Row(float(i), f"r{i}", 0, role, "certified", 0.0, 0.5, label, "", "{}", 1, "{}", None, role)
        for i in range(30)
        for role, label in (("champion", "roadwork"), ("shadow", "no_roadwork"))
        if role == "champion" or i % 3
    ]
    with closing(connect(path)) as db:
        write_rows(db, rows)
    (tmp_path / "labels.csv").write_text("id,label\n" + "".join(f"r{i}/0,1\n" for i in range(30)))
    found = judge(path, path, tmp_path / "labels.csv", roles=("champion", "shadow"))
    assert (found.mode, found.champion.n, found.challenger.events) == ("paired", 20, 20)
    assert (found.verdict, found.unused) == ("challenger worse", 10)


@pytest.mark.slow
@pytest.mark.e2e
def test_workers_that_take_long_to_open_are_waited_for(tiny_bundle: Path, tmp_path: Path) -> None:
    import socket
    import subprocess
    import urllib.request

    from helpers.command import command, environment

    # Imported by every Python that starts with this path: opening a bundle then takes longer than uvicorn waits.
    (tmp_path / "sitecustomize.py").write_text(
        "import multiprocessing.spawn, time\n"
        "kept = multiprocessing.spawn.spawn_main\n"
        "def slowly(*a, **k):\n"
        "    time.sleep(7)\n"
        "    return kept(*a, **k)\n"
        "multiprocessing.spawn.spawn_main = slowly\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = environment()
    env["PYTHONPATH"] = f"{tmp_path}:{env.get('PYTHONPATH', '')}"
    words = ["serve", str(tiny_bundle), "--workers", "2", "--threads", "1", "--port", str(port)]
    errors = tmp_path / "errors.txt"
    with errors.open("w") as stream, subprocess.Popen(command(words), env=env, stderr=stream) as server:
        try:
            limit = time.monotonic() + 120
            while errors.read_text().count('"started"') < 2:
                assert time.monotonic() < limit, errors.read_text()
                time.sleep(0.2)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30) as answer:
                assert answer.status == 200
            assert "died" not in errors.read_text()
        finally:
            server.terminate()
    assert server.returncode == 0
