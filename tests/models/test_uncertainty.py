"""Stochastic passes, members and evidence of heads trained on drawn features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workzone.config.run import FuseConfig
from workzone.data.roles import Role
from workzone.decisions.uncertainty import from_evidence, from_samples
from workzone.errors import ConfigError
from workzone.models.aggregators import Ensemble, create_aggregator
from workzone.models.uncertainty import evidence_alpha, member_log_odds, sample_log_odds
from workzone.predictions import sigmoid
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator
from workzone.training.losses.evidential import Evidential

V, D = 4, 12


def drawn(n: int, seed: int, role: Role = Role.TRAIN) -> Features:
    """Roadwork shifts two of the dimensions up, its absence two others; the rest is noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    x = rng.normal(size=(n, V, D)).astype(np.float32)
    x[y == 1, :, :2] += 2.0
    x[y == 0, :, 2:4] += 2.0
    boxes = np.tile(np.array([0, 0, 1, 1], dtype=np.float32), (n, V, 1))
    return Features(x, boxes, np.ones((n, V), dtype=bool), y, role)


def inputs(data: Features) -> tuple[Tensor, Tensor, Tensor]:
    return torch.from_numpy(data.embeddings), torch.from_numpy(data.boxes), torch.from_numpy(data.mask)


def far(data: Features) -> tuple[Tensor, Tensor, Tensor]:
    """Both kinds of evidence at once, which training never showed."""
    x, boxes, mask = inputs(data)
    x = x.clone()
    x[:, :, :4] = 6.0
    return x, boxes, mask


@pytest.fixture(scope="module")
def head() -> Ensemble:
    config = FuseConfig(epochs=25, members=4, hidden=32, lr=5e-3, dropout=0.3, batch_size=32, patience=25)
    return fit_aggregator(drawn(200, 0), drawn(100, 1, Role.VAL_SELECT), config, seed=0).head


