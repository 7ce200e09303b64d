from __future__ import annotations

import csv
import hashlib
import io
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from workzone.data.manifest import Manifest
from workzone.decisions import Decision
from workzone.errors import DataError
from workzone.serving.model import Model
from workzone.serving.review import Kept, ReviewStore, verdict

Start = Callable[..., TestClient]
RAW = {"Content-Type": "application/octet-stream"}
ABSTAINED = Decision("abstain", 0.5, 0.0, frozenset({"roadwork", "no_roadwork"}), "between")


@pytest.fixture
def store(tmp_path: Path) -> ReviewStore:
    made = ReviewStore(tmp_path / "keep", max_bytes=1000)
    for position, content in enumerate((b"a", b"b", b"c")):
        made.keep(content, ABSTAINED, Kept("r", "s", position))
    return made


def names(store: ReviewStore, reviewer: str) -> list[str]:
    return [item["sha256"] for item in store.queue_for(reviewer)]


def test_only_abstained_pictures_are_kept(start: Start, shy: Model, picture: bytes, tmp_path: Path) -> None:
    client = start(shy, keep_abstained=tmp_path / "shy")
    assert client.post("/v1/predict", content=picture, headers=RAW).json()["decision"] == "abstain"
    client.post("/v1/predict", content=picture, headers=RAW)
    client.app.state.service.review.flush()
    (kept,) = (tmp_path / "shy" / "pictures").iterdir()
    assert kept.read_bytes() == picture
    assert kept.suffix == ".png"


def test_decided_pictures_are_not_kept(start: Start, picture: bytes, tmp_path: Path) -> None:
    client = start(keep_abstained=tmp_path / "keep")
    assert client.post("/v1/predict", content=picture, headers=RAW).json()["decision"] != "abstain"
    client.app.state.service.review.flush()
    assert not list((tmp_path / "keep" / "pictures").iterdir())


