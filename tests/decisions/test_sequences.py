from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest

from workzone.data.roles import CalibData, TestData
from workzone.decisions.pooling import (
    MAX_EVIDENCE,
    POOLS,
    Attention,
    Exponential,
    HiddenMarkov,
    Pool,
    TopMean,
    WindowMean,
    create_pool,
    pool_from_dict,
    pool_groups,
)
from workzone.decisions.sequences import DriveScore, intervals, threshold_codes
from workzone.errors import BundleError, ConfigError, DataError, LeakageError
from workzone.predictions import sigmoid

RNG = np.random.default_rng(0)
N = 30
S = RNG.normal(0, 3, N)
T = np.sort(RNG.uniform(0, 40, N))
E = RNG.normal(size=(N, 8)).astype(np.float32)
every_pool = pytest.mark.parametrize("pool", [cls() for cls in POOLS.values()], ids=list(POOLS))


@every_pool
def test_what_every_pool_keeps(pool: Pool) -> None:
    assert pool(S, T, E).shape == (N,)
    assert len(pool(np.array([]), np.array([]), np.zeros((0, 8)))) == 0
    np.testing.assert_allclose(pool(S, T + 100, E), pool(S, T, E), atol=1e-9)
    # Sureness has a limit, so that no infinity spreads.
    wild = S.copy()
    wild[3], wild[4] = np.inf, -np.inf
    tame = np.clip(wild, -MAX_EVIDENCE, MAX_EVIDENCE)
    np.testing.assert_allclose(pool(wild, T, E), pool(tame, T, E))
    # More evidence for roadwork nowhere lowers the score.
    for i in range(0, N, 7):
        more = S.copy()
        more[i] += 2
        assert (pool(more, T, E) >= pool(S, T, E) - 1e-9).all()
    again = pool_from_dict(json.loads(json.dumps(pool.to_dict())))
    assert again == pool
    assert type(again) is type(pool)


@every_pool
def test_what_every_pool_refuses(pool: Pool) -> None:
    bad = S.copy()
    bad[0] = np.nan
    with pytest.raises(DataError):
        pool(bad, T, E)
    with pytest.raises(DataError):
        pool(S, T[::-1], E)
    with pytest.raises(ValueError, match="one shape"):
        pool(S, T[:-1], E)
    for name in pool.to_dict()["parameters"]:
        for value in (0, -1.0, float("nan"), "1", None, True):
            with pytest.raises(ConfigError):
                create_pool(pool.name, **{name: value})
    with pytest.raises(ConfigError, match="no option"):
        create_pool(pool.name, colour=1)


@pytest.mark.parametrize("pool", [WindowMean(), Exponential(), TopMean(), Attention()], ids=lambda p: p.name)
def test_frames_that_agree_are_left_alone(pool: Pool) -> None:
    np.testing.assert_allclose(pool(np.full(N, 1.3), T, E), 1.3)


def test_mean_and_top_against_loops() -> None:
    near = np.abs(T[:, None] - T) <= 2.5
    np.testing.assert_allclose(WindowMean(seconds=5)(S, T), [S[row].mean() for row in near])
    np.testing.assert_allclose(TopMean(seconds=5, k=2)(S, T), [np.sort(S[row])[-2:].mean() for row in near])


def test_exponential_looks_back_only_and_halves() -> None:
    pool = Exponential(half_life=2.0)
    np.testing.assert_allclose(pool(np.array([3.0, 0.0]), np.array([0.0, 2.0])), [3.0, 0.5 * 3.0 / 1.5])
    later = S.copy()
    later[20:] = 5
    np.testing.assert_allclose(pool(later, T)[:20], pool(S, T)[:20])
    weight = 0.5 ** ((T[9] - T[:10]) / 2)
    assert pool(S, T)[9] == pytest.approx(float(weight @ S[:10] / weight.sum()))


def test_hidden_markov_against_all_paths() -> None:
    pool = HiddenMarkov(stay=5.0, prior=0.3, prevalence=0.6, trust=0.7)
    s, t = S[:7], np.array([0.0, 1, 2, 2.5, 6, 7, 20])
    share = np.array([0.7, 0.3])
    evidence = 0.7 * (s - np.log(0.6 / 0.4))
    total = np.zeros((7, 2))
    for path in product((0, 1), repeat=7):
        weight = share[path[0]]
        for i in range(1, 7):
            fade = np.exp(-(t[i] - t[i - 1]) / (5.0 * 0.7))
            weight *= fade * (path[i] == path[i - 1]) + (1 - fade) * share[path[i]]
        weight *= np.exp(sum(evidence[i] for i in range(7) if path[i]))
        for i in range(7):
            total[i, path[i]] += weight
    np.testing.assert_allclose(pool(s, t), np.log(total[:, 1] / total[:, 0]), rtol=1e-9)


