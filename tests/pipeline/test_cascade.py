"""A run whose policy is a cascade, from the plan on val_calib to ``predict --budget``."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.command import environment, workzone
from helpers.tiny import tiny_words
from workzone.bundle import Detector
from workzone.config.load import load_config
from workzone.decisions.policies.cascade import CascadePolicy
from workzone.errors import ConfigError
from workzone.pipeline.cascade import auto_stages
from workzone.predictions import Predictions

pytestmark = pytest.mark.timeout(600)
WORDS = (
    "decide.policy=cascade",
    "decide.stages=[1,2,5]",
    "decide.budget=0.6",
    "decide.target_fnr=0.7",
    "calibrate.method=none",
)


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run with a cascade instead of its policy."""
    out = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("cascade") / tiny_run.name))
    done = workzone("run", *tiny_words(out, tiny_run.parent / "cache", *WORDS))
    assert done.returncode == 0, done.stderr
    assert "train: up to date" in done.stderr
    return out


def policy(run: Path) -> CascadePolicy:
    found = Detector.load(run / "bundle").policy
    assert isinstance(found, CascadePolicy)
    return found


def test_the_bundle_is_good_and_holds_the_plan(run: Path) -> None:
    done = workzone("verify", run / "bundle")
    assert done.returncode == 0, done.stdout
    cascade = policy(run)
    assert cascade.plan.stages == (1, 2, 5)
    assert len(cascade.plan.points) >= 3
    assert cascade.plan.points[cascade.active].cost <= 0.6
    certificate = json.loads((run / "bundle" / "certificate.json").read_text())
    (promise,) = certificate["guarantees"]
    assert promise["method"].startswith(f"Clopper-Pearson, fixed sequence over {len(cascade.plan.points)} operating")
    assert promise["n"] == cascade.n
    case = json.loads((run / "bundle" / "golden" / "cases.json").read_text())
    assert case["cases"]


def test_the_evaluation_reports_the_curve(run: Path) -> None:
    report = json.loads((run / "evaluate" / "cascade.json").read_text())
    assert (run / "evaluate" / "cascade.png").read_bytes().startswith(b"\x89PNG")
    costs = [row["cost"]["value"] for row in report["curve"]]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] == 1.0
    assert costs[-1] == pytest.approx(0.2)
    assert sum(row["chosen"] for row in report["curve"]) == 1
    assert sum(stage["n"] for stage in report["chosen"]["stages"]) == report["n"]
    saved = Predictions.load(run / "evaluate" / "predictions.parquet")
    (chosen,) = (row for row in report["curve"] if row["chosen"])
    assert np.mean(saved.columns["cost"].astype(float)) == pytest.approx(chosen["cost"]["value"])
    right = (saved.columns["probability"].astype(float) >= 0.5) == (saved.labels == 1)
    assert chosen["accuracy"]["value"] == pytest.approx(right.mean())
    deferral = report["deferral"]
    curve = deferral["curve"]
    assert curve["by_doubt"][0] == curve["at_random"][0] == curve["oracle"][0]
    assert all(o >= d - 1e-9 for o, d in zip(curve["oracle"], curve["by_doubt"], strict=True))
    assert 0 <= deferral["accuracy"]["value"] <= 1


def test_predict_decides_as_the_evaluation_did(run: Path) -> None:
    saved = Predictions.load(run / "evaluate" / "predictions.parquet")
    paths = [str(p) for p in saved.columns["path"]]
    done = workzone("predict", "--bundle", run / "bundle", "--format", "jsonl", "--views", *paths)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["stage"] for r in rows] == saved.columns["stage"].tolist()
    assert [r["cost"] for r in rows] == pytest.approx(saved.columns["cost"].tolist())
    assert [len(r["views"]) for r in rows] == [round(5 * r["cost"]) for r in rows]
    assert [r["decision"] for r in rows] == saved.columns["decision"].tolist()
    assert [r["probability"] for r in rows] == pytest.approx(saved.columns["probability"].tolist(), abs=1e-4)


def test_each_picture_has_its_own_order_of_the_finer_tiles(tiny_run: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(tiny_run, tmp_path / tiny_run.name))
    words = ["decide.policy=cascade", "decide.budget=0.6", "decide.target_fnr=0.7", "calibrate.method=none"]
    done = workzone("run", *tiny_words(out, tiny_run.parent / "cache", *words, "views.pyramid=[[3,3]]"))
    assert done.returncode == 0, done.stderr
    plan = policy(out).plan
    assert (plan.stages, plan.focus) == ((2, 5, 6, 14), 5)
    saved = Predictions.load(out / "evaluate" / "predictions.parquet")
    reached = saved.columns["stage"].astype(int)
    assert (reached >= 3).any(), "some picture must be looked at behind the focus"
    paths = [str(p) for p in saved.columns["path"]]
    done = workzone("predict", "--bundle", out / "bundle", "--format", "jsonl", "--views", *paths)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["stage"] for r in rows] == reached.tolist()
    assert [len(r["views"]) for r in rows] == [round(14 * r["cost"]) for r in rows]
    assert [r["probability"] for r in rows] == pytest.approx(saved.columns["probability"].tolist(), abs=1e-4)
    assert json.loads((out / "evaluate" / "cascade.json").read_text())["focus"] == 5
    assert workzone("verify", out / "bundle").returncode == 0


