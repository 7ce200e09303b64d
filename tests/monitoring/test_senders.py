"""Senders against local sinks that are as strict as the real receivers: Slack, PagerDuty, a mail server with TLS."""

from __future__ import annotations

import base64
import json
import re
import shutil
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from workzone.errors import ConfigError
from workzone.monitoring.alerts import NOTIFIERS, Alarm, DeliveryError, load_actions

LONG = Alarm("drift", "probability", "warning", "tiny", "a" * 64, "2026-05-02T00:00:00+00:00", "<!channel> & \n" * 2000)
PLAIN = Alarm("certificate", "fnr", "critical", "tiny", "a" * 64, "2026-05-03T00:00:00+00:00", "Refuted: 3 % > 1 %.")


def action(kind: str, **keys: Any) -> Any:
    return NOTIFIERS[kind].model_validate({"kind": kind, "wait": 0.0, "retries": 0, **keys})


def slack(headers: Mapping[str, str], content: Any) -> tuple[int, str]:
    """As incoming webhooks of Slack answer: 200 ``ok``, 400 ``invalid_payload`` or ``no_text``."""
    if headers["Content-Type"] != "application/json" or not isinstance(content, dict):
        return 400, "invalid_payload"
    text = content.get("text")
    if not isinstance(text, str) or not text:
        return 400, "no_text"
    if len(text) > 40_000 or re.search(r"<[!@#]|<https?:", text) or re.search("&(?!(amp|lt|gt);)", text):
        return 400, "invalid_payload"
    return 200, "ok"


def pagerduty(headers: Mapping[str, str], content: Any) -> tuple[int, str]:
    """As the Events API v2 of PagerDuty answers: 202, or 400 with what is invalid."""
    known = {"routing_key", "event_action", "dedup_key", "payload", "client", "client_url", "links", "images"}
    inside = {"summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"}
    payload = content.get("payload", {})
    fine = (
        headers["Content-Type"] == "application/json"
        and set(content) <= known
        and re.fullmatch(r"\w{32}", content["routing_key"])
        and content["event_action"] in ("trigger", "acknowledge", "resolve")
        and len(content["dedup_key"]) <= 255
        and set(payload) <= inside
        and 0 < len(payload["summary"]) <= 1024
        and payload["source"]
        and payload["severity"] in ("critical", "error", "warning", "info")
        and datetime.fromisoformat(payload["timestamp"]).tzinfo is not None
        and len(json.dumps(content)) <= 512 * 1024
    )
    return (202, '{"status": "success"}') if fine else (400, '{"status": "invalid event"}')


Judge = Callable[[Mapping[str, str], Any], tuple[int, str]]


class Sink(ThreadingHTTPServer):
    """Answers as ``judge`` says and remembers both."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.seen: list[tuple[int, Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        code, said = self.server.judge(self.headers, content)  # type: ignore[arg-type]
        self.server.seen.append((code, content))
        self.send_response(code)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def sink(request: pytest.FixtureRequest) -> Iterator[Sink]:
    server = Sink(request.param)
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("sink", [slack], indirect=True)
def test_slack_takes_short_and_long_alarms(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK", f"http://127.0.0.1:{sink.server_port}/services/T0/B0/x")
    action("slack", url_env="SLACK").deliver([PLAIN])
    action("slack", url_env="SLACK").deliver([LONG, PLAIN])
    assert [code for code, _ in sink.seen] == [200, 200]
    assert "Refuted: 3 % &gt; 1 %." in sink.seen[0][1]["text"]
    assert "&lt;!channel&gt; &amp;" in sink.seen[1][1]["text"]


@pytest.mark.parametrize("sink", [pagerduty], indirect=True)
def test_pagerduty_takes_every_alarm_as_an_event(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{sink.server_port}/v2/enqueue"
    monkeypatch.setenv("KEY", "r" * 32)
    action("pagerduty", routing_key_env="KEY", url=url).deliver([LONG, PLAIN])
    assert [code for code, _ in sink.seen] == [202, 202]
    assert [e["payload"]["severity"] for _, e in sink.seen] == ["warning", "critical"]
    monkeypatch.setenv("KEY", "short")
    with pytest.raises(DeliveryError, match="400"):
        action("pagerduty", routing_key_env="KEY", url=url).deliver([PLAIN])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signed itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    words = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


class Post(socketserver.ThreadingTCPServer):
    """A mail server that takes messages only over TLS, from who knows the password."""

    allow_reuse_address = True

    def __init__(self, certificate: tuple[Path, Path], *, at_once: bool) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate)
        self.at_once = at_once
        self.taken: list[list[str]] = []
        self.clear: list[str] = []
        super().__init__(("127.0.0.1", 0), _Postman)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not trust the certificate goes away, which is what a test wants."""