def test_from_picture_to_manifest(start: Start, shy: Model, tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "keep"
    client = start(shy, keep_abstained=folder)
    for file in sorted((tiny_bundle / "golden").glob("*.png"))[:3]:
        client.post("/v1/predict", content=file.read_bytes(), headers=RAW)
    client.app.state.service.review.flush()
    queue = client.get("/v1/review?reviewer=ann").json()["queue"]
    assert len(queue) == 3
    shown = client.get(f"/v1/review/picture/{queue[0]['sha256']}")
    assert shown.headers["content-type"] == "image/png"
    for item, label in zip(queue, ("roadwork", "none", "skip"), strict=True):
        said = client.post("/v1/review", json={"sha256": item["sha256"], "reviewer": "ann", "label": label})
        assert said.status_code == 200
    assert said.json()["left"] == 0
    (folder / "manifest.csv").write_text(client.get("/v1/review/export").text)
    manifest = Manifest.load(folder / "manifest.csv")
    assert manifest.frame["label"].to_list() == [1, 0]
    assert manifest.frame["source"].to_list() == ["review"] * 2
    assert all(path.is_file() for path in manifest.paths)


def test_bad_labels_and_pictures_are_refused(start: Start, shy: Model, tmp_path: Path) -> None:
    client = start(shy, keep_abstained=tmp_path / "keep")
    assert client.get("/v1/review?reviewer=").json()["error"]["code"] == "bad_reviewer"
    for sha256 in ("0" * 64, "../review.db", "..%2Freview.db"):
        assert client.get(f"/v1/review/picture/{sha256}").status_code == 404
    said = client.post("/v1/review", json={"sha256": "0" * 64, "reviewer": "ann", "label": "roadwork"})
    assert said.json()["error"]["code"] == "bad_label"
    said = client.post("/v1/review", content=b"{}", headers={"Content-Type": "text/plain"})
    assert said.status_code == 415
    assert start(shy).get("/v1/review?reviewer=ann").json()["error"]["code"] == "no_review"


def test_undo_brings_a_picture_back_and_nothing_is_forgotten(store: ReviewStore) -> None:
    first = names(store, "ann")[0]
    store.label(first, "ann", "roadwork")
    assert first not in names(store, "ann")
    store.label(first, "ann", "undo")
    assert first in names(store, "ann")
    assert first not in store.export()
    with pytest.raises(sqlite3.Error, match="append only"):
        store._db.execute("DELETE FROM labels")
    with pytest.raises(sqlite3.Error, match="append only"):
        store._db.execute("UPDATE labels SET label = 'none'")
    with pytest.raises(DataError):
        store.label(first, "ann", "maybe")
    for nothing_said in ("ann", "bob"):
        with pytest.raises(DataError, match="said nothing"):
            store.label(first, nothing_said, "undo")


def test_labels_come_in_the_order_in_which_people_agreed(store: ReviewStore) -> None:
    a, b, c = names(store, "ann")
    store.label(b, "ann", "roadwork")
    store.label(a, "ann", "none")
    store.label(c, "ann", "none")
    store.label(b, "bob", "roadwork")
    assert [s.id for s in store.settled()] == ["r/0", "r/2", "r/1"]
    assert [s.id for s in store.settled(reviewers=2)] == ["r/1"]
    assert store.said() == 4


def test_a_sample_is_kept_whatever_the_answer_and_weighed(tmp_path: Path) -> None:
    store = ReviewStore(tmp_path / "keep", max_bytes=10**6)
    answered = replace(ABSTAINED, label="roadwork")
    for i in range(160):
        decision = ABSTAINED if i % 2 else answered
        store.keep_soon(b"%d" % i, decision, Kept(f"r{i}", "s", share=0.25))
        if i % 20 == 19:
            store.flush()
    for i in range(160):
        if store.picture(sha := hashlib.sha256(b"%d" % i).hexdigest()):
            store.label(sha, "ann", "none")
    rows = list(csv.DictReader(io.StringIO(store.export())))
    abstained = [r for r in rows if r["decision"] == "abstain"]
    others = [r for r in rows if r["decision"] == "roadwork"]
    assert len(abstained) == 80
    assert 8 <= len(others) <= 32
    assert {r["weight"] for r in abstained} == {"0.25"}
    assert {(r["weight"], r["sampled"]) for r in others} == {("1", "1")}
    assert 8 <= sum(r["sampled"] == "1" for r in abstained) <= 32


def test_a_folder_of_an_earlier_version_is_carried_on(tmp_path: Path) -> None:
    folder = tmp_path / "keep"
    (folder / "pictures").mkdir(parents=True)
    with closing(sqlite3.connect(folder / "review.db")) as db:
        db.execute(
            "CREATE TABLE pictures (sha256 TEXT PRIMARY KEY, file TEXT NOT NULL, time REAL NOT NULL, request_id TEXT "
            "NOT NULL, bundle_sha256 TEXT NOT NULL, probability REAL NOT NULL, reason TEXT NOT NULL)"
        )
        db.execute("INSERT INTO pictures VALUES ('abc', 'abc.jpg', 1.0, 'old', 's', 0.5, 'between')")
        db.commit()
    for _ in range(2):
        store = ReviewStore(folder, max_bytes=10**6)
    store.label("abc", "ann", "roadwork")
    (found,) = store.settled()
    assert (found.id, found.label, found.decision) == ("old/0", 1, "abstain")
    assert (found.role, found.sampled) == ("champion", False)


def test_disagreement_is_shown_and_a_third_person_settles_it(store: ReviewStore) -> None:
    first = names(store, "ann")[0]
    store.label(first, "ann", "roadwork")
    # The second opinion is asked for first, and does not see the other one.
    assert names(store, "bob")[0] == first
    assert "labels" not in store.queue_for("bob")[0]
    assert store.progress("bob")["disagreements"] == []
    store.label(first, "bob", "none")
    expected = [{"sha256": first, "labels": {"ann": "roadwork", "bob": "none"}}]
    assert store.progress("bob")["disagreements"] == store.progress("ann")["disagreements"] == expected
    assert first not in store.export()
    assert store.queue_for("eve")[0]["disputed"]
    store.label(first, "eve", "none")
    assert f",0,review,,{first},3" in store.export()
    assert first not in names(store, "fay")
    assert store.progress("ann")["disagreements"] == []


def test_two_who_agree_are_enough(store: ReviewStore) -> None:
    first = names(store, "ann")[0]
    for reviewer in ("ann", "bob"):
        store.label(first, reviewer, "roadwork")
    assert first not in names(store, "eve")


def test_a_full_folder_keeps_what_it_has(store: ReviewStore) -> None:
    assert not store.keep(b"x" * 2000, ABSTAINED, Kept("r", "s"))
    assert store.full
    assert len(names(store, "ann")) == 3
    again = ReviewStore(store.folder, max_bytes=4)
    assert not again.keep(b"dd", ABSTAINED, Kept("r", "s"))
    assert again.keep(b"d", ABSTAINED, Kept("r", "s"))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, None),
        ({"a": "skip"}, None),
        ({"a": "roadwork", "b": "skip"}, 1),
        ({"a": "none", "b": "none", "c": "roadwork"}, 0),
        ({"a": "none", "b": "roadwork"}, None),
    ],
)
def test_verdict(said: dict[str, str], expected: int | None) -> None:
    assert verdict(said) == expected


def test_what_was_handed_over_is_kept_when_the_server_stops(tmp_path: Path) -> None:
    store = ReviewStore(tmp_path / "keep", max_bytes=10**6)
    for number in range(20):
        store.keep_soon(b"%d" % number, ABSTAINED, Kept(f"r{number}", "s"))
    store.close()
    again = ReviewStore(tmp_path / "keep", max_bytes=10**6)
    assert len(names(again, "ann")) == 20
    again.close()
