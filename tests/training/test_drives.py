"""Attention over the frames of a drive: trained with torch, run with numpy, judged on drives that were left out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from workzone.decisions.attention import EvidenceAttention, TrainedAttention
from workzone.decisions.pooling import MAX_EVIDENCE, pool_from_dict
from workzone.errors import BundleError, ConfigError, DataError
from workzone.pipeline.commands.drives import fit_drives
from workzone.training.drives import (
    AttentionSettings,
    DriveFrames,
    FrameAttention,
    _pack,
    _packs,
    _steps,
    fit_attention,
    out_of_fold,
)

PLAN = AttentionSettings(components=3, steps=60, checks=3, folds=3)


def drive(seed: int, n: int = 40, noise: float = 2.0) -> DriveFrames:
    """Stretches of one state, seen through noise: neighbours know what a frame alone does not."""
    rng = np.random.default_rng(seed)
    state = (np.arange(n) // 8 + rng.integers(2)) % 2
    scores = (2 * state - 1) + rng.normal(0, noise, n)
    embeddings = rng.normal(size=(n, 6)).astype(np.float32)
    labels = np.where(rng.random(n) < 0.8, state, -1)
    return DriveFrames(f"d{seed}", np.arange(n, dtype=np.float64), scores, labels.astype(np.int64), embeddings)


def nll(drives: list[DriveFrames], scores: list[np.ndarray]) -> float:
    y = np.concatenate([d.labels for d in drives])
    s = np.concatenate(scores)[y >= 0]
    y = y[y >= 0]
    return float(np.mean(np.logaddexp(0.0, np.where(y == 1, -s, s))))


@pytest.mark.parametrize("components", [0, 3])
def test_numpy_and_torch_agree(components: int) -> None:
    plan = replace(PLAN, components=components)
    drives = [drive(i) for i in range(3)]
    fit = fit_attention(drives, plan)
    rng = np.random.default_rng(0)
    loud = replace(
        fit.pool, gain=rng.normal(size=2), mean=rng.normal(size=fit.pool.mean.shape), bias=rng.normal(size=1)
    )
    model = FrameAttention(components + 1, plan, 0)
    with torch.no_grad():
        for name in ("query", "key", "gain", "mean", "bias"):
            getattr(model, name).copy_(torch.from_numpy(getattr(loud, name)))
        model.raw_decay.copy_(torch.log(torch.expm1(torch.from_numpy(loud.decay))))
        wild = replace(drives[0], log_odds=drives[0].log_odds * 4)
        short = drive(1, n=9)
        pack = _pack([wild, short], loud.centre, loud.basis)
        expected = model(pack.tokens, pack.log_odds, pack.seconds, pack.there).numpy()
    np.testing.assert_allclose(loud(wild.log_odds, wild.seconds, wild.embeddings), expected[0], atol=2e-4)
    np.testing.assert_allclose(loud(short.log_odds, short.seconds, short.embeddings), expected[1, :9], atol=2e-4)
    assert np.abs(pack.log_odds.numpy()).max() == MAX_EVIDENCE


def test_it_starts_at_the_single_frame_and_learns_what_neighbours_know() -> None:
    drives = [drive(i) for i in range(8)]
    untrained = FrameAttention(4, PLAN, 0)
    pack = _pack(drives[:1], np.zeros(6), np.zeros((6, 3)))
    torch.testing.assert_close(untrained(pack.tokens, pack.log_odds, pack.seconds), pack.log_odds)
    fit = fit_attention(drives, PLAN)
    assert fit.steps > 0
    assert fit.trace[-1] < 0.8 * fit.trace[0]
    assert np.isfinite(fit.trace).all()
    fresh = [drive(100 + i) for i in range(6)]
    pooled = [fit.pool(d.log_odds, d.seconds, d.embeddings) for d in fresh]
    assert nll(fresh, pooled) < 0.9 * nll(fresh, [d.log_odds for d in fresh])
    again = fit_attention(drives, PLAN)
    np.testing.assert_array_equal(again.pool.query, fit.pool.query)


def test_embeddings_are_used_where_they_tell_what_scores_do_not() -> None:
    def told(seed: int) -> DriveFrames:
        one = drive(seed)
        rng = np.random.default_rng(seed)
        sign = np.where(one.labels >= 0, 2 * one.labels - 1, 0)
        embeddings = one.embeddings.copy()
        embeddings[:, 0] = 3 * sign + rng.normal(0, 0.3, len(sign))
        return replace(one, embeddings=embeddings)

    drives, fresh = [told(i) for i in range(6)], [told(50 + i) for i in range(4)]
    losses = []
    for components in (0, 3):
        pool = fit_attention(drives, replace(PLAN, components=components, steps=120)).pool
        assert isinstance(pool, TrainedAttention)
        assert isinstance(pool, EvidenceAttention) == (components == 0)
        losses.append(nll(fresh, [pool(d.log_odds, d.seconds, d.embeddings) for d in fresh]))
    assert losses[1] < 0.8 * losses[0]


def test_noise_leaves_the_single_frame_as_it_is() -> None:
    def certain(seed: int) -> DriveFrames:
        one = drive(seed)
        state = np.random.default_rng(seed).integers(0, 2, len(one.labels))
        return replace(one, log_odds=4.0 * (2 * state - 1), labels=state)

    fit = fit_attention([certain(i) for i in range(6)], replace(PLAN, components=0, lr=0.2))
    new = certain(77)
    if fit.steps == 0:
        np.testing.assert_allclose(fit.pool(new.log_odds, new.seconds, new.embeddings), new.log_odds)
    assert nll([new], [fit.pool(new.log_odds, new.seconds, new.embeddings)]) < nll([new], [new.log_odds]) + 0.02
    # Of two numbers of steps that hardly differ the single frame is kept; a clear gain is taken.
    assert _steps({0: 1.0, 9: 0.99}, {0: [5.0, 1.0, 2.0], 9: [4.0, 1.9, 1.97]}) == 0
    assert _steps({0: 1.0, 9: 0.5}, {0: [5.0, 5.0, 5.0], 9: [2.0, 2.5, 2.4]}) == 9


def test_a_drive_is_scored_by_pools_that_never_saw_it() -> None:
    drives = [drive(i, n=24) for i in range(4)]
    plan = replace(PLAN, steps=20)
    scores = out_of_fold(drives, plan)
    turned = [replace(drives[0], labels=np.where(drives[0].labels >= 0, 1 - drives[0].labels, -1)), *drives[1:]]
    np.testing.assert_allclose(out_of_fold(turned, plan)[0], scores[0])
    own = fit_attention(drives[1:], plan).pool(drives[0].log_odds, drives[0].seconds, drives[0].embeddings)
    np.testing.assert_allclose(scores[0], own)


def test_a_fitted_score_says_what_it_is_worth() -> None:
    found = fit_drives([drive(i) for i in range(6)], PLAN, resamples=200)
    row = found.figures["metrics"]["nll"]
    assert row["difference"][0] == pytest.approx(row["pooled"][0] - row["single"][0])
    assert row["difference"][1] <= row["difference"][0] <= row["difference"][2] < 0
    assert found.score.drives == 6
    again = type(found.score).from_dict(json.loads(json.dumps(found.score.to_dict())))
    one = drive(9)
    np.testing.assert_allclose(
        again(one.log_odds, one.seconds, one.embeddings), found.score(one.log_odds, one.seconds, one.embeddings),
        atol=1e-5,
    )  # fmt: skip


def test_what_cannot_be_trained_is_refused() -> None:
    same = [replace(drive(i), labels=np.ones(40, dtype=np.int64)) for i in range(3)]
    for wrong, told in (([drive(0)], "1 drives have labels"), (same, "one class")):
        with pytest.raises(DataError, match=told):
            fit_attention(wrong, PLAN)
    with pytest.raises(DataError, match="too few"):
        fit_drives([drive(0), drive(1)], PLAN)
    with pytest.raises(ConfigError, match="heads"):
        replace(PLAN, heads=0)


def test_stored_numbers_are_checked() -> None:
    pool = fit_attention([drive(i, n=16) for i in range(3)], replace(PLAN, steps=2)).pool
    stored = json.loads(json.dumps(pool.to_dict()))
    assert pool_from_dict(stored).to_dict() == stored
    wrong_width = np.zeros((16, 5))
    with pytest.raises(DataError, match="width 6, these have 5"):
        pool(np.zeros(16), np.arange(16.0), wrong_width)
    for change in (
        lambda p: p.pop("key"),
        lambda p: p["key"].update(shape=[1, 2]),
        lambda p: p["key"]["values"].__setitem__(0, "x"),
        lambda p: p["decay"]["values"].__setitem__(0, -1.0),
        lambda p: p.update(gain={"shape": [3], "values": [0, 0, 0]}),
        lambda p: p.update(gain=[1, 2]),
    ):
        broken = json.loads(json.dumps(stored))
        change(broken["parameters"])
        with pytest.raises(BundleError):
            pool_from_dict(broken)


def test_a_long_drive_is_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [drive(i, n=n) for i, n in enumerate((40, 990, 8))]
    lengths = [len(p.labels) for p in _packs(some, np.zeros(0), np.zeros((0, 0)))]
    assert lengths == [2, 1]
    pool = fit_attention([drive(i) for i in range(3)], replace(PLAN, steps=5)).pool
    loud = replace(pool, gain=np.array([0.5, 0.7]), mean=np.ones_like(pool.mean))
    one = drive(5)
    whole = loud(one.log_odds, one.seconds, one.embeddings)
    monkeypatch.setattr("workzone.decisions.attention._PAIRS", 100)
    np.testing.assert_allclose(loud(one.log_odds, one.seconds, one.embeddings), whole)