class _Postman(socketserver.BaseRequestHandler):
    server: Post

    def handle(self) -> None:
        wire, safe, known = self.request, False, False
        if self.server.at_once:
            wire, safe = self.server.context.wrap_socket(wire, server_side=True), True
        reader = wire.makefile("rb")
        wire.sendall(b"220 here\r\n")
        while raw := reader.readline():
            line = raw.decode().rstrip("\r\n")
            word = line.split(" ")[0].lower()
            if not safe:
                self.server.clear.append(line)
            if word == "ehlo":
                wire.sendall(b"250-here\r\n250 AUTH PLAIN\r\n" if safe else b"250-here\r\n250 STARTTLS\r\n")
            elif word == "starttls":
                wire.sendall(b"220 go\r\n")
                wire, safe = self.server.context.wrap_socket(wire, server_side=True), True
                reader = wire.makefile("rb")
            elif word == "auth":
                known = safe and base64.b64decode(line.split(" ")[2]) == b"\0me\0pass"
                wire.sendall(b"235 yes\r\n" if known else b"535 no\r\n")
            elif word == "data":
                wire.sendall(b"354 go on\r\n")
                self.server.taken.append([x.decode().rstrip("\r\n") for x in iter(reader.readline, b".\r\n")])
                wire.sendall(b"250 taken\r\n")
            elif word == "quit":
                wire.sendall(b"221 bye\r\n")
                return
            else:
                wire.sendall(b"250 yes\r\n" if known else b"530 who are you\r\n")


@pytest.fixture
def post(request: pytest.FixtureRequest, certificate: tuple[Path, Path]) -> Iterator[Post]:
    server = Post(certificate, at_once=request.param == "tls")
    yield server
    server.shutdown()
    server.server_close()


def email(server: Post, **keys: Any) -> Any:
    people = {"sender": "a@example.org", "to": ["b@example.org"], "user": "me", "password_env": "SMTP"}
    return action("email", host="127.0.0.1", port=server.server_address[1], timeout=10, **people, **keys)


@pytest.mark.parametrize("post", ["starttls", "tls"], indirect=True)
def test_mail_goes_out_encrypted_and_signed_in(
    post: Post, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    security = "tls" if post.at_once else "starttls"
    monkeypatch.setenv("SMTP", "pass")
    with pytest.raises(DeliveryError, match="cannot be reached: SSLCertVerificationError"):
        email(post, security=security).deliver([PLAIN])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    email(post, security=security).deliver([PLAIN])
    (message,) = post.taken
    assert "Subject: workzone: tiny: certificate alarm (fnr)" in message
    assert any("Refuted: 3 % > 1 %." in line for line in message)
    assert {line.split(" ")[0].lower() for line in post.clear} <= {"ehlo", "starttls", "quit"}
    monkeypatch.setenv("SMTP", "wrong")
    with pytest.raises(DeliveryError, match="535") as caught:
        email(post, security=security).deliver([PLAIN])
    assert caught.value.retry is False
    assert "wrong" not in str(caught.value)


def test_a_password_in_clear_goes_to_this_machine_only(tmp_path: Path) -> None:
    file = tmp_path / "actions.json"
    mail = {"kind": "email", "sender": "a@example.org", "to": ["b@example.org"], "user": "me", "password_env": "SMTP"}
    for host, security, fine in (
        ("smtp.example.org", "none", False),
        ("192.0.2.7", "none", False),
        ("localhost.example.org", "none", False),
        ("localhost", "none", True),
        ("127.0.0.1", "none", True),
        ("::1", "none", True),
        ("smtp.example.org", "starttls", True),
        ("smtp.example.org", "tls", True),
    ):
        file.write_text(json.dumps({"actions": [{**mail, "host": host, "security": security}]}))
        if fine:
            assert len(load_actions(file)) == 1
            continue
        with pytest.raises(ConfigError, match="in clear") as caught:
            load_actions(file)
        assert (caught.value.where, "starttls" in (caught.value.fix or "")) == (str(file), True)
        assert "actions.0" in caught.value.what
    file.write_text(json.dumps({"actions": [{**mail, "user": "", "host": "smtp.example.org", "security": "none"}]}))
    assert len(load_actions(file)) == 1


@pytest.mark.parametrize("post", ["starttls"], indirect=True)
def test_no_password_goes_where_none_is_asked_for(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP", "pass")
    with pytest.raises(DeliveryError):
        email(post, security="none").deliver([PLAIN])
    assert not any("pass" in line or "auth" in line.lower() for line in post.clear)
