"""Downloads against a server on this machine that knows ranges, breaks connections and lies."""

from __future__ import annotations

import errno
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from workzone.data.download import CATALOG, download
from workzone.data.download.listing import HUB, safe_path
from workzone.data.download.transfer import Checksum, Client, check_address, fetch
from workzone.errors import ConfigError, DataError

COMMIT = "a" * 40
DATA = {
    "data/train-0.parquet": bytes(range(256)) * 4000,
    "data/train-1.parquet": b"second" * 999,
    "README.md": b"card\n",
}
EXTRA = {"old.bin": b"not wanted"}


@dataclass
class Server:
    """What the server does, and what it was asked."""

    url: str = ""
    ranges: bool = True
    break_after: int | None = None
    breaks: int = 0
    status: dict[str, int] = field(default_factory=dict)
    change: dict[str, bytes] = field(default_factory=dict)
    redirect: str | None = None
    tokens: list[tuple[str, str | None]] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    commit: str = COMMIT

    def listing(self) -> bytes:
        siblings = []
        for path, content in (DATA | EXTRA).items():
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": git}
            if path.endswith(".parquet"):
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        return json.dumps({"id": "x", "sha": self.commit, "siblings": siblings}).encode()

    def article(self) -> bytes:
        files = [
            {"name": "images.zip", "size": 9, "computed_md5": hashlib.md5(b"pictures!").hexdigest()},
            {"name": "annotations.zip", "size": 5, "supplied_md5": hashlib.md5(b"notes").hexdigest()},
            {"name": "videos.zip", "size": 5, "supplied_md5": hashlib.md5(b"large").hexdigest()},
        ]
        for file in files:
            file["download_url"] = f"{self.url}/files/{file['name']}"
        return json.dumps({"version": 3, "files": files}).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    state: Server

    def log_message(self, *args: object) -> None:
        """Keep the output of the tests clean."""

    def do_GET(self) -> None:
        state, path = self.state, self.path
        state.asked.append((path, self.headers.get("Range")))
        state.tokens.append((path, self.headers.get("Authorization")))
        for start, code in state.status.items():
            if start in path:
                self.send_error(code)
                return
        if path.startswith("/api/datasets/natix-network-org/roadwork/revision/"):
            self.answer(state.listing())
        elif path.startswith("/v2/articles/26093197"):
            self.answer(state.article())
        elif match := re.fullmatch(r"/datasets/natix-network-org/roadwork/resolve/([0-9a-f]{40})/(.*)", path):
            if state.redirect:
                self.send_response(302)
                self.send_header("Location", f"{state.redirect}/cdn/{match[2]}")
                self.end_headers()
            else:
                self.file(match[2])
        elif path.startswith("/cdn/"):
            self.file(path.removeprefix("/cdn/"))
        elif path.startswith("/files/"):
            self.answer({"images.zip": b"pictures!", "annotations.zip": b"notes"}[path.removeprefix("/files/")])
        else:
            self.send_error(404)

    def answer(self, body: bytes, code: int = 200) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def file(self, name: str) -> None:
        state = self.state
        content = state.change.get(name, (DATA | EXTRA)[name])
        start, wanted = 0, self.headers.get("Range")
        if wanted and state.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if state.break_after is not None and state.breaks and len(body) > state.break_after:
            state.breaks -= 1
            self.wfile.write(body[: state.break_after])
            self.close_connection = True
            return
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    handler = type("Bound", (Handler,), {"state": state})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        state.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield state
        running.shutdown()
        thread.join()


def get(server: Server, out: Path, name: str = "natix", **options: object):  # type: ignore[no-untyped-def]
    client = Client(timeout=5, turns=3, pause=0.0)
    words: dict[str, object] = {"accept_licence": True, "endpoint": server.url, "client": client, **options}
    return download(name, out, **words)  # type: ignore[arg-type]


