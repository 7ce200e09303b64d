from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator

import pytest
from PIL import Image
from starlette.testclient import TestClient

from workzone.serving.model import Answer, Model

Start = Callable[..., TestClient]
RAW = {"Content-Type": "application/octet-stream"}


def as_text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_all_forms_of_a_request_get_the_answer_of_the_detector(start: Start, model: Model, picture: bytes) -> None:
    expected = model.detector(picture)
    client = start()
    raw = client.post("/v1/predict", content=picture, headers=RAW).json()
    single = client.post("/v1/predict", json={"image": as_text(picture)}).json()
    batch = client.post("/v1/predict", json={"images": [as_text(picture)] * 2}).json()["results"]
    form = client.post("/v1/predict", files=[("file", ("a.png", picture))]).json()["results"]
    for answer in (raw, single, *batch, *form):
        assert answer["decision"] == expected.label
        assert answer["probability"] == expected.probability
        assert answer["log_odds"] == expected.log_odds
        assert answer["prediction_set"] == sorted(expected.prediction_set)
        assert answer["reason"] == expected.reason
        assert answer["uncertainty"] == dict(expected.uncertainty)
        assert "views" not in answer
    assert raw["bundle"]["sha256"] == model.sha256
    seen = client.post("/v1/predict?views=1", content=picture, headers=RAW).json()["views"]
    assert [tuple(v["box"]) for v in seen] == [v.box for v in expected.views]


def test_a_bad_picture_in_a_batch_leaves_the_others_alone(start: Start, picture: bytes) -> None:
    client = start()
    body = {
        "images": [as_text(picture), "no base64!", as_text(b"no picture"), as_text(picture[:200]), as_text(picture)]
    }
    answer = client.post("/v1/predict", json=body)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [r.get("error", {}).get("code") for r in results] == [None, "bad_base64", "not_an_image", "truncated", None]
    assert results[1]["error"]["where"] == "images[1]"
    assert results[0]["decision"] == results[4]["decision"]


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("1", (width, height)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"hello", "application/octet-stream", 415, "not_an_image"),
        (b"hello", "text/plain", 415, "content_type"),
        (b"", "image/png", 400, "empty_body"),
        (b"{", "application/json", 400, "bad_json"),
        (b"[" * 100_000, "application/json", 400, "bad_json"),
        (b"[]", "application/json", 422, "bad_request"),
        (b"{}", "application/json", 422, "bad_request"),
        (b'{"image": "", "images": []}', "application/json", 422, "bad_request"),
        (b'{"image": 5}', "application/json", 422, "bad_base64"),
        (b'{"images": []}', "application/json", 422, "no_picture"),
        (b'{"images": [1, 2, 3, 4, 5]}', "application/json", 413, "too_many_images"),
        (b'{"image": "", "path": "/etc/passwd"}', "application/json", 422, "bad_request"),
        (b'{"image": "", "columns": {"a": 1}}', "application/json", 422, "bad_request"),
        (b'{"image": "", "columns": {"a": "b"}}', "application/json", 422, "bad_columns"),
        (b"x", "multipart/form-data", 400, "bad_multipart"),
        (b"x" * 300_000, "image/png", 413, "request_too_large"),
        (png(20, 2000), "image/png", 422, "absurd_shape"),
    ],
)
def test_what_is_wrong_is_said_in_one_form(start: Start, content: bytes, kind: str, status: int, code: str) -> None:
    client = start(max_bytes=250_000, max_images=4)
    answer = client.post("/v1/predict", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert set(answer.json()["error"]) == {"code", "what", "where", "fix"}


def test_a_decompression_bomb_is_refused_by_its_header(start: Start) -> None:
    bomb = png(20_000, 20_000)
    assert len(bomb) < 100_000
    answer = start(max_pixels=1_000_000).post("/v1/predict", content=bomb, headers=RAW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_a_body_without_a_length_is_cut_off_at_the_limit(start: Start) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1000
            yield b"x" * 1000

    client = start(max_bytes=10_000)
    answer = client.post("/v1/predict", content=endless(), headers=RAW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert client.app.state.service.memory.held == 0


def test_memory_of_requests_is_bounded_and_given_back(start: Start, picture: bytes) -> None:
    client = start(max_bytes=len(picture), max_memory=len(picture))
    memory = client.app.state.service.memory
    memory.take(1)
    full = client.post("/v1/predict", content=picture, headers=RAW)
    assert (full.status_code, full.json()["error"]["code"]) == (429, "memory_full")
    memory.give(1)
    assert client.post("/v1/predict", content=picture, headers=RAW).status_code == 200
    assert memory.held == 0


def test_a_deadline_is_kept(start: Start, model: Model, picture: bytes) -> None:
    answer_of = model.answer

    class Slow(Model):
        def answer(self, source, *, max_pixels, columns) -> Answer:  # type: ignore[no-untyped-def]
            time.sleep(0.5)
            return answer_of(source, max_pixels=max_pixels, columns=columns)

    client = start(Slow(model.detector))
    began = time.monotonic()
    late = client.post("/v1/predict", content=picture, headers={**RAW, "X-Deadline-Ms": "50"})
    assert time.monotonic() - began < 0.4
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline")
    bad = client.post("/v1/predict", content=picture, headers={**RAW, "X-Deadline-Ms": "-1"})
    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "bad_deadline")
    assert (
        start(Slow(model.detector), deadline_ms=50)
        .post("/v1/predict", content=picture, headers={**RAW, "X-Deadline-Ms": "9000"})
        .status_code
        == 504
    )


def test_a_fault_is_an_answer_without_its_text(start: Start, model: Model, picture: bytes, capfd) -> None:  # type: ignore[no-untyped-def]
    class Broken(Model):
        def answer(self, source, *, max_pixels, columns) -> Answer:  # type: ignore[no-untyped-def]
            raise RuntimeError("/secret/place")

    answer = start(Broken(model.detector)).post("/v1/predict", content=picture, headers=RAW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "/secret" not in answer.text
    assert "/secret" in capfd.readouterr().err


def test_columns_that_the_bundle_does_not_use_are_refused(start: Start, picture: bytes) -> None:
    client = start()
    answer = client.post("/v1/predict?slice=camera=7", content=picture, headers=RAW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_columns")
    answer = client.post("/v1/predict?slice=camera", content=picture, headers=RAW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_columns")