def test_hidden_markov_of_a_long_sure_drive_stays_finite() -> None:
    s = np.where(np.arange(20_000) % 500 < 250, 50.0, -50.0)
    pooled = HiddenMarkov(stay=1e6)(s, np.arange(20_000) / 30)
    assert np.isfinite(pooled).all()
    assert (np.sign(pooled[100::250]) == np.sign(s[100::250])).all()


def test_a_single_frame_of_hidden_markov_is_itself() -> None:
    assert HiddenMarkov(trust=1.0)(np.array([1.7]), np.array([0.0]))[0] == pytest.approx(1.7)


def test_attention_against_a_loop_and_in_blocks() -> None:
    n = 700  # more than one block
    s, t, e = RNG.normal(size=n), np.arange(n) / 2, RNG.normal(size=(n, 5))
    pooled = Attention(temperature=0.3, seconds=2.0)(s, t, e)
    centred = e - e.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    for i in (0, 511, 512, 699):
        weight = np.exp(unit @ unit[i] / 0.3 - np.abs(t - t[i]) / 2.0)
        assert pooled[i] == pytest.approx(float(weight @ s / weight.sum()))
    same = Attention()(s, t, np.ones((n, 5)))
    assert np.isfinite(same).all()
    with pytest.raises(ValueError, match="needs embeddings"):
        Attention()(s, t)


