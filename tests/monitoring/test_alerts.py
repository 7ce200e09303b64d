from __future__ import annotations

import json
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from workzone.errors import ConfigError
from workzone.monitoring.alerts import NOTIFIERS, Alarm, Delivery, DeliveryError, load_actions, tell
from workzone.monitoring.alerts.webhooks import alertmanager_alert

ALARM = Alarm(
    "drift", "probability", "warning", "tiny", "a" * 64, "2026-05-02T00:00:00+00:00", "Off <b> & \n http://x|y"
)
VOID = Alarm(
    "certificate", "false_negative_rate", "critical", "tiny", "a" * 64, "2026-05-03T00:00:00+00:00", "Refuted."
)


class Receiver(ThreadingHTTPServer):
    """Answers with the codes it is given, one a request, the last one for ever."""

    def __init__(self, *codes: int, wait: float = 0.0) -> None:
        self.codes, self.wait, self.got = list(codes), wait, []  # type: ignore[var-annotated]
        self.release = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/secret"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), json.loads(text)))
        if self.server.wait:
            self.server.release.wait(self.server.wait)
        code = self.server.codes[0] if len(self.server.codes) == 1 else self.server.codes.pop(0)
        self.send_response(code)
        if code == 302:
            self.send_header("Location", self.server.url + "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def receive() -> Iterator[Any]:
    made: list[Receiver] = []

    def start(*codes: int, wait: float = 0.0) -> Receiver:
        made.append(Receiver(*codes, wait=wait))
        return made[-1]

    yield start
    for server in made:
        server.release.set()
        server.shutdown()
        server.server_close()


def action(kind: str, **keys: Any) -> Any:
    return NOTIFIERS[kind].model_validate({"kind": kind, "wait": 0.0, **keys})


def test_webhook_sends_all_alarms_with_its_token(receive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = receive(204)
    monkeypatch.setenv("HOOK", server.url)
    monkeypatch.setenv("TOKEN", "t0")
    action("webhook", url_env="HOOK", token_env="TOKEN").deliver([ALARM, VOID])
    path, headers, content = server.got[0]
    assert path == "/secret"
    assert headers["Authorization"] == "Bearer t0"
    assert [a["name"] for a in content["alarms"]] == ["probability", "false_negative_rate"]


def test_slack_gets_text_without_markup_of_ours(receive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = receive(200)
    monkeypatch.setenv("SLACK", server.url)
    action("slack", url_env="SLACK").deliver([ALARM])
    text = server.got[0][2]["text"]
    assert "&lt;b&gt; &amp;" in text
    assert "<b>" not in text


def test_pagerduty_events_have_the_key_of_their_alarm(receive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = receive(202)
    monkeypatch.setenv("PD", "routing")
    action("pagerduty", routing_key_env="PD", url=server.url).deliver([ALARM, VOID])
    events = [content for _, _, content in server.got]
    assert [e["dedup_key"] for e in events] == [ALARM.key, VOID.key]
    assert {e["event_action"] for e in events} == {"trigger"}
    assert {e["routing_key"] for e in events} == {"routing"}
    assert events[1]["payload"]["severity"] == "critical"
    assert set(events[0]["payload"]) >= {"summary", "source", "severity", "timestamp"}


def test_alertmanager_gets_labels_and_both_times(receive: Any) -> None:
    server = receive(200)
    action("alertmanager", url=server.url.removesuffix("/secret") + "/").deliver([ALARM])
    path, _, content = server.got[0]
    assert path == "/api/v2/alerts"
    assert content[0]["labels"]["alertname"] == "WorkzoneDrift"
    assert content[0]["startsAt"] < content[0]["endsAt"]
    assert alertmanager_alert(VOID, datetime(2027, 1, 1, tzinfo=UTC))["labels"]["severity"] == "critical"


def test_servers_in_trouble_are_asked_again(receive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server, waits = receive(503, 429, 200), []
    monkeypatch.setenv("HOOK", server.url)
    action("webhook", url_env="HOOK", wait=0.5).deliver([ALARM], sleep=waits.append)
    assert len(server.got) == 3
    assert waits == [0.5, 1.0]


@pytest.mark.parametrize(("code", "requests"), [(500, 3), (400, 1), (302, 1)])
def test_refusals_and_redirects_are_not_asked_again(
    receive: Any, monkeypatch: pytest.MonkeyPatch, code: int, requests: int
) -> None:
    server = receive(code)
    monkeypatch.setenv("HOOK", server.url)
    with pytest.raises(DeliveryError, match=str(code)) as caught:
        action("webhook", url_env="HOOK", retries=2).deliver([ALARM])
    assert "secret" not in str(caught.value)
    assert len(server.got) == requests


def test_a_slow_server_runs_into_the_time_limit(receive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = receive(200, wait=5.0)
    monkeypatch.setenv("HOOK", server.url)
    with pytest.raises(DeliveryError, match="cannot be reached"):
        action("webhook", url_env="HOOK", timeout=0.2, retries=0).deliver([ALARM])


def test_addresses_other_than_http_and_missing_secrets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "file:///etc/hostname")
    with pytest.raises(DeliveryError, match="no http"):
        action("webhook", url_env="HOOK").deliver([ALARM])
    monkeypatch.delenv("HOOK")
    with pytest.raises(DeliveryError, match="HOOK is not set"):
        action("webhook", url_env="HOOK").deliver([ALARM])


class Mailbox(socketserver.ThreadingTCPServer):
    """As much of an SMTP server as one message needs."""

    allow_reuse_address = True

    def __init__(self, answer: str) -> None:
        self.answer, self.lines = answer, []  # type: ignore[var-annotated]
        super().__init__(("127.0.0.1", 0), _Mail)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class _Mail(socketserver.StreamRequestHandler):
    server: Mailbox

    def handle(self) -> None:
        def say(text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

        say("220 here")
        inside = False
        for raw in self.rfile:
            line = raw.decode().rstrip("\r\n")
            self.server.lines.append(line)
            if inside:
                inside = line != "."
                if not inside:
                    say("250 taken")
            elif line.lower().startswith("ehlo"):
                say("250 here")
            elif line.lower().startswith("rcpt"):
                say(self.server.answer)
            elif line.lower() == "data":
                inside = True
                say("354 go on")
            elif line.lower() == "quit":
                say("221 bye")
                return
            else:
                say("250 yes")


@pytest.fixture
def mailbox(request: pytest.FixtureRequest) -> Iterator[Mailbox]:
    server = Mailbox(getattr(request, "param", "250 yes"))
    yield server
    server.shutdown()
    server.server_close()


def email(server: Mailbox, **keys: Any) -> Any:
    address = {"host": "127.0.0.1", "port": server.server_address[1], "security": "none"}
    return action("email", **address, sender="a@example.org", to=["b@example.org"], timeout=5, **keys)


def test_email_arrives(mailbox: Mailbox) -> None:
    email(mailbox).deliver([ALARM, VOID])
    assert any(line.lower() == "rcpt to:<b@example.org>" for line in mailbox.lines)
    assert "Subject: workzone: tiny: drift alarm (probability) and 1 more" in mailbox.lines
    assert "Refuted." in mailbox.lines


@pytest.mark.parametrize(("mailbox", "tries"), [("550 no", 1), ("451 later", 3)], indirect=["mailbox"])
def test_email_that_is_refused_for_good_is_not_sent_again(mailbox: Mailbox, tries: int) -> None:
    with pytest.raises(DeliveryError, match="refused"):
        email(mailbox, retries=2).deliver([ALARM])
    assert sum(line.lower().startswith("rcpt") for line in mailbox.lines) == tries


def test_starttls_is_not_given_up_where_the_server_lacks_it(mailbox: Mailbox) -> None:
    plain = email(mailbox, retries=0)
    with pytest.raises(DeliveryError, match="cannot be reached"):
        plain.model_copy(update={"security": "starttls"}).deliver([ALARM])
    assert not any(line.lower().startswith("mail") for line in mailbox.lines)


def test_email_without_a_server_says_so() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    quiet = action("email", host="127.0.0.1", port=port, security="none", sender="a@b", to=["c@d"], retries=1)
    with pytest.raises(DeliveryError, match="cannot be reached"):
        quiet.deliver([ALARM])


def test_a_command_reads_the_alarms(tmp_path: Path) -> None:
    program = f"import sys; open({str(tmp_path / 'got')!r}, 'w').write(sys.stdin.read())"
    action("command", command=[sys.executable, "-c", program]).deliver([VOID])
    assert json.loads((tmp_path / "got").read_text())["alarms"][0]["key"] == VOID.key


@pytest.mark.parametrize(
    ("words", "match"),
    [(["-c", "raise SystemExit(4)"], "exit code 4"), (["-c", "import time; time.sleep(9)"], "longer than")],
)
def test_a_command_that_fails_or_hangs_is_told(words: list[str], match: str) -> None:
    with pytest.raises(DeliveryError, match=match):
        action("command", command=[sys.executable, *words], timeout=1.0).deliver([VOID])


def test_each_is_told_once_while_an_alarm_stands(
    receive: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook, manager, told = receive(200), receive(200), tmp_path / "told.json"
    monkeypatch.setenv("HOOK", hook.url)
    actions = [
        action("webhook", url_env="HOOK", on=["drift"]),
        action("alertmanager", url=manager.url.removesuffix("/secret")),
    ]
    for _ in range(2):
        tell(actions, [ALARM, VOID], told)
    assert [[a["kind"] for a in c["alarms"]] for _, _, c in hook.got] == [["drift"]]
    assert [len(c) for _, _, c in manager.got] == [2, 2]
    tell(actions, [], told)
    tell(actions, [ALARM], told)
    assert len(hook.got) == 2


def test_what_failed_is_tried_at_the_next_run(receive: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = receive(400, 200)
    monkeypatch.setenv("HOOK", server.url)
    hook, told = action("webhook", url_env="HOOK"), tmp_path / "told.json"
    first, second = tell([hook], [ALARM], told), tell([hook], [ALARM], told)
    assert first[0].problem
    assert second == [Delivery("webhook", (ALARM.key,))]
    assert tell([hook], [ALARM], told) == []


@pytest.mark.parametrize(
    "text",
    ["{", '{"actions": [{"kind": "pigeon"}]}', '{"actions": [{"kind": "slack"}]}', '{"actions": [], "x": 1}',
     '{"actions": [{"kind": "slack", "url_env": "A", "on": []}]}'],
)  # fmt: skip
def test_malformed_actions_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "actions.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="actions"):
        load_actions(path)


def test_actions_are_read_by_kind(tmp_path: Path) -> None:
    path = tmp_path / "actions.json"
    path.write_text(json.dumps({"actions": [{"kind": "command", "command": ["true"], "on": ["certificate"]}]}))
    (found,) = load_actions(path)
    assert found.label == "command"
    assert found.retries == 0