def test_predict_takes_a_budget(run: Path, tmp_path: Path) -> None:
    paths = [str(p) for p in Predictions.load(run / "evaluate" / "predictions.parquet").columns["path"]]
    spent = {}
    for budget in ("1", "0.2", "3"):
        out = tmp_path / f"{budget}.csv"
        done = workzone("predict", "--bundle", run / "bundle", "--budget", budget, "--out", out, *paths)
        assert done.returncode == 0, done.stderr
        assert "Operating point" in done.stderr
        assert "ertif" in done.stderr or "With confidence" in done.stderr
        with out.open() as stream:
            spent[budget] = np.mean([float(row["cost"]) for row in csv.DictReader(stream)])
    assert spent["1"] == 1.0
    assert spent["0.2"] == pytest.approx(0.2)
    assert spent["0.2"] <= spent["3"] <= 1.0


def test_a_budget_needs_the_light_core_alone(run: Path) -> None:
    image = str(next((run / "bundle" / "golden").glob("*.png")))
    code = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('scipy', 'polars', 'torch', 'matplotlib'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "sys.argv = ['workzone', *sys.argv[1:]]\n"
        "from workzone.cli.main import main; main()\n"
    )
    words = ["predict", "--bundle", str(run / "bundle"), "--budget", "0.6", "--format", "jsonl", image]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert "Operating point" in done.stderr
    assert json.loads(done.stdout)["stage"] >= 1


def test_a_budget_that_cannot_be_kept_is_refused(run: Path, tiny_bundle: Path) -> None:
    image = str(next((run / "bundle" / "golden").glob("*.png")))
    done = workzone("predict", "--bundle", run / "bundle", "--budget", "0.05", image)
    assert done.returncode == 2
    assert "less than one look costs" in done.stderr
    done = workzone("predict", "--bundle", tiny_bundle, "--budget", "0.5", image)
    assert done.returncode == 2
    assert "no budget to choose" in done.stderr


def test_a_budget_without_a_certified_point_says_so(run: Path, tiny_run: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run, tmp_path / run.name))
    words = (*WORDS[:3], "decide.target_fnr=0.01", "calibrate.method=none")
    done = workzone("run", *tiny_words(out, tiny_run.parent / "cache", *words))
    assert done.returncode == 0, done.stderr
    image = str(next((out / "bundle" / "golden").glob("*.png")))
    done = workzone("predict", "--bundle", out / "bundle", "--budget", "0.6", "--format", "jsonl", image)
    assert "Not certifiable" in done.stderr
    row = json.loads(done.stdout)
    assert "uncertified" in row["reason"] or row["decision"] == "abstain"


def test_a_cascade_is_evaluated_and_explained_from_its_bundle(run: Path, tmp_path: Path) -> None:
    image = str(next((run / "bundle" / "golden").glob("*.png")))
    done = workzone("explain", run / "bundle", image, "--out", tmp_path / "seen", "--orders", "0", "--grid", "2")
    assert done.returncode == 0, done.stderr
    (found,) = (json.loads(p.read_text()) for p in (tmp_path / "seen").glob("*.json"))
    assert len(found["views"]) == 5, "what is explained is the answer of all views"
    saved = Predictions.load(run / "evaluate" / "predictions.parquet")
    table = tmp_path / "table.csv"
    lines = [f"{p},{y}" for p, y in zip(saved.columns["path"], np.asarray(saved.labels).tolist(), strict=True)]
    table.write_text("\n".join(["path,label", *lines]))
    done = workzone("evaluate", run / "bundle", table, "--out", tmp_path / "again", "resamples=100")
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "again" / "metrics_summary.json").read_text())
    first = json.loads((run / "evaluate" / "metrics_summary.json").read_text())
    for name in ("auroc", "mcc"):
        values = [s["systems"]["argmax"]["natural"][name]["value"] for s in (first, again)]
        assert values[0] == pytest.approx(values[1]), name


def test_stages_by_themselves() -> None:
    assert auto_stages(10) == (2, 4, 10)
    assert auto_stages(5) == (1, 2, 5)
    assert auto_stages(2) == (1, 2)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("views.layout=adaptive",), "same views of every image"),
        (("views.layout=global",), "several views"),
        (("decide.stages=[1,4,9]",), "number of views, 35"),
        (("decide.stages=[4,1,35]",), "rise"),
        (("decide.budget=0.02",), "no share of the cost"),
        (("decide.budget=36",), "no share of the cost"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, more: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config(["data=synthetic", f"out={tmp_path / 'run'}", "decide.policy=cascade", *more])
