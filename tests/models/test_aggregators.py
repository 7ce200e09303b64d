"""One battery that every aggregator joins as a row."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from workzone.config.run import FuseConfig
from workzone.errors import ArtifactError, ConfigError
from workzone.models.aggregators import MASKED, Attention, Ensemble, build_aggregator, create_aggregator
from workzone.models.heads import ProbeHead
from workzone.models.storage import load_head, save_head

D = 12
ROWS = {
    "attention": ("attention", {}),
    "attention_plain": ("attention", {"gated": False}),
    "attention_linear": ("attention", {"hidden": 0}),
    "topk_mean": ("topk_mean", {"k": 3}),
    "topk_max": ("topk_mean", {"k": 1}),
    "logsumexp": ("logsumexp", {}),
    "logsumexp_linear": ("logsumexp", {"hidden": 0}),
    "logsumexp_boxes": ("logsumexp", {"boxes": True}),
    "logsumexp_fixed": ("logsumexp", {"sharpness": 4.0, "learned": False}),
    "global": ("global", {}),
    "attention_mlp": ("attention_mlp", {}),
    "attention_mlp_boxes": ("attention_mlp", {"hidden": 0, "boxes": True}),
    "noisy_or": ("noisy_or", {}),
    "view_attention": ("view_attention", {"heads": 4}),
    "view_attention_learned": ("view_attention", {"heads": 2, "spatial": "learned"}),
    "view_attention_blind": ("view_attention", {"heads": 3, "hidden": 0, "spatial": "none"}),
} | {f"topk_{k}": ("topk_mean", {"k": k}) for k in (2, 5, 7)}
ABOVE_ITS_VIEWS = {"noisy_or"}


@pytest.fixture(params=list(ROWS))
def model(request):
    name, options = ROWS[request.param]
    torch.manual_seed(0)
    made = build_aggregator(name, {"dim": D, "hidden": 8, "dropout": 0.2} | options)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim:
                parameter.add_(torch.randn_like(parameter) * 0.5)
    made.set_statistics(torch.randn(50, D) * 3 + 1)
    return made.eval()


def batch(b: int = 4, v: int = 6):
    g = torch.Generator().manual_seed(1)
    low = torch.rand(b, v, 2, generator=g) * 0.5
    boxes = torch.cat([low, low + 0.3], dim=-1)
    return torch.randn(b, v, D, generator=g) * 3 + 1, boxes, torch.ones(b, v, dtype=torch.bool)


def test_shapes_and_weights(model):
    score, views, weights = model(*batch())
    assert (score.shape, views.shape, weights.shape) == ((4,), (4, 6), (4, 6))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4))
    assert (weights >= 0).all()
    if model.name in ABOVE_ITS_VIEWS:
        assert (score > views.max(dim=1).values).all()
    else:
        assert (score <= views.max(dim=1).values + 1e-5).all()
    assert (score >= views.min(dim=1).values - 1e-5).all()


def test_masking_is_dropping(model):
    x, boxes, mask = batch()
    keep = [0, 2, 5]
    mask[:, [1, 3, 4]] = False
    noisy = x.clone()
    noisy[:, [1, 3, 4]] = 1e4
    score, views, weights = model(noisy, boxes, mask)
    alone, views_alone, weights_alone = model(x[:, keep], boxes[:, keep], mask[:, keep])
    torch.testing.assert_close(score, alone)
    torch.testing.assert_close(views[:, keep], views_alone)
    torch.testing.assert_close(weights[:, keep], weights_alone)
    assert (weights[:, [1, 3, 4]] == 0).all()
    assert (views[:, [1, 3, 4]] == MASKED).all()


def test_order_of_the_tiles_does_not_matter(model):
    x, boxes, mask = batch()
    mask[1, 4] = False
    order = [0, 4, 2, 5, 1, 3]
    score, views, weights = model(x, boxes, mask)
    again, views_again, weights_again = model(x[:, order], boxes[:, order], mask[:, order])
    torch.testing.assert_close(score, again)
    torch.testing.assert_close(views[:, order], views_again)
    torch.testing.assert_close(weights[:, order], weights_again)


def test_gradients_reach_every_parameter_and_stay_finite(model):
    model.train()
    x, boxes, mask = batch(b=16)
    mask[0, 1:] = False
    score, _, _ = model(x, boxes, mask)
    torch.nn.functional.softplus(-score * torch.linspace(-1, 1, 16)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert sum(float(p.grad.abs().sum()) > 0 for p in model.parameters()) >= len(list(model.parameters())) - 1


def test_one_view_scores_itself(model):
    x, boxes, mask = batch(v=1)
    score, views, weights = model(x, boxes, mask)
    torch.testing.assert_close(score, views[:, 0])
    torch.testing.assert_close(weights, torch.ones(4, 1))


def test_extreme_scores_stay_finite(model):
    x, boxes, mask = batch()
    for scale in (0.0, 1e6):
        for part in model(x * scale, boxes, mask):
            assert torch.isfinite(part).all()


def test_save_and_load(model, tmp_path):
    head = Ensemble([model, copy.deepcopy(model)]).eval()
    save_head(head, tmp_path)
    again = load_head(tmp_path)
    for a, b in zip(head(*batch()), again(*batch()), strict=True):
        assert torch.equal(a, b)
    content = (tmp_path / "head.json").read_text()
    (tmp_path / "head.json").write_text(content.replace('"dim": 12', '"dim": 13'))
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_head(tmp_path)


def test_topk_by_hand():
    model = build_aggregator("topk_mean", {"dim": 1, "hidden": 0, "dropout": 0.0, "k": 2}).eval()
    with torch.no_grad():
        model.scorer[-1].weight.fill_(1.0)
    u = torch.tensor([[1.0, 5.0, 3.0, 3.0], [2.0, 2.0, 2.0, -1.0]]).unsqueeze(-1)
    score, _, weights = model(u, torch.zeros(2, 4, 4), torch.ones(2, 4, dtype=torch.bool))
    assert score.tolist() == [4.0, 2.0]
    assert weights.tolist() == [[0, 0.5, 0.5, 0], [0.5, 0.5, 0, 0]]


def test_logsumexp_lies_between_mean_and_maximum_by_its_sharpness():
    u = torch.tensor([[[0.0], [1.0], [4.0]]])
    seen = []
    for sharpness in (0.01, 1.0, 50.0):
        model = build_aggregator("logsumexp", {"dim": 1, "hidden": 0, "dropout": 0.0, "sharpness": sharpness}).eval()
        with torch.no_grad():
            model.scorer[-1].weight.fill_(1.0)
        seen.append(model(u, torch.zeros(1, 3, 4), torch.ones(1, 3, dtype=torch.bool))[0].item())
    assert seen[0] == pytest.approx(5 / 3, abs=0.05)
    assert seen[1] == pytest.approx(math.log((1 + math.e + math.e**4) / 3), abs=0.01)
    assert seen[2] == pytest.approx(4.0, abs=0.05)


def test_attention_weights_follow_the_formula():
    torch.manual_seed(0)
    model = Attention(D, hidden=0, dropout=0.0, gated=True).eval()
    x, boxes, mask = batch()
    a = model.attention(torch.tanh(model.value(x)) * torch.sigmoid(model.gate(x))).squeeze(-1)
    torch.testing.assert_close(model(x, boxes, mask)[2], torch.softmax(a, dim=1))


def test_ensemble_is_the_mean_of_log_odds():
    members = [create_aggregator(FuseConfig(aggregator="logsumexp", hidden=4), D).eval() for _ in range(3)]
    x = batch()
    torch.testing.assert_close(Ensemble(members)(*x)[0], torch.stack([m(*x)[0] for m in members]).mean(0))
    with pytest.raises(ValueError, match="one width"):
        Ensemble([])


def test_unknown_names_and_settings_are_named():
    with pytest.raises(ConfigError, match="unknown aggregator 'max'"):
        build_aggregator("max", {})
    with pytest.raises(ConfigError, match="settings do not fit"):
        build_aggregator("logsumexp", {"dim": 3, "hidden": 1, "dropout": 0.0, "k": 2})


def test_probe_starts_at_the_prior_and_standardises():
    torch.manual_seed(0)
    head = ProbeHead(D, 16, 0.0).eval()
    features = torch.randn(400, D) * torch.linspace(0.1, 30, D) + 7
    features[:, 3] = 2.5
    head.set_statistics(features)
    head.set_prior(0.2)
    out = head.standardise(features)
    torch.testing.assert_close(out.mean(0), torch.zeros(D), atol=1e-4, rtol=0)
    assert out[:, 3].abs().max() < 1e-5
    torch.testing.assert_close(out.std(0, correction=0)[4:], torch.ones(D - 4), atol=1e-3, rtol=0)
    assert torch.sigmoid(head(features)).mean().item() == pytest.approx(0.2, abs=0.02)