def test_a_data_set_comes_whole_once(server: Server, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    done = get(server, tmp_path / "n", progress=lambda a, b: steps.append((a, b)))
    size = sum(map(len, DATA.values()))
    assert (done.files, done.fetched, done.revision, done.size) == (3, 3, COMMIT, size)
    assert steps[-1] == (size, size)
    assert {p: (tmp_path / "n" / p).read_bytes() for p in DATA} == DATA
    assert not (tmp_path / "n" / "old.bin").exists()
    assert not list(tmp_path.rglob("*.part"))
    note = json.loads((tmp_path / "n/download.json").read_text())
    assert note["revision"] == COMMIT
    assert note["licence_accepted"] is True
    assert note["files"]["README.md"] == {"git": hashlib.sha1(b"blob 5\0card\n").hexdigest(), "size": 5}
    before = len(server.asked)
    again = get(server, tmp_path / "n")
    assert again.fetched == 0
    assert len(server.asked) == before + 1, "only the listing is asked for"
    assert server.asked[-1][0].endswith(f"/revision/{COMMIT}?blobs=true"), "at the revision of the first call"


def test_the_licence_has_to_be_accepted_before_anything_is_asked(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"licence of natix was not accepted.*--accept-licence"):
        get(server, tmp_path, accept_licence=False)
    assert server.asked == []


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_connections_are_resumed(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.break_after, server.breaks, server.ranges = 300_000, 2, ranges
    get(server, tmp_path / "n")
    assert (tmp_path / "n/data/train-0.parquet").read_bytes() == DATA["data/train-0.parquet"]
    wanted = [r for p, r in server.asked if p.endswith("train-0.parquet")]
    assert wanted[0] is None
    assert wanted[1] == "bytes=300000-"
    if ranges:
        assert wanted == [None, "bytes=300000-", "bytes=600000-"]


def test_a_later_call_goes_on_where_the_first_one_stopped(server: Server, tmp_path: Path) -> None:
    server.break_after, server.breaks = 200_000, 3
    with pytest.raises(DataError, match=r"breaks again and again \(600000 of 1024000 bytes\)"):
        get(server, tmp_path / "n")
    part = tmp_path / "n/data/train-0.parquet.part"
    assert part.stat().st_size == 600_000
    assert not (tmp_path / "n/data/train-0.parquet").exists()
    get(server, tmp_path / "n")
    assert (
        "/datasets/natix-network-org/roadwork/resolve/" + COMMIT + "/data/train-0.parquet",
        "bytes=600000-",
    ) in server.asked
    assert (tmp_path / "n/data/train-0.parquet").read_bytes() == DATA["data/train-0.parquet"]


def test_a_part_of_something_else_is_thrown_away(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "n/data/train-0.parquet.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    get(server, tmp_path / "n")
    assert (tmp_path / "n/data/train-0.parquet").read_bytes() == DATA["data/train-0.parquet"]


def test_wrong_content_never_becomes_a_file(server: Server, tmp_path: Path) -> None:
    server.change["data/train-1.parquet"] = b"SECOND" * 999
    with pytest.raises(DataError, match="does not have the sha256 checksum"):
        get(server, tmp_path / "n")
    assert not (tmp_path / "n/data/train-1.parquet").exists()
    assert not (tmp_path / "n/download.json").exists()
    server.change["data/train-1.parquet"] = DATA["data/train-1.parquet"] + b"more"
    with pytest.raises(DataError, match="sends more than the stated 5994 bytes"):
        get(server, tmp_path / "n")
    server.change.clear()
    (tmp_path / "n/data/train-0.parquet").write_bytes(b"spoiled")
    assert get(server, tmp_path / "n").fetched == 2, "all but the card"


@pytest.mark.parametrize(
    ("code", "what"), [(401, "HF_TOKEN"), (403, "accept the terms"), (404, "check name and revision")]
)
def test_refusals_are_explained_and_not_repeated(server: Server, tmp_path: Path, code: int, what: str) -> None:
    server.status["/api/"] = code
    with pytest.raises(DataError, match=what):
        get(server, tmp_path)
    assert len(server.asked) == 1


def test_busy_servers_are_asked_again(server: Server, tmp_path: Path) -> None:
    server.status["/api/"] = 503
    with pytest.raises(DataError, match="answers 503"):
        get(server, tmp_path)
    assert len(server.asked) == 3


def test_no_network_is_said(tmp_path: Path) -> None:
    client = Client(timeout=1, turns=1)
    with pytest.raises(DataError, match=r"cannot be reached.*goes on where it stopped"):
        download("natix", tmp_path, accept_licence=True, endpoint="http://127.0.0.1:9", client=client)
    with pytest.raises(DataError, match=r"no network, or no host nowhere\.invalid"):
        download("natix", tmp_path, accept_licence=True, endpoint="https://nowhere.invalid", client=client)


def test_a_token_stays_with_the_first_host(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.redirect = server.url
    get(server, tmp_path / "n", client=Client(timeout=5, turns=1, token="secret"))
    sent = {path.split("/")[1]: token for path, token in server.tokens}
    assert sent == {"api": "Bearer secret", "datasets": "Bearer secret", "cdn": None}
    server.tokens.clear()
    monkeypatch.setenv("HF_TOKEN", "secret")
    download("natix", tmp_path / "m", accept_licence=True, endpoint=server.url)
    assert {token for _, token in server.tokens} == {None}, "a mirror is not the hub"


def test_only_safe_addresses(server: Server, tmp_path: Path) -> None:
    server.redirect = "http://example.invalid"
    with pytest.raises(DataError, match="only https addresses"):
        get(server, tmp_path / "n")
    for url in ("file:///etc/passwd", "ftp://x/y", "http://example.com/a", "x"):
        with pytest.raises(DataError, match="only https"):
            check_address(url)
    assert check_address(HUB) == HUB


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "", "a\\..\\x"])
def test_listed_paths_stay_in_the_folder(path: str) -> None:
    with pytest.raises(DataError, match="leaves the folder"):
        safe_path(path, "listing")


def test_files_without_a_checksum_are_refused(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.loads(server.listing())
    body["siblings"][2]["blobId"] = None
    monkeypatch.setattr(server, "listing", lambda: json.dumps(body).encode())
    with pytest.raises(DataError, match="no git checksum"):
        get(server, tmp_path)


def test_figshare(server: Server, tmp_path: Path) -> None:
    done = get(server, tmp_path / "r", "roadwork")
    assert done.revision == "version 3"
    assert sorted(p.name for p in (tmp_path / "r").glob("*.zip")) == ["annotations.zip", "images.zip"]
    get(server, tmp_path / "r", "roadwork")
    assert server.asked[-1][0] == "/v2/articles/26093197/versions/3"
    with pytest.raises(DataError, match="is no version"):
        get(server, tmp_path / "x", "roadwork", revision="main")
    with pytest.raises(DataError, match="none of the 3 files"):
        get(server, tmp_path / "x", "roadwork", files=[".rar"])


def test_names_and_registrations(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no data set 'imagenet'"):
        download("imagenet", tmp_path, accept_licence=True)
    for name in ("mapillary_vistas", "bdd100k"):
        with pytest.raises(DataError, match="after a registration only"):
            download(name, tmp_path, accept_licence=True)


def test_every_entry_has_a_source_of_its_kind() -> None:
    from workzone.data.sources.build import SOURCES

    assert {e.kind for e in CATALOG.values()} <= set(SOURCES)
    assert all(e.licence and e.page for e in CATALOG.values())


def test_a_full_disk_is_said(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workzone.data.download import transfer

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer.os, "fsync", full)
    content = DATA["README.md"]
    known = Checksum("git", hashlib.sha1(b"blob 5\0" + content).hexdigest())
    url = f"{server.url}/cdn/README.md"
    with pytest.raises(DataError, match="the disk is full"):
        fetch(Client(timeout=5, turns=1), url, tmp_path / "README.md", 5, known)
    monkeypatch.undo()
    assert fetch(Client(timeout=5, turns=1), url, tmp_path / "README.md", 5, known)
    from workzone.data.download.fetch import _room

    with pytest.raises(DataError, match="GB are needed"):
        _room(tmp_path, 10**18)