def test_no_drive_sees_another() -> None:
    groups = np.array(["a", "b"] * (N // 2))
    order = RNG.permutation(N)
    pooled = pool_groups(Attention(), S, groups, T, E)
    for name in ("a", "b"):
        rows = groups == name
        np.testing.assert_allclose(pooled[rows], Attention()(S[rows], T[rows], E[rows]))
    np.testing.assert_allclose(pool_groups(Attention(), S[order], groups[order], T[order], E[order]), pooled[order])


def drives(n_drives: int, seed: int = 1) -> tuple[CalibData, np.ndarray]:
    """Frames whose mistakes last for seconds: pooled without calibration they are trusted too much."""
    rng = np.random.default_rng(seed)
    labels, scores, names, seconds = [], [], [], []
    for d in range(n_drives):
        y = np.repeat(rng.integers(0, 2, 4), 5)
        common = np.repeat(rng.normal(0, 2.5, 4), 5)
        labels.append(y)
        scores.append(np.where(y, 2.0, -2.0) + common + rng.normal(0, 0.5, 20))
        names += [f"d{d}"] * 20
        seconds.append(np.arange(20.0))
    data = CalibData.from_arrays(
        np.concatenate(labels), np.concatenate(scores), groups=names, ids=[str(i) for i in range(len(names))]
    )
    return data, np.concatenate(seconds)


def test_a_calibrator_of_its_own_lowers_the_loss_on_other_drives() -> None:
    data, seconds = drives(60)
    fresh, fresh_seconds = drives(60, seed=2)
    pool = HiddenMarkov(trust=1.0)
    fitted = DriveScore.fit(data, pool, seconds=seconds)
    assert (fitted.frames, fitted.drives) == (1200, 60)

    def loss(score: DriveScore) -> float:
        total = 0.0
        for name in np.unique(fresh.groups):
            rows = fresh.groups == name
            p = np.clip(score(fresh.scores[rows], fresh_seconds[rows]), 1e-12, 1 - 1e-12)
            total -= float(np.log(np.where(fresh.labels[rows] == 1, p, 1 - p)).sum())
        return total / len(fresh)

    assert loss(fitted) < loss(DriveScore(pool)) - 0.05
    again = DriveScore.from_dict(json.loads(json.dumps(fitted.to_dict())))
    np.testing.assert_array_equal(again(S, T), fitted(S, T))
    assert again.promise() == fitted.promise()
    assert "1200 frames of 60 drives" in fitted.promise()
    for score in (fitted, DriveScore(pool)):
        assert "not cover" in score.promise()
    np.testing.assert_allclose(DriveScore(pool)(S, T), sigmoid(pool(S, T)))


def test_fit_refuses_other_roles_and_a_single_drive() -> None:
    data, seconds = drives(3)
    with pytest.raises(LeakageError):
        DriveScore.fit(
            TestData.from_arrays(data.labels, data.scores, groups=data.groups),  # type: ignore[arg-type]
            WindowMean(),
            seconds=seconds,
        )
    one = data.groups == "d0"
    with pytest.raises(DataError, match="1 drive"):
        DriveScore.fit(data.take(one), WindowMean(), seconds=seconds[one])


@pytest.mark.parametrize(
    "stored",
    [
        None,
        {"pool": "mean"},
        {"pool": "mean", "parameters": {"seconds": 0}},
        {"pool": "mean", "parameters": {"minutes": 1}},
        {"pool": "none", "parameters": {}},
        {"pool": ["mean"], "parameters": {}},
        {"pool": "hmm", "parameters": {"trust": 1.5}},
        {"pool": "hmm", "parameters": {"prior": 1.0}},
    ],
)
def test_stored_nonsense_is_refused(stored: object) -> None:
    with pytest.raises(BundleError):
        pool_from_dict(stored)
    if isinstance(stored, dict):
        with pytest.raises(BundleError):
            DriveScore.from_dict({**stored, "calibrator": None, "frames": 0, "drives": 0})


@pytest.mark.parametrize("change", [{"frames": 1.5}, {"drives": "2"}, {"calibrator": "platt"}, {"more": 1}])
def test_stored_scores_with_wrong_values_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(BundleError):
        DriveScore.from_dict({**DriveScore(WindowMean()).to_dict(), **change})


def spans(codes: str, *, seconds: list[float] | None = None, **options: float) -> list[tuple[str, float, float]]:
    """Intervals of frames written as ``+`` roadwork, ``-`` none, ``?`` abstain, one a second."""
    t = np.arange(len(codes), dtype=float) if seconds is None else np.array(seconds)
    c = np.array([{"+": 1, "-": 0, "?": -1}[x] for x in codes], dtype=np.int8)
    p = np.where(c == 1, 0.9, np.where(c == 0, 0.1, 0.5))
    found = intervals(t, c, p, every=1.0, **options)
    assert sum(i.frames for i in found) == len(codes)
    sign = {"roadwork": "+", "no_roadwork": "-", "abstain": "?"}
    return [(sign[i.label], i.start, i.end) for i in found]


def test_runs_become_intervals() -> None:
    assert spans("--++--") == [("-", 0, 2), ("+", 2, 4), ("-", 4, 6)]
    assert spans("") == []
    assert spans("+") == [("+", 0, 1)]
    assert spans("??--?") == [("?", 0, 2), ("-", 2, 4), ("?", 4, 5)]


def test_roadwork_is_held_while_frames_abstain() -> None:
    assert spans("?+?+?-?") == [("?", 0, 1), ("+", 1, 5), ("-", 5, 6), ("?", 6, 7)]
    assert spans("+????", hold=2) == [("+", 0, 3), ("?", 3, 5)]
    assert spans("+??", hold=0) == [("+", 0, 1), ("?", 1, 3)]


def test_short_roadwork_is_neither_claimed_nor_denied() -> None:
    assert spans("--+--", min_seconds=2) == [("-", 0, 2), ("?", 2, 3), ("-", 3, 5)]
    assert spans("-++-", min_seconds=2) == [("-", 0, 1), ("+", 1, 3), ("-", 3, 4)]
    assert spans("-?+-", min_seconds=2) == [("-", 0, 1), ("?", 1, 3), ("-", 3, 4)], "neighbours become one"


def test_a_hole_ends_an_interval() -> None:
    assert spans("++++", seconds=[0, 1, 9, 10]) == [("+", 0, 2), ("+", 9, 11)]
    assert spans("+?", seconds=[0, 4]) == [("+", 0, 1), ("?", 4, 5)], "nothing is held across it"


def test_the_end_of_the_video_ends_the_last_interval() -> None:
    assert spans("++", end=1.4) == [("+", 0, 1.4)]
    assert spans("++", end=0.5) == [("+", 0, 1)], "a wrong length never ends an interval before its last frame"


def test_figures_of_an_interval() -> None:
    found = intervals(np.arange(3.0), np.array([1, 1, 1], dtype=np.int8), np.array([0.6, 0.9, 0.6]), every=1.0)
    assert found[0].to_dict() == {
        "start": 0.0, "end": 3.0, "decision": "roadwork", "frames": 3, "peak": 0.9, "mean": pytest.approx(0.7)
    }  # fmt: skip
    with pytest.raises(ValueError, match="rise"):
        intervals(np.array([0.0, 0.0]), np.zeros(2, dtype=np.int8), np.zeros(2), every=1.0)


def test_two_thresholds() -> None:
    p = np.array([0.1, 0.2, 0.5, 0.8, 0.9])
    assert threshold_codes(p, lower=0.2, upper=0.8).tolist() == [0, -1, -1, 1, 1]
    assert threshold_codes(p, lower=0.5, upper=0.5).tolist() == [0, 0, 1, 1, 1]
    with pytest.raises(ValueError, match="thresholds"):
        threshold_codes(p, lower=0.8, upper=0.2)
