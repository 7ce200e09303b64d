from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from helpers.orange import orange_bundle, orange_chain, orange_scene

pytest.importorskip("onnx")
Call = Callable[..., "object"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return orange_bundle(tmp_path_factory.mktemp("orange") / "bundle")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene [1].png"
    orange_scene().save(path)
    return path


def test_table_picture_and_file(call: Call, bundle: Path, scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = call("explain", bundle, scene, "--out", out)
    assert answer.code == 0, answer.err
    assert "scene [1].png: roadwork, P(roadwork) 1.000, log-odds +10.07" in answer.out
    assert "Certificate: No promise is made" in answer.out
    first = next(line for line in answer.out.splitlines() if line.strip().startswith("4 "))
    assert "47% to 100% across, 47% to 100% down" in first
    assert first.rstrip().endswith("+9.312")
    assert "60% to 70% across, 50% to 67% down" in answer.out
    assert "Faithful: yes" in answer.out
    assert sorted(p.name for p in out.iterdir()) == ["scene [1].jpg", "scene [1].json"]
    with Image.open(out / "scene [1].jpg") as picture:
        assert picture.width > 1000
    stored = json.loads((out / "scene [1].json").read_text())
    assert stored["faithful"] is True
    assert stored["path"] == str(scene)


def test_json_of_several_images_with_bad_ones(call: Call, bundle: Path, scene: Path, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    orange_scene(square=None).save(folder / "scene [1].png")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("not looked at")
    out = tmp_path / "out"
    answer = call("explain", bundle, scene, folder, "-o", out, "-f", "json", "--grid", 4, "--orders", 0)
    assert answer.code == 1
    assert "empty.jpg: empty: " in answer.err
    found = json.loads(answer.out)
    assert found["bundle"] == "orange"
    names = [Path(i["path"]).name for i in found["images"]]
    assert names == ["scene [1].png", "empty.jpg", "scene [1].png"]
    assert [i["error"] for i in found["images"]] == [None, "empty", None]
    assert [i.get("verdict") for i in found["images"]] == ["not_checked", None, "nothing_to_explain"]
    assert sorted(p.name for p in out.iterdir()) == [
        "scene [1]-2.jpg", "scene [1]-2.json", "scene [1].jpg", "scene [1].json",
    ]  # fmt: skip
    assert len(found["images"][0]["heat"]) == 3


def test_an_interruption_leaves_no_half_picture(
    call: Call, bundle: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", stop)
    out = tmp_path / "out"
    assert call("explain", bundle, scene, "-o", out, "--orders", 0).code == 130
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["{scene}", "-f", "xml"], 2, "take table or json"),
        (["{scene}", "--fill", "black"], 2, "take mean, grey or blur"),
        (["{scene}", "--grid", "1"], 2, "--grid"),
        (["{scene}", "--grid", "99"], 2, "--grid"),
        (["{scene}", "-o", "{scene}"], 2, "the output is no folder"),
        (["{scene}", "--slice", "hour"], 2, "no COLUMN=VALUE"),
        (["{empty}"], 2, "the folder holds no images"),
        ([], 2, "IMAGE"),
    ],
)
def test_wrong_use(
    call: Call, bundle: Path, scene: Path, tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    answer = call("explain", bundle, *(w.format(scene=scene, empty=empty) for w in words))
    assert (answer.code, answer.out) == (code, "")
    assert says in answer.err
    assert "Traceback" not in answer.err


def test_no_bundle_there(call: Call, scene: Path, tmp_path: Path) -> None:
    answer = call("explain", tmp_path / "none", scene, "-o", tmp_path / "out")
    assert answer.code == 3
    assert "give the folder that holds bundle.json" in answer.err


def test_the_core_alone_is_needed(bundle: Path, scene: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    from helpers.command import environment

    code = (
        "import contextlib, sys\nfrom workzone.cli.main import main\n"
        "with contextlib.suppress(SystemExit):\n    main()\n"
        "heavy = {'torch', 'scipy', 'polars', 'matplotlib', 'jinja2', 'onnx', 'openvino'}\n"
        "print('heavy', sorted(heavy & {m.partition('.')[0] for m in sys.modules}))"
    )
    words = ["explain", bundle, scene, "-o", tmp_path / "out", "--orders", "0"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "heavy []", done.stderr
    assert (tmp_path / "out" / "scene [1].jpg").exists()


def test_a_cascade_of_models_says_who_answered(call: Call, scene: Path, tmp_path: Path) -> None:
    chain = orange_chain(tmp_path / "both", mean=True)
    out = tmp_path / "out"
    answer = call("explain", chain, scene, "--out", out, "--orders", 0)
    assert answer.code == 0, answer.err
    assert "Answered by model 2 of 2, orange (orange, onnxruntime-fp32), at stage 3 of 3" in answer.out
    assert "Model 1 looked before and passed it on." in answer.out
    predicted = json.loads(call("predict", scene, "--bundle", chain, "--format", "jsonl", "--views").out)
    stored = json.loads((out / "scene [1].json").read_text())
    assert {k: stored[k] for k in ("decision", "probability", "stage", "cost")} == {
        k: predicted[k] for k in ("decision", "probability", "stage", "cost")
    }
    assert [v["weight"] for v in stored["views"]] == [v["weight"] for v in predicted["views"]]
    assert stored["answered"]["passed_on"] == [1]
    assert call("explain", chain, scene, "-o", out, "--budget", "1.0", "--orders", 0).code == 0
    refused = call("explain", chain, scene, "-o", out, "--budget", "3", "--orders", 0)
    assert refused.code == 2
    assert "cannot be counted together" in refused.err
