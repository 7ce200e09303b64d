"""No answer hides that its certificate is void."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from workzone.errors import BundleError
from workzone.serving.model import Model

Start = Callable[..., TestClient]
RAW = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def moved(model: Model, tiny_bundle: Path, tmp_path: Path) -> Model:
    """A model whose files a test may change."""
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copy)
    return Model(replace(model.detector, folder=copy))


def test_a_good_bundle_is_ready_and_says_its_state(start: Start, model: Model, picture: bytes) -> None:
    client = start()
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["reasons"]) == (200, [])
    answer = client.post("/v1/predict", content=picture, headers=RAW)
    wanted = "certified" if model.detector.certificate.certified else "not_certified"
    assert answer.json()["certificate"]["status"] == answer.headers["x-workzone-certificate"] == wanted
    assert answer.json()["certificate"]["sentence"].startswith(model.detector.certificate.guarantees[0].sentence())


@pytest.mark.parametrize("file", ["policy.json", "engine/head.onnx", "bundle.json", "golden/cases.json"])
def test_a_changed_file_makes_every_answer_say_void(start: Start, moved: Model, picture: bytes, file: str) -> None:
    client = start(moved)
    with (moved.detector.folder / file).open("ab") as stream:
        stream.write(b"\n")
    moved.check()
    answer = client.post("/v1/predict", content=picture, headers=RAW)
    assert answer.status_code == 200
    told = answer.json()["certificate"]
    assert told["status"] == answer.headers["x-workzone-certificate"] == "void"
    assert told["void_reasons"]
    assert "nothing is promised" in told["sentence"]
    batch = client.post("/v1/predict", files=[("file", ("a", picture))])
    assert batch.json()["certificate"]["status"] == "void"
    name = moved.name
    v2 = client.post(
        f"/v2/models/{name}/infer",
        json={"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [_text(picture)]}]},
    )
    assert v2.json()["parameters"]["certificate"] == "void"
    assert client.get("/v1/model").json()["certificate"]["status"] == "void"
    assert client.get("/readyz").status_code == client.get("/v2/health/ready").status_code == 503
    assert client.get("/healthz").status_code == 200


def _text(content: bytes) -> str:
    import base64

    return base64.b64encode(content).decode()


def test_void_answers_can_be_refused(start: Start, moved: Model, picture: bytes) -> None:
    client = start(moved, refuse_void=True)
    assert client.post("/v1/predict", content=picture, headers=RAW).status_code == 200
    moved.void = ("for this test",)
    answer = client.post("/v1/predict", content=picture, headers=RAW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "certificate_void")


def test_another_answer_to_a_golden_image_is_not_ready(start: Start, moved: Model) -> None:
    engine = moved.detector.engine
    aggregate = engine.aggregate
    engine.aggregate = lambda e, b, m: replace(aggregate(e, b, m), log_odds=aggregate(e, b, m).log_odds + 1.0)
    client = start(moved)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "log-odds" in answer.json()["reasons"][0]
    moved.check()
    assert moved.state() == "void"


def test_the_check_runs_by_itself_and_the_state_comes_back(start: Start, moved: Model) -> None:
    client = start(moved, check_seconds=0.05)
    policy = moved.detector.folder / "policy.json"
    good = policy.read_bytes()
    policy.write_bytes(good + b"\n")
    _wait(lambda: moved.state() == "void")
    _wait(lambda: 'workzone_certificate{state="void"} 1.0' in client.get("/metrics").text)
    policy.write_bytes(good)
    _wait(lambda: moved.state() != "void")
    assert client.get("/readyz").status_code == 200


def _wait(condition: Callable[[], bool]) -> None:
    import time

    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_bundle_that_was_changed_before_is_not_opened(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copy)
    (copy / "policy.json").write_bytes((copy / "policy.json").read_bytes() + b"\n")
    with pytest.raises(BundleError):
        Model.load(copy)