def test_samples_repeat_with_the_seed_and_leave_everything_as_it_was(head: Ensemble) -> None:
    x = inputs(drawn(20, 2))
    with torch.no_grad():
        before = head(*x)[0]
    torch.manual_seed(7)
    state = torch.get_rng_state()
    a, b, c = (sample_log_odds(head, *x, samples=8, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert a.shape == (8, 20)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert a.std(axis=0).min() > 0.0
    assert not any(m.training for m in head.modules())
    with torch.no_grad():
        assert torch.equal(head(*x)[0], before)


def test_modes_are_restored_even_where_some_part_was_training(head: Ensemble) -> None:
    head.members[0].train()
    modes = [m.training for m in head.modules()]
    try:
        sample_log_odds(head, *inputs(drawn(5, 2)), samples=2, seed=0)
        assert [m.training for m in head.modules()] == modes
    finally:
        head.eval()


def test_batch_norm_stays_in_evaluation_mode() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.drop, self.last = nn.BatchNorm1d(D), nn.Dropout(0.5), nn.Linear(D, 1)

        def forward(self, x: Tensor, boxes: Tensor, mask: Tensor) -> tuple[Tensor]:
            return (self.last(self.drop(self.norm(x[:, 0])))[:, 0],)

    module = Normed().train()
    before = module.norm.running_mean.clone()
    x = inputs(drawn(30, 3))
    whole = sample_log_odds(module, *x, samples=400, seed=0)  # type: ignore[arg-type]
    assert torch.equal(module.norm.running_mean, before)
    module.eval()
    with torch.no_grad():
        plain = module(*x)[0].numpy()
    # Dropout before a linear layer leaves its mean alone; the batch's own statistics would not.
    assert whole.mean(axis=0) == pytest.approx(plain, abs=5 * float((whole.std(axis=0) / 20).max()))


@pytest.mark.parametrize("aggregator", ["attention", "topk_mean", "logsumexp"])
def test_dropout_disagrees_more_on_what_training_never_showed(aggregator: str) -> None:
    config = FuseConfig(aggregator=aggregator, epochs=20, members=1, hidden=32, lr=5e-3, dropout=0.3, batch_size=32)
    fitted = fit_aggregator(drawn(200, 0), drawn(100, 1, Role.VAL_SELECT), config, seed=0).head
    new = drawn(200, 4)
    p, near = from_samples(sigmoid(sample_log_odds(fitted, *inputs(new), samples=30, seed=0)))
    _, away = from_samples(sigmoid(sample_log_odds(fitted, *far(new), samples=30, seed=0)))
    assert ((p >= 0.5) == (new.labels == 1)).mean() > 0.9
    assert away["mutual_information"].mean() > 2 * near["mutual_information"].mean()


def test_members_disagree_more_on_what_training_never_showed(head: Ensemble) -> None:
    new = drawn(200, 4)
    scores = member_log_odds(head, *inputs(new))
    assert scores.shape == (4, 200)
    with torch.no_grad():
        assert scores.mean(axis=0) == pytest.approx(head(*inputs(new))[0].numpy(), abs=1e-4)
    _, near = from_samples(sigmoid(scores))
    _, away = from_samples(sigmoid(member_log_odds(head, *far(new))))
    assert away["mutual_information"].mean() > 2 * near["mutual_information"].mean()


def test_what_cannot_disagree_is_refused(head: Ensemble) -> None:
    x = inputs(drawn(5, 0))
    plain = Ensemble([create_aggregator(FuseConfig(dropout=0.0), D)])
    with pytest.raises(ConfigError, match="without dropout"):
        sample_log_odds(plain, *x, samples=2, seed=0)
    with pytest.raises(ConfigError, match="one head"):
        member_log_odds(plain, *x)
    with pytest.raises(ValueError, match="at least 2"):
        sample_log_odds(head, *x, samples=1, seed=0)


def test_missing_views_are_not_read(head: Ensemble) -> None:
    x, boxes, mask = inputs(drawn(10, 5))
    x, mask = x.clone(), mask.clone()
    mask[:, 2:] = False
    a = sample_log_odds(head, x, boxes, mask, samples=3, seed=0)
    x[:, 2:] = float("nan")
    assert np.array_equal(sample_log_odds(head, x, boxes, mask, samples=3, seed=0), a)


def test_evidential_loss_by_hand() -> None:
    logits = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    a, b = (float(v) for v in evidence_alpha(logits)[0])
    assert (a, b) == pytest.approx((np.log1p(np.exp(0.3)) + 1, np.log1p(np.exp(-1.2)) + 1))
    s, p = a + b, a / (a + b)
    error = (1 - p) ** 2 + p * (1 - p) / (s + 1) + (1 - p) ** 2 + p * (1 - p) / (s + 1)
    each, label = Evidential(D, anneal=10.0).each, torch.tensor([0])
    assert float(each(F.softplus(logits) + 1.0, label, 0)) == pytest.approx(error)
    # KL(Beta(1, b) || uniform) = ln b + 1/b - 1
    divergence = np.log(b) + 1 / b - 1
    assert float(each(F.softplus(logits) + 1.0, label, 5)) == pytest.approx(error + divergence / 2)


def test_evidential_head_has_most_vacuity_where_labels_contradict() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (600, 1)).astype(np.float32)
    y = np.where(np.abs(x[:, 0]) < 1, rng.integers(0, 2, 600), x[:, 0] > 0).astype(np.int64)
    net = nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    loss = Evidential(1, anneal=100.0)
    for epoch in range(150):
        optimizer.zero_grad()
        loss.each(F.softplus(net(torch.from_numpy(x))) + 1.0, torch.from_numpy(y), epoch).mean().backward()
        optimizer.step()
    p, measures = from_evidence(evidence_alpha(net(torch.from_numpy(x))))
    clear, contested = np.abs(x[:, 0]) > 1.5, np.abs(x[:, 0]) < 0.5
    assert ((p[:, 1] >= 0.5) == (y == 1))[clear].mean() > 0.97
    assert measures["vacuity"][contested].mean() > 1.5 * measures["vacuity"][clear].mean()
