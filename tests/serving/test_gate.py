from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from workzone.errors import ConfigError
from workzone.serving.keys import ApiKeys
from workzone.serving.settings import ServeSettings

Start = Callable[..., TestClient]
RAW = {"Content-Type": "application/octet-stream"}
KEY = "0123456789abcdef"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    hashed = hashlib.sha256(b"another-key-of-somebody").hexdigest()
    path = tmp_path / "keys.txt"
    path.write_text(f"# who may ask\n\nvan7 {KEY}\ndesk sha256:{hashed}\n")
    return path


def test_keys_open_what_is_not_public(start: Start, key_file: Path, picture: bytes, capfd) -> None:  # type: ignore[no-untyped-def]
    client = start(api_key_file=key_file)
    for path in ("/healthz", "/readyz", "/v2/health/live", "/", "/review", "/docs", "/openapi.json", "/static/page.js"):
        assert client.get(path).status_code == 200, path
    for path in (
        "/metrics",
        "/v1/model",
        "/v1/review?reviewer=a",
        "/v2",
        "/v2/models/x",
        "/elsewhere",
        "/static/../v1",
    ):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "no_key"), path
    ask = lambda headers: client.post("/v1/predict", content=picture, headers={**RAW, **headers})  # noqa: E731
    assert ask({"Authorization": f"Bearer {KEY}"}).status_code == 200
    assert ask({"X-API-Key": "another-key-of-somebody"}).status_code == 200
    for wrong in ({"X-API-Key": KEY + "0"}, {"Authorization": f"Basic {KEY}"}, {"X-API-Key": "sha256:" + "0" * 64}):
        assert ask(wrong).status_code == 401
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert {line.get("key") for line in lines if line["event"] == "request"} == {None, "van7", "desk"}
    assert KEY not in json.dumps(lines)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "short abc\n", "a b c\n", f"x {KEY}\nx {KEY}1\n", f"b/d {KEY}\n", "n\n"]
)
def test_malformed_key_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(text)
    with pytest.raises(ConfigError):
        ApiKeys.load(path)


@pytest.mark.parametrize(
    ("host", "safe"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("example", False)]
)
def test_without_keys_only_this_machine_may_connect(tiny_bundle: Path, key_file: Path, host: str, safe: bool) -> None:
    settings = ServeSettings(bundle=tiny_bundle, host=host)
    if safe:
        settings.require_safe_bind()
    else:
        with pytest.raises(ConfigError, match="api-key-file"):
            settings.require_safe_bind()
    ServeSettings(bundle=tiny_bundle, host=host, api_key_file=key_file).require_safe_bind()
    ServeSettings(bundle=tiny_bundle, host=host, insecure=True).require_safe_bind()


def test_settings_that_could_never_answer_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(ValidationError, match="max_queue"):
        ServeSettings(bundle=tiny_bundle, max_images=5, max_queue=4)
    with pytest.raises(ValidationError, match="max_memory"):
        ServeSettings(bundle=tiny_bundle, max_bytes=5, max_memory=4)


def test_another_host_name_is_refused_without_keys(start: Start, key_file: Path) -> None:
    client = start()
    assert client.get("/v1/model", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/v1/model", headers={"Host": "localhost:8000"}).status_code == 200
    assert start(insecure=True).get("/v1/model", headers={"Host": "evil.example"}).status_code == 200
    keyed = start(api_key_file=key_file)
    assert keyed.get("/v1/model", headers={"Host": "evil.example", "X-API-Key": KEY}).status_code == 200


def test_request_ids_are_kept_when_sane(start: Start, picture: bytes) -> None:
    client = start()
    answer = client.post("/v1/predict", content=picture, headers={**RAW, "X-Request-ID": "van7-0012"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "van7-0012"
    for odd in ("a" * 65, "a b", 'x"}', ""):
        given = client.get("/healthz", headers={"X-Request-ID": odd}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", given)


def test_log_lines_hold_no_picture_and_no_file_name(start: Start, picture: bytes, capfd) -> None:  # type: ignore[no-untyped-def]
    start().post("/v1/predict?views=1", files=[("file", ("plate-XY123.png", picture)), ("file", ("b.txt", b"no"))])
    text = capfd.readouterr().err
    (line,) = [json.loads(x) for x in text.splitlines() if '"request"' in x]
    assert (line["status"], line["route"], line["method"]) == (200, "/v1/predict", "POST")
    assert sum(line["pictures"].values()) == 2
    assert line["pictures"]["not_an_image"] == 1
    assert "plate" not in text
    assert "views" not in text


def test_a_full_disk_under_the_log_lines_ends_no_request(
    start: Start, picture: bytes, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()
    with monkeypatch.context() as full, Path("/dev/full").open("w", encoding="utf-8") as nowhere:
        full.setattr("sys.stderr", nowhere)
        for _ in range(3):
            assert client.post("/v1/predict", content=picture, headers=RAW).status_code == 200
        full.undo()
        with pytest.raises(OSError, match="No space"):
            nowhere.close()
    client.post("/v1/predict", content=picture, headers=RAW)
    client.post("/v1/predict", content=picture, headers=RAW)
    first, second = (json.loads(x) for x in capfd.readouterr().err.splitlines() if '"request"' in x)
    assert first["unwritten_before"] == 3
    assert "unwritten_before" not in second


def test_a_draining_server_takes_nothing_new(start: Start, picture: bytes) -> None:
    client = start()
    client.app.state.service.draining = True
    answer = client.post("/v1/predict", content=picture, headers=RAW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
    assert answer.headers["connection"] == "close"
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200
    assert client.get("/metrics").status_code == 200


def test_figures(start: Start, picture: bytes) -> None:
    client = start()
    client.post("/v1/predict", content=picture, headers=RAW)
    client.post("/v1/predict", content=b"no picture", headers=RAW)
    client.post("/v1/predict", files=[("file", ("a", picture)), ("file", ("b", b"no"))])
    client.get("/elsewhere/with/a/name")
    text = client.get("/metrics").text
    assert sum(float(v) for v in re.findall(r"workzone_predictions_total\{.*\} (.*)", text)) == 2
    assert 'workzone_rejected_total{code="not_an_image"} 2.0' in text
    assert 'workzone_rejected_total{code="not_found"} 1.0' in text
    assert "elsewhere" not in text
    for part in ("total", "queue", "inference"):
        assert float(re.findall(rf'workzone_seconds_count\{{part="{part}"\}} (.*)', text)[0]) >= 2
    assert "workzone_queue_depth 0.0" in text
    assert re.search(r'workzone_certificate\{state="(not_)?certified"\} 1.0', text)


def test_pages_load_nothing_from_elsewhere(start: Start) -> None:
    client = start()
    for path in ("/", "/review", "/docs"):
        page = client.get(path)
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", page.text)
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page.text)
        for linked in re.findall(r'(?:src|href)="(static/[^"]+)"', page.text):
            assert client.get(f"/{linked}").status_code == 200
    described = client.get("/openapi.json").json()["paths"]
    assert {"/v1/predict", "/v2/models/{name}/infer", "/readyz", "/metrics"} <= set(described)
    assert all(path in client.get("/docs").text for path in described)
    assert "<td></td>" not in client.get("/docs").text, "a parameter without a meaning"


def test_unknown_addresses_and_methods_have_the_same_form(start: Start) -> None:
    client = start()
    assert client.get("/nothing").json()["error"]["code"] == "not_found"
    assert client.get("/v1/predict").json()["error"]["code"] == "method"
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/%2e%2e/app.py").status_code == 404
