from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from workzone.serving.model import Model

Start = Callable[..., TestClient]


def request(*pictures: bytes, **more: Any) -> dict[str, Any]:
    data = [base64.b64encode(p).decode() for p in pictures]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(pictures)], "data": data}
    return {"id": "seven", "inputs": [tensor], **more}


def test_metadata(start: Start, model: Model) -> None:
    client, version = start(), model.sha256[:12]
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").status_code == client.get("/v2/health/ready").status_code == 200
    for path in (f"/v2/models/{model.name}", f"/v2/models/{model.name}/versions/{version}"):
        told = client.get(path).json()
        assert told["versions"] == [version]
        assert told["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
        assert client.get(f"{path}/ready").status_code == 200
    for path in ("/v2/models/other", f"/v2/models/{model.name}/versions/1", "/v2/models/other/ready"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert isinstance(answer.json()["error"], str)


def test_json_tensors(start: Start, model: Model, picture: bytes) -> None:
    expected = model.detector(picture)
    told = start().post(f"/v2/models/{model.name}/infer", json=request(picture, picture)).json()
    assert (told["model_name"], told["id"]) == (model.name, "seven")
    outputs = {o["name"]: o for o in told["outputs"]}
    assert outputs["decision"]["data"] == [expected.label] * 2
    assert outputs["probability"]["data"] == [expected.probability] * 2
    assert outputs["probability"]["shape"] == [2]
    assert outputs["prediction_set"]["data"] == [",".join(sorted(expected.prediction_set))] * 2
    assert told["parameters"]["certificate_sentence"]


def test_nested_data_and_chosen_outputs(start: Start, model: Model, picture: bytes) -> None:
    body = request(picture, outputs=[{"name": "probability"}])
    body["inputs"][0]["shape"], body["inputs"][0]["data"] = [1, 1], [body["inputs"][0]["data"]]
    told = start().post(f"/v2/models/{model.name}/infer", json=body).json()
    assert [o["name"] for o in told["outputs"]] == ["probability"]


def test_binary_tensors(start: Start, model: Model, picture: bytes) -> None:
    expected = model.detector(picture)
    binary = struct.pack("<I", len(picture)) + picture
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(binary)}}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    answer = start().post(
        f"/v2/models/{model.name}/infer",
        content=header + binary,
        headers={"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"},
    )
    length = int(answer.headers["Inference-Header-Content-Length"])
    told, tail = json.loads(answer.content[:length]), answer.content[length:]
    sizes = {o["name"]: o["parameters"]["binary_data_size"] for o in told["outputs"]}
    assert sum(sizes.values()) == len(tail)
    label = tail[4 : sizes["decision"]].decode()
    at = sizes["decision"]
    assert label == expected.label
    assert struct.unpack_from("<d", tail, at) == (expected.probability,)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": []},
        {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": [""]}]},
        {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1], "data": [0.0]}]},
        {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": [""]}]},
        {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1], "data": [""]}]},
        {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["no base64!"]}]},
        {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [7]}]},
        {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 9}}]},
        {"outputs": [{"name": "secret"}]},
        {"parameters": 5},
    ],
)
def test_malformed_requests(start: Start, model: Model, picture: bytes, change: dict[str, Any]) -> None:
    answer = start().post(f"/v2/models/{model.name}/infer", json={**request(picture), **change})
    assert answer.status_code == 400
    assert isinstance(answer.json()["error"], str)


@pytest.mark.parametrize("tail", [b"\x01", b"\xff\xff\xff\xff1", b""])
def test_malformed_binary_data(start: Start, model: Model, tail: bytes) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tail)}}
    header = json.dumps({"inputs": [tensor]}).encode()
    answer = start().post(
        f"/v2/models/{model.name}/infer",
        content=header + tail,
        headers={"Inference-Header-Content-Length": str(len(header))},
    )
    assert answer.status_code == 400


def test_an_unusable_picture_refuses_the_request(start: Start, model: Model, picture: bytes) -> None:
    answer = start().post(f"/v2/models/{model.name}/infer", json=request(picture, b"no picture"))
    assert (answer.status_code, answer.json()["code"]) == (415, "not_an_image")
    assert "inputs[0][1]" in answer.json()["error"]


def test_too_many(start: Start, model: Model, picture: bytes) -> None:
    answer = start(max_images=1).post(f"/v2/models/{model.name}/infer", json=request(picture, picture))
    assert answer.status_code == 413
