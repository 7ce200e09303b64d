from __future__ import annotations

from collections import Counter

import pytest
import torch

from workzone.training.domain import DomainTerm, balance, ramp, reverse_gradient
from workzone.training.weighted import WeightedSampler, adapt_shares, draw_rows, set_weights


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_share_one_order_and_the_totals_are_exact(world: int) -> None:
    weights = torch.tensor([1.0, 2.0, 3.0, 0.0, 4.0, 0.37])
    samplers = [WeightedSampler(weights, samples=1001, rank=r, world=world, seed=5) for r in range(world)]
    for sampler in samplers:
        sampler.set_epoch(3)
    parts = [list(s) for s in samplers]
    total = samplers[0].total
    assert {len(p) for p in parts} == {total // world} == {len(samplers[0])}
    assert total - 1001 < world
    # Interleaved, the parts are the order of a single process.
    alone = WeightedSampler(weights, samples=total, seed=5)
    alone.set_epoch(3)
    assert [row for step in zip(*parts, strict=True) for row in step] == list(alone)
    counts = Counter(row for part in parts for row in part)
    for row, weight in enumerate(weights.tolist()):
        assert abs(counts[row] - total * weight / float(weights.sum())) < 1.0


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = WeightedSampler(torch.ones(50), seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2) != order(1, 2)
    assert sorted(order(0, 1)) == list(range(50))  # equal weights: every row once


def test_the_order_is_mixed_and_torch_is_left_alone() -> None:
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    first = list(WeightedSampler(torch.tensor([1.0] * 100 + [3.0] * 100)))[:100]
    assert torch.equal(before, torch.random.get_rng_state())
    assert 50 < sum(row >= 100 for row in first) < 95


def test_draws_are_right_on_average() -> None:
    torch.manual_seed(0)
    weights = torch.tensor([0.3, 0.7, 1.1])
    counts = sum(torch.bincount(draw_rows(weights, 5), minlength=3) for _ in range(4000))
    assert (counts / counts.sum()).tolist() == pytest.approx((weights / weights.sum()).tolist(), abs=0.01)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_impossible_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be"):
        draw_rows(torch.tensor(weights), 3)


def test_shares_follow_the_loss_and_none_dies() -> None:
    shares = torch.tensor([0.5, 0.5])
    for _ in range(200):
        shares = adapt_shares(shares, torch.tensor([0.9, 0.1]))
    assert shares.sum() == pytest.approx(1.0)
    assert shares[0] > 0.9
    assert shares[1] >= 0.05 / 2 - 1e-9
    same = adapt_shares(torch.tensor([0.5, 0.5]), torch.tensor([0.3, 0.3]))
    assert same.tolist() == pytest.approx([0.5, 0.5])


def test_set_weights_keep_the_proportions_within_a_set() -> None:
    base, sets = torch.tensor([1.0, 3.0, 5.0, 5.0]), torch.tensor([0, 0, 1, 1])
    found = set_weights(base, sets, torch.tensor([0.8, 0.2]))
    assert found.tolist() == pytest.approx([0.2, 0.6, 0.1, 0.1])


def test_gradient_is_reversed_and_the_value_is_not() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = reverse_gradient(x, 0.5)
    assert torch.equal(y, x)
    (y * torch.tensor([3.0, 4.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [-1.5, -2.0]
    assert ramp(0.0) == 0.0
    assert ramp(1.0) == pytest.approx(1.0, abs=1e-4)


def test_balance_gives_each_set_and_class_the_same_and_a_set_of_one_class_nothing() -> None:
    labels = torch.tensor([1.0, 0, 0, 0, 1, 1, 0, 1, 1])
    sets = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    weights = balance(labels, sets)
    assert weights[sets == 2].tolist() == [0.0, 0.0]
    for s in (0, 1):
        for label in (0, 1):
            assert weights[(sets == s) & (labels == label)].sum() == pytest.approx(9 / 4)


def test_the_adversary_learns_the_set_while_the_hidden_units_unlearn_it() -> None:
    torch.manual_seed(0)
    sets = torch.tensor([0, 1, 2, 1])
    weights = torch.tensor([1.0, 0.5, 0.0, 2.0])
    hidden = torch.randn(4, 5, requires_grad=True)
    term = DomainTerm(5, 3)
    value = term(hidden, sets, weights, 0.25)
    plain = torch.nn.functional.cross_entropy(term.head(hidden), sets, reduction="none")
    plain = (plain * weights).sum() / weights.sum()
    assert value.item() == pytest.approx(plain.item())
    ours = torch.autograd.grad(value, [hidden, *term.parameters()])
    theirs = torch.autograd.grad(plain, [hidden, *term.parameters()])
    assert torch.allclose(ours[0], -0.25 * theirs[0])
    assert ours[0].abs().max() > 0
    assert ours[0][2].abs().max() == 0  # weight 0
    assert all(torch.allclose(a, b) for a, b in zip(ours[1:], theirs[1:], strict=True))
