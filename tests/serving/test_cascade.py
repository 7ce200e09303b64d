"""A bundle of several models behind the server: the answers of ``predict``, and what each of them cost."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from workzone.bundle import CascadeDetector, open_bundle
from workzone.cli.main import app
from workzone.errors import ConfigError
from workzone.registry.store import Registry
from workzone.serving.log import read_log
from workzone.serving.model import Model

Start = Callable[..., TestClient]
RAW = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def chain(tiny_chain: Path) -> Path:
    return tiny_chain / "bundle"


@pytest.fixture(scope="module")
def pictures(tiny_run: Path, chain: Path) -> list[bytes]:
    """Two drawn scenes for each stage at which any is answered."""
    detector, found = open_bundle(chain, threads=1), dict[int | None, list[bytes]]()
    for path in sorted((tiny_run / "prepare/synthetic/images").iterdir()):
        picture = path.read_bytes()
        found.setdefault(detector(picture).stage, []).append(picture)
    return [picture for some in found.values() for picture in some[:2]]


def test_it_answers_as_predict_does_and_says_what_it_cost(
    start: Start, chain: Path, pictures: list[bytes], tmp_path: Path
) -> None:
    detector, log = open_bundle(chain, threads=1), tmp_path / "log.db"
    model = Model.load(chain, threads=1)
    client = start(model, bundle=chain, log_db=log, log_embeddings=True, batch_wait_ms=20)
    expected = [detector(p) for p in pictures]
    files = [("file", (f"{i}.png", p)) for i, p in enumerate(pictures)]
    told = client.post("/v1/predict?views=1", files=files, headers={"X-Request-ID": "all"}).json()
    shown = ("decision", "stage", "cost", "reason", "prediction_set")
    assert [{k: r[k] for k in shown} for r in told["results"]] == [{k: e.to_dict()[k] for k in shown} for e in expected]
    assert [len(r["views"]) for r in told["results"]] == [len(e.views) for e in expected]
    assert [r["probability"] for r in told["results"]] == pytest.approx([e.probability for e in expected], abs=1e-6)
    assert told["certificate"]["sentence"].startswith("Operating point")
    assert len({r["stage"] for r in told["results"]}) > 1, "the test needs pictures that stop at different stages"

    client.app.state.service.log.close()
    rows = read_log(log)
    assert rows.columns["stage"].tolist() == [e.stage for e in expected]
    assert rows.columns["cost"].tolist() == pytest.approx([e.cost for e in expected])
    assert rows.embeddings is not None
    # That of the first model, also where the second one had the last word.
    assert isinstance(detector, CascadeDetector)
    first = detector.members[0]
    for row, decision in zip(rows.embeddings, expected, strict=True):
        looked = first.engine.embedding_dim
        assert row.shape == (looked,)
        assert decision.stage is not None
    late = next(i for i, e in enumerate(expected) if e.stage and e.stage > 2)
    pixels, _ = _open(pictures[late], first)
    seen = [0, int(detector.policy.plan.views(2)[-1])]  # type: ignore[attr-defined]
    mean = first.engine.embed(pixels[seen]).mean(axis=0)
    assert np.allclose(rows.embeddings[late], mean, atol=2e-2)

    figures = client.get("/metrics").text
    by_stage = sum(
        float(line.split()[-1]) for line in figures.splitlines() if line.startswith("workzone_stage_total{")
    )
    assert by_stage == len(expected)
    (spent,) = (line for line in figures.splitlines() if line.startswith("workzone_cost_total{"))
    assert float(spent.split()[-1]) == pytest.approx(sum(e.cost or 0.0 for e in expected))
    assert client.get("/readyz").status_code == 200
    about = client.get("/v1/model").json()
    assert about["engine"] == "onnxruntime-fp32 > onnxruntime-fp32"
    assert set(about["thresholds"]) == {"t_low", "t_high"}


def _open(picture: bytes, member: Any) -> Any:
    from workzone.vision import open_views

    return open_views(picture, member.preprocessing)


def test_a_budget_moves_the_operating_point_and_not_the_golden_answers(
    start: Start, chain: Path, pictures: list[bytes]
) -> None:
    model = Model.load(chain, threads=1)
    model.spend(0.05)
    client = start(model, bundle=chain)
    model.check(every_case=True)
    assert model.void == ()
    answers = [client.post("/v1/predict", content=p, headers=RAW).json() for p in pictures]
    assert {a["stage"] for a in answers} == {1}
    assert [a["cost"] for a in answers] == pytest.approx([1 / 22] * len(answers))
    assert client.get("/readyz").status_code == 200
    model.spend(1.0)
    assert client.post("/v1/predict", content=pictures[0], headers=RAW).json()["cost"] == pytest.approx(1.0)
    model.check(every_case=True)
    assert model.void == ()
    with pytest.raises(ConfigError, match="less than one look"):
        model.spend(0.001)


def test_without_a_cascade_there_is_no_budget(model: Model) -> None:
    with pytest.raises(ConfigError, match="no budget to choose"):
        model.spend(0.5)
    done = CliRunner().invoke(app, ["serve", str(model.detector.folder), "--budget", "0.5", "--port", "0"])
    assert "no budget to choose" in str(done.exception)


def test_the_protocol_tells_stage_and_cost(start: Start, chain: Path, pictures: list[bytes]) -> None:
    model = Model.load(chain, threads=1)
    client, expected = start(model, bundle=chain), model.detector(pictures[0])
    about = client.get(f"/v2/models/{model.name}").json()
    assert about["platform"] == "workzone_cascade"
    kinds = {o["name"]: o["datatype"] for o in about["outputs"]}
    assert (kinds["stage"], kinds["cost"]) == ("INT64", "FP64")
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(pictures[0]).decode()]}
    told = client.post(f"/v2/models/{model.name}/infer", json={"inputs": [tensor]}).json()
    found = {o["name"]: o["data"] for o in told["outputs"]}
    assert (found["stage"], found["cost"]) == ([expected.stage], [pytest.approx(expected.cost)])
    body = {"inputs": [tensor], "outputs": [{"name": "stage", "parameters": {"binary_data": True}}]}
    packed = client.post(f"/v2/models/{model.name}/infer", json=body)
    length = int(packed.headers["inference-header-content-length"])
    assert int.from_bytes(packed.content[length:], "little") == expected.stage


def test_a_changed_member_voids_the_certificate(
    start: Start, chain: Path, pictures: list[bytes], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(chain, tmp_path / "bundle"))
    model = Model.load(copy, threads=1)
    client = start(model, bundle=copy)
    with (copy / "members" / "2" / "policy.json").open("ab") as stream:
        stream.write(b"\n")
    model.check()
    assert client.post("/v1/predict", content=pictures[0], headers=RAW).json()["certificate"]["status"] == "void"
    answer = client.get("/readyz")
    assert (answer.status_code, "members/2" in answer.text) == (503, True)


def test_the_registry_keeps_and_promotes_a_cascade(chain: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    registry.add(chain, "1.0.0")
    gates = {g.name: g for g in registry.promote("1.0.0", force="a tiny run promises little")}
    assert gates["verify"].passed
    assert "member 2" in gates["parity"].detail
    assert registry.state().added["1.0.0"].values["engine"] == "onnxruntime-fp32 > onnxruntime-fp32"
    assert all(g.passed for g in registry.verify())
    registry.add(tiny_bundle, "1.1.0")
    # The runs have the same images, so the figures of the two are compared.
    (figures,) = (g for g in registry.promote("1.1.0", force="to go on") if g.name == "figures")
    assert figures.passed is not None


def test_the_monitor_takes_the_log_of_a_cascade(
    start: Start, chain: Path, pictures: list[bytes], tmp_path: Path
) -> None:
    log = tmp_path / "log.db"
    client = start(Model.load(chain, threads=1), bundle=chain, log_db=log)
    for _ in range(10):
        files = [("file", (f"{n}.png", pictures[n % len(pictures)])) for n in range(12)]
        assert client.post("/v1/predict", files=files).status_code == 200
    client.app.state.service.log.close()
    words = ["monitor", "freeze", str(chain), str(log), "--out", str(tmp_path / "reference.parquet")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    words = ["monitor", "run", "--bundle", str(chain), "--log", str(log), "--out", str(tmp_path / "monitor")]
    done = CliRunner().invoke(app, [*words, "--reference", str(tmp_path / "reference.parquet"), "--once"])
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "monitor" / "monitor.json").read_text())
    assert told["bundle"]["sha256"] == json.loads((chain / "bundle.json").read_text())["sha256"]
