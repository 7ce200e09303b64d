"""What is particular to one aggregator; what all share is in test_aggregators.py."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from workzone.config.run import FuseConfig
from workzone.errors import ConfigError
from workzone.models.aggregators import MIX, AttentionMLP, Ensemble, NoisyOr, ViewAttention, create_aggregator
from workzone.models.aggregators.base import MASKED
from workzone.models.aggregators.noisy_or import noisy_or
from workzone.models.aggregators.spatial import make_spatial

D, V = 12, 10


def grid(b: int = 3) -> torch.Tensor:
    """The whole image and nine tiles."""
    edges = [(c * 0.32, r * 0.32, c * 0.32 + 0.36, r * 0.32 + 0.36) for r in range(3) for c in range(3)]
    return torch.tensor([(0.0, 0.0, 1.0, 1.0), *edges]).expand(b, V, 4).clone()


def bag(b: int = 3, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(b, V, generator=g) < 0.7
    mask[:, 0] = True
    mask[0] = True
    return torch.randn(b, V, D, generator=g) * 2, grid(b), mask


def made(spatial: str = "proximity", backend: str = "sdpa", heads: int = 4) -> ViewAttention:
    torch.manual_seed(0)
    model = ViewAttention(D, hidden=8, dropout=0.0, heads=heads, spatial=spatial, backend=backend)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return model.eval()


def test_noisy_or_is_the_formula_in_double_precision():
    u = torch.tensor([[-1.0, 0.5, 2.0], [-3.0, -4.0, MASKED], [-6.0, -7.0, -9.0], [-14.0, -16.0, -15.1]])
    p = 1.0 / (1.0 + np.exp(-u.double().clamp_min(-700).numpy()))
    log_none = np.log1p(-p).sum(axis=1)
    expected = np.log(-np.expm1(log_none)) - log_none
    np.testing.assert_allclose(noisy_or(u).numpy(), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("level", [-500.0, -80.0, -15.0, 0.0, 15.0, 90.0, 5000.0])
def test_noisy_or_and_its_gradient_are_finite_at_any_level(level):
    u = torch.full((1, 4), level, requires_grad=True)
    score = noisy_or(u)
    score.sum().backward()
    # Far below 0 the odds add up; far above, the logarithms of the failures do.
    expected = level + math.log(4) if level < -20 else 4 * level if level > 20 else None
    if expected is not None:
        assert score.item() == pytest.approx(expected, abs=1e-3 + 1e-6 * abs(level))
    assert torch.isfinite(u.grad).all()
    torch.testing.assert_close(u.grad, u.grad[:, :1].expand(1, 4))
    assert u.grad[0, 0].item() > 0.2


def test_noisy_or_weights_are_its_derivatives_up_to_their_sum():
    model = NoisyOr(1, hidden=0, dropout=0.0).eval()
    with torch.no_grad():
        model.scorer[-1].weight.fill_(1.0)
    u = torch.tensor([[[-2.0], [0.3], [1.0]]])
    _, views, weights = model(u, torch.zeros(1, 3, 4), torch.ones(1, 3, dtype=torch.bool))
    leaf = views.detach().requires_grad_()
    (slope,) = torch.autograd.grad(noisy_or(leaf).sum(), leaf)
    torch.testing.assert_close(weights, slope / slope.sum())


def test_noisy_or_starts_at_the_prior_of_the_image():
    model = NoisyOr(D, hidden=4, dropout=0.0).eval()
    model.set_prior(0.3, views=V)
    x, boxes, _ = bag()
    score = model(x * 0, boxes, torch.ones(3, V, dtype=torch.bool))[0]
    torch.testing.assert_close(torch.sigmoid(score), torch.full((3,), 0.3), atol=0.02, rtol=0)


def test_attention_mlp_pools_the_embeddings():
    model = AttentionMLP(D, hidden=8, dropout=0.0).eval()
    x, boxes, mask = bag()
    score, _, weights = model(x, boxes, mask)
    pooled = (weights.unsqueeze(-1) * x).sum(dim=1)
    torch.testing.assert_close(score, model.classifier(pooled).squeeze(-1))
    assert [type(m).__name__ for m in model.attention] == [
        "Linear", "LayerNorm", "ReLU", "Dropout", "Linear", "Tanh", "Linear",
    ]  # fmt: skip


def test_proximity_falls_with_distance_and_spares_the_whole_image():
    bias = make_spatial("proximity", 2)
    with torch.no_grad():
        bias.raw_rate.copy_(torch.tensor([0.0, 3.0]))
    got = bias.bias(grid(1))[0]
    rate = torch.log1p(torch.exp(bias.raw_rate)).detach()
    assert (got[:, 0] == 0).all()
    assert (got[:, :, 0] == 0).all()
    torch.testing.assert_close(got[:, 1, 2], -rate * 0.32**2)
    torch.testing.assert_close(got[:, 1, 9], -rate * 2 * 0.64**2)
    torch.testing.assert_close(got, got.transpose(1, 2))


def test_learned_bias_knows_directions():
    torch.manual_seed(0)
    got = make_spatial("learned", 2).bias(grid(1))[0]
    assert not torch.allclose(got[:, 1, 2], got[:, 2, 1])
    torch.testing.assert_close(got[:, 1, 2], got[:, 4, 5])


def test_positions_count_unless_blind():
    x, boxes, mask = bag()
    moved = boxes.clone()
    moved[:, [1, 9]] = boxes[:, [9, 1]]
    for spatial, counts in (("proximity", True), ("learned", True), ("none", False)):
        model = made(spatial)
        assert torch.allclose(model(x, boxes, mask)[0], model(x, moved, mask)[0], atol=1e-6) is not counts


def test_views_hear_each_other():
    x, boxes, mask = bag()
    other = x.clone()
    other[0, 3] += 5.0
    model = made()
    before, after = model(x, boxes, mask)[1], model(other, boxes, mask)[1]
    assert (before[0] - after[0]).abs().min() > 1e-5
    torch.testing.assert_close(before[1:], after[1:])


@pytest.mark.parametrize("spatial", ["proximity", "learned", "none"])
def test_flex_gives_the_numbers_of_sdpa(spatial):
    plain, flex = made(spatial), made(spatial, backend="flex")
    flex.load_state_dict(plain.state_dict())
    x, boxes, mask = bag()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*flex_attention called without torch.compile.*")
        for a, b in zip(plain(x, boxes, mask), flex(x, boxes, mask), strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


def test_flex_says_that_it_cannot_train_here():
    with pytest.raises(ConfigError, match="no backward pass on cpu"):
        made(backend="flex").train()(*bag())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "3 heads do not divide the width 8"),
        ({"spatial": "near"}, "unknown bias 'near'"),
        ({"backend": "xformers"}, "unknown backend 'xformers'"),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        ViewAttention(D, hidden=8, dropout=0.0, **options)


def test_settings_of_the_configuration_reach_the_members():
    config = FuseConfig(aggregator="view_attention", heads=2, spatial="learned", backend="flex", hidden=8)
    assert (
        create_aggregator(config, D).settings().items() >= {"heads": 2, "spatial": "learned", "backend": "flex"}.items()
    )
    fixed = create_aggregator(FuseConfig(aggregator="logsumexp", sharpness=5.0, learn_sharpness=False), D)
    assert "raw_sharpness" not in dict(fixed.named_parameters())
    assert torch.nn.functional.softplus(fixed.raw_sharpness).item() == pytest.approx(5.0)


def test_mix_takes_its_aggregators_in_turn_and_averages_log_odds():
    config = FuseConfig(aggregator="mix", hidden=4, k=2)
    members = [create_aggregator(config, D, member=i).eval() for i in range(4)]
    assert tuple(m.name for m in members) == (*MIX, MIX[0])
    x, boxes, mask = bag()
    score, _, weights = Ensemble(members).eval()(x, boxes, mask)
    torch.testing.assert_close(score, torch.stack([m(x, boxes, mask)[0] for m in members]).mean(dim=0))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    assert (weights[~mask] == 0).all()
