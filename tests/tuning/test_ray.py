"""Ablations and sweeps by tasks of a Ray cluster give what processes of this machine give."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from helpers.command import workzone
from helpers.tiny import tiny_words
from workzone.cluster import launcher_of
from workzone.errors import ConfigError
from workzone.tuning.pool import open_pool
from workzone.tuning.sweep import SweepPlan, _ask_and_tell, _grid

BOTH = ("local", "ray")


def test_launchers_are_named() -> None:
    assert [launcher_of(name) for name in BOTH] == list(BOTH)
    with pytest.raises(ConfigError, match="slurm"):
        launcher_of("slurm")


class Cheap:
    """In place of an objective: the figure of a trial is the length of a hypotenuse."""

    plan = SweepPlan(seeds=2, workers=2)

    def config(self, trial: Any) -> float:
        return float(trial.suggest_categorical("a", [3.0, 5.0]) * trial.suggest_categorical("b", [1.0, 2.0, -1.0]))

    train = staticmethod(math.hypot)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_trials_run_on_a_cluster_and_are_told_here(
    ray_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    optuna = pytest.importorskip("optuna")
    for name, value in ray_environment.items():
        monkeypatch.setenv(name, value)
    space = {"a": [3.0, 5.0], "b": [1.0, 2.0, -1.0]}
    study = optuna.create_study(sampler=_grid(space, 0), pruner=optuna.pruners.NopPruner())
    with open_pool("ray", 2) as pool:
        assert len(list(_ask_and_tell(study, Cheap(), pool, 6))) == 6  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="math domain"):
            pool.submit(math.sqrt, -1.0).result()
    found = {(t.params["a"], t.params["b"]): t.value for t in study.trials}
    assert found == {
        (a, b): pytest.approx((abs(a * b) + math.hypot(a * b, 1)) / 2) for a in (3.0, 5.0) for b in (1.0, 2.0, -1.0)
    }


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_an_ablation_is_the_same(tiny_run: Path, tmp_path: Path, ray_environment: dict[str, str]) -> None:
    words = tiny_words(tmp_path / "unused", tiny_run.parent / "cache", "split.train=0.6", "split.val_calib=0.1")
    call = ["ablate", *words, "--vary", "fuse.aggregator=logsumexp", "--folds", "2", "--resamples", "100"]
    call += ["--fewest", "2", "--metric", "auroc", "--workers", "2"]
    found = {}
    for name in BOTH:
        done = workzone(*call, "--out", str(tmp_path / name), "--launcher", name, env=ray_environment, timeout=700)
        assert done.returncode == 0, done.stderr
        found[name] = json.loads((tmp_path / name / "ablation.json").read_text())
        for row in found[name]["rows"]:
            del row["seconds_per_training"]
    assert len(found["ray"]["rows"]) == 3
    assert found["ray"]["rows"] == found["local"]["rows"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_grid_is_the_same(tiny_run: Path, tmp_path: Path, ray_environment: dict[str, str]) -> None:
    pytest.importorskip("optuna")
    words = tiny_words(tmp_path / "unused", tiny_run.parent / "cache")
    call = ["sweep", *words, "--space", "fuse.lr=1e-4..1e-2:log", "--space", "fuse.k=1,2", "--sampler", "grid"]
    call += ["--steps", "2", "--seeds", "2", "--workers", "2"]
    found, best = {}, {}
    for name in BOTH:
        done = workzone(*call, "--out", str(tmp_path / name), "--launcher", name, env=ray_environment, timeout=700)
        assert done.returncode == 0, done.stderr
        header, *rows = (tmp_path / name / "trials.csv").read_text().splitlines()
        assert header == "trial,state,nll,seconds,fuse.k,fuse.lr"
        # Without the number and the seconds of a trial; one that was pruned had its neighbours finished at other times.
        found[name] = {tuple(row[4:]): (row[1], float(row[2])) for row in (line.split(",") for line in rows)}
        best[name] = json.loads((tmp_path / name / "sweep.json").read_text())["best"]
    assert len(found["ray"]) == 4
    assert {state for state, _ in found["ray"].values()} == {"complete"}
    assert found["ray"] == found["local"]
    assert best["ray"]["params"] == best["local"]["params"]
