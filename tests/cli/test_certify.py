"""``workzone certify`` and ``workzone decide`` as a person uses them."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from helpers.command import environment
from workzone.cli.main import app
from workzone.errors import WorkzoneError
from workzone.evaluation.given import load_given
from workzone.predictions import sigmoid

pytestmark = pytest.mark.e2e


def scores(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    honest = rng.normal(-1.0, 3.5, n)
    return (rng.random(n) < sigmoid(honest)).astype(int), sigmoid(2.0 * honest)


def light(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, and require that it ends well and without torch."""
    code = (
        "import sys\nfrom workzone.cli.main import main\ntry:\n    main()\nfinally:\n"
        "    print('modules', *sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = set(done.stderr.splitlines()[-1].split())
    assert "workzone" in found
    assert not found & {"torch", "timm", "lightning", "peft", "sklearn", "openvino"}
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certified table with test images, and scores of new images; tests only read it."""
    folder = tmp_path_factory.mktemp("certify")
    y, p = scores(2000, 0)
    split = np.where(np.arange(2000) % 4 == 3, "test", "calibration")
    frame = pl.DataFrame({"id": [f"i{i:05d}" for i in range(2000)], "label": y, "probability": p, "split": split})
    frame.write_csv(folder / "mine.csv")
    y, p = scores(1000, 1)
    pl.DataFrame({"id": [f"{i:04d}" for i in range(1000)], "probability": p, "label": y}).write_csv(folder / "new.csv")
    keys = ("decide.target_fnr=0.05", "evaluate.resamples=100", "evaluate.gallery=0")
    (folder / "said.txt").write_text(light("certify", folder / "mine.csv", *keys, "--out", folder / "rule").stdout)
    return folder


def test_the_result_is_said_and_written(place: Path) -> None:
    said = (place / "said.txt").read_text()
    assert "With confidence 0.95, the share of roadwork images that are answered 'no_roadwork' is at most 5.00%" in said
    assert "temperature is in use" in said
    assert "500 test images took no part" in said
    row = next(line for line in said.splitlines() if line.strip().startswith("promise: false negative rate"))
    assert "certified" in row
    assert (place / "rule/evaluation/report.html").stat().st_size > 50_000
    summary = json.loads((place / "rule/evaluation/metrics_summary.json").read_text())
    assert summary["n"] == 500
    assert {m["name"] for m in summary["calibrators"]} >= {"none", "temperature"}
    assert next(c for c in summary["contrasts"] if c["key"] == "calibration")["a"] == "the probabilities as given"
    measured = load_given(place / "rule/evaluation")
    assert measured.codes is not None
    record = json.loads((place / "rule/rule.json").read_text())
    assert set(record["files"]) == {
        p.relative_to(place / "rule").as_posix() for p in (place / "rule").rglob("*") if p.is_file()
    } - {"rule.json"}


def test_new_scores_are_decided(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "decided.csv"
    done = light("decide", place / "new.csv", "--by", place / "rule", "--out", out)
    assert "Nothing here can check that these scores come from the model that made mine.csv" in done.stderr
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert list(rows[0]) == ["id", "decision", "probability", "log_odds", "prediction_set", "reason"]
    assert [r["id"] for r in rows] == [f"{i:04d}" for i in range(1000)], "an id such as 0007 is a name"
    stored = json.loads((place / "rule/policy.json").read_text())["parameters"]
    label = np.array(pl.read_csv(place / "new.csv")["label"].to_list())
    p = np.array([float(r["probability"]) for r in rows])
    told = np.array([r["decision"] for r in rows])
    assert ((told == "no_roadwork") == (p < stored["t_low"])).all()
    assert ((told == "roadwork") == (p >= stored["t_high"])).all()
    assert (told[label == 1] == "no_roadwork").mean() < 0.1
    again = load_given(out)
    assert again.codes is not None, "the other commands read what decide writes"

    words = ("decide", place / "new.csv", "--by", place / "rule", "--format", "jsonl")
    lines = CliRunner().invoke(app, [str(w) for w in words]).stdout.splitlines()
    assert json.loads(lines[7])["id"] == "0007"
    assert json.loads(lines[7])["decision"] == rows[7]["decision"]


def test_the_folder_is_verified(place: Path, tmp_path: Path) -> None:
    good = CliRunner().invoke(app, ["verify", str(place / "rule")])
    assert good.exit_code == 0, good.output
    assert "0 of 500 test images are answered differently" in good.output
    assert good.output.endswith("The rule is good.\n")
    shutil.copytree(place / "rule", tmp_path / "rule")
    (tmp_path / "rule/evaluation/slices.json").write_text("{}")
    bad = CliRunner().invoke(app, ["verify", str(tmp_path / "rule")])
    assert bad.exit_code == 3
    assert "slices.json was changed: its hash is not the one in rule.json" in bad.output


def refused(*words: object) -> WorkzoneError:
    """What a command in this process ends with; ``main`` prints it and takes its exit code."""
    found = CliRunner().invoke(app, [str(w) for w in words]).exception
    assert isinstance(found, WorkzoneError), found
    return found


def test_bad_scores_are_named_by_row(place: Path, tmp_path: Path) -> None:
    for text, said in (
        ("id,probability\na,0.5\nb,1.5\n", "row 2, value 1.5"),
        ("id,probability\na,0.5\nb,NaN\n", "row 2"),
        ("id,probability\na,0.5\nb,0.1\na,0.2\n", "rows 1 and 3"),
        ("id,probability\na,0.5\n,0.1\n", "row 2"),
        ("id,score\na,0.5\n", "neither a column 'probability' nor 'log_odds'"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        error = refused("decide", tmp_path / "bad.csv", "--by", place / "rule", "--out", tmp_path / "out.csv")
        assert said in str(error)
        assert error.exit_code == 2
        assert not (tmp_path / "out.csv").exists()


def test_wrong_folders_and_keys_are_explained(place: Path, tmp_path: Path) -> None:
    table, new = place / "mine.csv", tmp_path / "x"
    stop = ("decide.target_fnr=0.001", "decide.if_not_certifiable=stop")
    for words, code, said in (
        (("decide", table, "--by", tmp_path), 3, "rule.json is missing"),
        (("certify", table, "--out", new, "decide.targt_fnr=0.1"), 2, "'decide.target_fnr' was meant"),
        (("certify", table, "--out", new, "train.lr=1"), 2, "calibrate, decide, evaluate"),
        (("certify", place / "rule", "--out", new), 2, "this is a folder"),
        (("certify", table, "--out", place), 2, "something else than a rule"),
        (("certify", tmp_path / "none.csv", "--out", new), 2, "no such file"),
        (("certify", table, "--out", new, *stop), 3, "Not certifiable"),
    ):
        error = refused(*words)
        assert error.exit_code == code
        assert said in str(error)
    assert not new.exists()
