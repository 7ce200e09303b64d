from __future__ import annotations

import numpy as np
import pytest

from workzone.config.run import AugmentConfig, TrainConfig
from workzone.data.roles import SelectData, TrainData
from workzone.errors import DataError
from workzone.training import adapt
from workzone.training.search import Trial, _mcc, choose, hold_back, search_policy
from workzone.training.selection import select_scores


def images(n: int = 60, size: int = 3) -> TrainData:
    """Groups of ``size`` images of one label."""
    groups = np.arange(n) // size
    labels = groups % 2
    ids = np.array([f"{i}-{label}" for i, label in enumerate(labels)])
    return TrainData(ids=ids, labels=labels, groups=np.array([f"g{g}" for g in groups]), paths=ids)


def draw(path: str) -> np.ndarray:
    index, label = (int(part) for part in path.split("-"))
    view = np.random.default_rng(index).integers(60, 120, (32, 32, 3), dtype=np.uint8)
    if label:
        view[8:20, 8:20] = (250, 120, 10)
    return view


SETTINGS = TrainConfig(method="full", augment="none", batch_size=16, hidden=0, lr=3e-3, backbone_lr=1e-3)
SEARCH = AugmentConfig(search=True, policies=("light", "augmix_3"), epochs=1)


def run(tiny, folder, search=SEARCH, settings=SETTINGS, seed=0):
    return search_policy(tiny(), images(), settings, search, seed=seed, folder=folder, load=draw)


def test_groups_stay_whole_and_both_parts_have_both_classes():
    train = images()
    for seed in range(20):
        learned, held = hold_back(train, 0.25, seed)
        assert isinstance(held, SelectData)
        assert not set(learned.groups) & set(held.groups)
        assert len(learned) + len(held) == len(train)
        assert 0.15 < len(held) / len(train) < 0.32
        assert 0 < held.n_positive < len(held)
    assert hold_back(train, 0.25, 1)[1].fingerprint != hold_back(train, 0.25, 2)[1].fingerprint
    with pytest.raises(DataError, match="whole groups"):
        hold_back(images(6, 3), 0.25, 0)


def test_a_killed_search_goes_on_and_other_settings_start_anew(tiny, tmp_path, monkeypatch):
    whole = run(tiny, tmp_path / "whole")
    assert [t.policy for t in whole.trials] == ["none", "light", "augmix_3"]
    calls: list[str] = []
    real = adapt.adapt_backbone

    def killed(backbone, train, select, config, **more):
        calls.append(config.augment)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(backbone, train, select, config, **more)

    monkeypatch.setattr(adapt, "adapt_backbone", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path / "killed")
    done = run(tiny, tmp_path / "killed")
    assert calls == ["none", "light", "light", "augmix_3"]
    assert [(t.policy, t.log_odds) for t in done.trials] == [(t.policy, t.log_odds) for t in whole.trials]
    assert done.gains == whole.gains
    run(tiny, tmp_path / "killed", settings=SETTINGS.model_copy(update={"lr": 1e-3}))
    assert len(calls) == 7


def test_no_trial_starts_after_the_budget_but_the_preset_is_tried(tiny, tmp_path):
    done = run(tiny, tmp_path, SEARCH.model_copy(update={"minutes": 1e-9}))
    assert [t.policy for t in done.trials] == ["none"]
    assert done.left == (("light", 0), ("augmix_3", 0))
    assert done.augment == "none"


def trial(policy: str, seed: int, scores: np.ndarray) -> Trial:
    return Trial(policy, seed, 0.0, 1.0, tuple(scores.tolist()), "")


def test_a_policy_is_taken_only_beyond_chance():
    train = images(240, 3)
    held = SelectData(ids=train.ids, labels=train.labels, groups=train.groups)
    truth = np.where(held.labels > 0, 1.0, -1.0)
    rng = np.random.default_rng(0)

    def wrong(share: float) -> np.ndarray:
        return truth * np.where(rng.random(len(truth)) < share, -1.0, 1.0)

    bad, little, good = wrong(0.3), wrong(0.28), wrong(0.02)
    found = choose("none", [trial("none", 0, bad), trial("light", 0, little)], held)
    assert found.augment == "none"
    assert found.gains["light"][1] < 0
    found = choose("none", [trial("none", 0, bad), trial("light", 0, little), trial("augmix_3", 0, good)], held)
    assert found.augment == "augmix_3"
    gain, low, high = found.gains["augmix_3"]
    assert 0 < low < gain < high
    assert "n=240 in 80 groups" in found.why
    # A policy whose other seed is missing is compared on the seeds that both have.
    both = choose("none", [trial("none", 0, bad), trial("none", 1, good), trial("light", 1, good)], held)
    assert both.gains["light"] == (0.0, 0.0, 0.0)


def test_mcc_is_that_of_selection():
    rng = np.random.default_rng(1)
    labels, scores, groups = rng.integers(0, 2, 50), rng.normal(size=50), np.arange(50) // 5
    assert _mcc(np.ones((1, 10)), scores, labels, groups)[0] == pytest.approx(select_scores(scores, labels)["mcc"])
    weights = np.zeros((1, 10))
    weights[0, 3] = 2.0
    rows = np.repeat(np.flatnonzero(groups == 3), 2)
    assert _mcc(weights, scores, labels, groups)[0] == pytest.approx(select_scores(scores[rows], labels[rows])["mcc"])
    assert _mcc(np.ones((1, 10)), np.ones(50), labels, groups)[0] == 0.0
