"""The network of the failure gate: folded inference, reproducible, and used by the policy only where it is better."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from workzone.data.roles import CalibData
from workzone.decisions import create, from_dict
from workzone.decisions.failure import MLP, FailureModel, out_of_fold
from workzone.decisions.policies.gate import GatePolicy
from workzone.errors import ConfigError
from workzone.files import canonical_json
from workzone.metrics import auroc
from workzone.predictions import sigmoid
from workzone.training.gate import GateNetwork, fit_mlp, train_network

SEVEN = (
    "max_probability", "view_variance", "entropy", "max_minus_mean", "view_disagreement", "embedding_variance",
    "expected_entropy",
)  # fmt: skip


def sample(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Measures (n, 7) and mistakes that lie on both sides of the second one, which no linear model can tell."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 7)) * [1, 5, 0.1, 1, 1, 1, 1] + [0, 2, -1, 0, 0, 0, 0]
    return x, np.abs(x[:, 1] - 2) > rng.normal(7.0, 1.0, n)


def test_numpy_agrees_with_the_network_in_evaluation_mode() -> None:
    x, wrong = sample()
    model = fit_mlp(SEVEN, x, wrong, seed=3)
    assert [w.shape for w, _ in model.layers] == [(128, 7), (64, 128), (32, 64), (1, 32)]
    z = torch.from_numpy(((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32))
    network = train_network(z, torch.from_numpy(wrong.astype(np.float32)), seed=3)
    assert not network.training
    with torch.no_grad():
        expected = torch.sigmoid(network.double()(z.double())).numpy()
    assert expected.std() > 0.1
    assert model(x) == pytest.approx(expected, abs=1e-6)


def test_architecture_and_size() -> None:
    network = GateNetwork(7)
    assert sum(p.numel() for p in network.parameters()) == 7 * 128 + 128 * 64 + 64 * 32 + 32 + 225 + 2 * 224
    network.train()
    a, b = network(torch.ones(8, 7)), network(torch.ones(8, 7))
    # Batch norm removes what a batch has in common, so only dropout can tell two passes apart.
    assert not torch.equal(a, b)


def test_same_seed_same_numbers_and_the_random_state_is_left_alone() -> None:
    x, wrong = sample(120)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = fit_mlp(SEVEN, x, wrong), fit_mlp(SEVEN, x, wrong), fit_mlp(SEVEN, x, wrong, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert a.to_dict() == b.to_dict()
    assert a.to_dict() != c.to_dict()


def test_it_learns_what_a_linear_model_cannot() -> None:
    x, wrong = sample(600)
    new, truth = sample(600, seed=1)
    found = auroc(truth, fit_mlp(SEVEN, x, wrong)(new))
    assert found > 0.8
    linear = auroc(truth, FailureModel.fit(SEVEN, x, wrong)(new))
    assert linear < 0.65


def test_what_never_varied_is_never_read() -> None:
    x, wrong = sample(200)
    x[:, 4] = 0.25
    model = fit_mlp(SEVEN, x, wrong)
    moved = x.copy()
    moved[:, 4] = 0.9
    assert np.array_equal(model(moved), model(x))
    moved[:, 1] += 5
    assert not np.array_equal(model(moved), model(x))


@pytest.mark.parametrize("n", [2, 33, 65])
def test_a_last_batch_of_one_image_is_harmless(n: int) -> None:
    x, wrong = sample(n)
    assert np.isfinite(fit_mlp(SEVEN, x, wrong)(x)).all()


def test_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        fit_mlp(SEVEN, *sample(1))


def test_out_of_fold_scores_come_from_networks_that_have_not_seen_the_group() -> None:
    x, wrong = sample(100)
    groups = np.array([f"g{i // 4}" for i in range(100)])
    seen: list[tuple[set[float], MLP]] = []

    def fit(names: tuple[str, ...], measures: np.ndarray, mistakes: np.ndarray, /) -> MLP:
        model = fit_mlp(names, measures, mistakes)
        seen.append((set(measures[:, 0].tolist()), model))
        return model

    score = out_of_fold(SEVEN, x, wrong, groups, fit)
    assert score is not None
    assert len(seen) == 5
    for rows, model in seen:
        held = np.array([v not in rows for v in x[:, 0].tolist()])
        assert score[held] == pytest.approx(model(x[held]), abs=1e-9)
        assert not set(groups[held]) & set(groups[~held])


def gate(told: float, n: int = 900) -> tuple[GatePolicy, CalibData, np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    y = (rng.random(n) < 0.5).astype(int)
    u = 3.0 * (y - 0.5) + rng.normal(size=n)
    p = sigmoid(u)
    wrong = (p >= 0.5) != (y == 1)
    measures = {"max_probability": np.maximum(p, 1 - p), "mutual_information": told * wrong + rng.normal(size=n)}
    data = CalibData.from_arrays(y, u, groups=[f"g{i // 2}" for i in range(n)])
    policy = create("gate", target_risk=0.03, gate_model="mlp", fit_model=fit_mlp).fit(data, p, measures)
    assert isinstance(policy, GatePolicy)
    return policy, data, p, measures


def test_the_policy_uses_a_network_that_is_better_and_stores_it_bit_for_bit() -> None:
    policy, data, p, measures = gate(3.0)
    assert policy.comparison is not None
    assert policy.comparison.better
    assert isinstance(policy.model, MLP)
    assert policy.guarantees[0].status == "certified"
    text = canonical_json(policy.to_dict())
    assert len(text) < 400_000
    again = from_dict(json.loads(text))
    assert canonical_json(again.to_dict()) == text
    whole = policy.decide(p, measures)
    assert np.array_equal(whole.codes, again.decide(p, measures).codes)
    one_by_one = [again.decide(p[[i]], {k: v[[i]] for k, v in measures.items()}).codes[0] for i in range(len(p))]
    assert one_by_one == whole.codes.tolist()
    wrong = (whole.codes == 1) != (data.labels == 1)
    assert (wrong & whole.accepted).sum() / whole.accepted.sum() <= 0.03


def test_the_policy_leaves_out_a_network_that_is_not_better() -> None:
    policy, _, p, _ = gate(0.0)
    assert policy.model is None
    assert policy.needs == ()
    assert len(policy.decide(p)) == len(p)


def test_without_a_trainer_the_network_is_refused() -> None:
    data = CalibData.from_arrays(np.arange(40) % 2, np.linspace(-1, 1, 40))
    with pytest.raises(ConfigError, match="trained with torch"):
        create("gate", gate_model="mlp").fit(data, sigmoid(data.scores), {"entropy": np.zeros(40)})
    with pytest.raises(ConfigError, match="gate_model"):
        create("gate", gate_model="forest")


@pytest.mark.stat
def test_the_promise_holds_with_the_network() -> None:
    """The cut comes from images that the network was not trained on: risk above target in at most a share delta."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], CalibData]:
        y = (rng.random(n) < 0.5).astype(int)
        u = 1.5 * (y - 0.5) + rng.normal(size=n)
        p = sigmoid(u)
        wrong = (p >= 0.5) != (y == 1)
        m = {"max_probability": np.maximum(p, 1 - p), "mutual_information": 2.0 * wrong + rng.normal(size=n)}
        return p, wrong, m, CalibData.from_arrays(y, u)

    p_new, wrong_new, m_new, _ = draw(20_000)
    over = used = 0
    for _ in range(10):
        p, _, m, data = draw(240)
        policy = create("gate", target_risk=0.1, delta=0.1, gate_model="mlp", fit_model=fit_mlp).fit(data, p, m)
        assert isinstance(policy, GatePolicy)
        accepted = policy.decide(p_new, m_new).accepted
        used += policy.model is not None
        over += policy.status == "certified" and (wrong_new & accepted).sum() > 0.1 * accepted.sum()
    assert used >= 7
    # Binomial(10, 0.1) exceeds 4 with probability 0.002.
    assert over <= 4
