"""Malformed requests that once were answered with 500, or worked on for minutes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from workzone.serving.model import Model

Start = Callable[..., TestClient]
TENSOR = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]}


@pytest.mark.parametrize(
    "changed",
    [
        {"outputs": [{"name": []}]},
        {"outputs": [{"name": {}}]},
        {"outputs": [{"name": "decision", "parameters": ["binary_data"]}]},
        {"outputs": [{"name": "decision", "parameters": "binary_data"}]},
        {"inputs": [{**TENSOR, "shape": [2**20] * 200_000}]},
        {"inputs": [{**TENSOR, "shape": []}]},
        {"inputs": [{**TENSOR, "shape": [True]}]},
    ],
)
def test_tensors(start: Start, model: Model, changed: dict[str, Any]) -> None:
    began = time.process_time()
    answer = start().post(f"/v2/models/{model.name}/infer", json={"inputs": [TENSOR], **changed})
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == "bad_tensor"
    assert time.process_time() - began < 5


@pytest.mark.parametrize("length", ["0" * 13 + "1" * 5000, "9" * 5000, "-1", "²"])
def test_lengths_of_many_digits(start: Start, model: Model, length: str) -> None:
    client = start()
    headers = [(b"inference-header-content-length", length.encode("latin-1"))]
    assert client.post(f"/v2/models/{model.name}/infer", content=b"{}", headers=headers).status_code == 400
    stated = client.post("/v1/predict", content=b"x", headers=[(b"content-length", length.encode("latin-1"))])
    assert stated.status_code == (413 if length.isascii() and length.isdigit() else 400)


def test_a_label_for_what_is_no_hash(start: Start, shy: Model, tmp_path: Path) -> None:
    client = start(shy, keep_abstained=tmp_path / "keep")
    for sha256 in ("\\ud800", "", "0", "A" * 64):
        body = f'{{"sha256": "{sha256}", "reviewer": "ann", "label": "roadwork"}}'
        answer = client.post("/v1/review", content=body.encode(), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_label")
