"""One battery for every loss, parity with references, and what the text of a loss may be."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from workzone.config.run import FuseConfig
from workzone.config.terms import LOSS_NAMES, OF_EMBEDDINGS, parse_loss
from workzone.errors import ConfigError
from workzone.training.losses import LOSSES, LossInput, create_loss, require
from workzone.training.losses.evidential import Evidential, alpha_of
from workzone.training.losses.focal import Focal
from workzone.training.losses.gatekeeper import Gatekeeper
from workzone.training.losses.lcron import LCRON, neural_sort

B, D = 12, 5
NAMES = sorted(LOSSES)
BY_LOGITS = [n for n in NAMES if LOSSES[n].trains_logits]
SUMS = ["supcon+ce", "0.9*lcron+0.1*koleo"]


def make(name: str, **options):
    torch.manual_seed(0)
    if name in LOSSES:
        return LOSSES[name](**({"dim": D} | options if name == "evidential" else options))
    return create_loss(name, dim=D)


def batch(seed: int = 0, *, dtype=torch.float64, scale: float = 1.0, epoch: int = 20) -> LossInput:
    g = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(B, generator=g, dtype=dtype)
    return LossInput(
        logits,
        (torch.arange(B) % 3 == 0).to(dtype),
        embeddings=torch.randn(B, D, generator=g, dtype=dtype),
        groups=torch.arange(B) // 6,
        stage_logits=torch.stack([scale * torch.randn(B, generator=g, dtype=dtype), logits], dim=1),
        epoch=epoch,
    )


def test_registry_and_configuration_name_the_same_losses():
    assert tuple(LOSSES) == LOSS_NAMES
    assert tuple(n for n in LOSSES if not LOSSES[n].trains_logits) == OF_EMBEDDINGS
    assert all(cls.name == name for name, cls in LOSSES.items())


@pytest.mark.parametrize("name", [*NAMES, *SUMS])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
def test_finite_with_finite_gradients(name, scale):
    b = batch(dtype=torch.float32, scale=scale)
    leaves = [t.requires_grad_() for t in (b.logits.detach(), b.embeddings, b.stage_logits.detach())]
    loss = make(name)
    value = loss(replace(b, logits=leaves[0], embeddings=leaves[1], stage_logits=leaves[2]))
    assert value.shape == ()
    value.backward()
    assert math.isfinite(value.item())
    for t in [*leaves, *loss.parameters()]:
        assert t.grad is None or bool(torch.isfinite(t.grad).all())


@pytest.mark.parametrize("name", [*NAMES, *SUMS])
@pytest.mark.parametrize("epoch", [0, 20])
def test_gradients_are_those_of_the_value(name, epoch):
    b, loss = batch(3, epoch=epoch), make(name).double()

    def value(logits, embeddings, stages):
        return loss(replace(b, logits=logits, embeddings=embeddings, stage_logits=stages))

    leaves = tuple(t.detach().clone().requires_grad_() for t in (b.logits, b.embeddings, b.stage_logits))
    assert torch.autograd.gradcheck(value, leaves)


@pytest.mark.parametrize("name", [*NAMES, *SUMS])
def test_falls_under_a_few_steps(name):
    torch.manual_seed(1)
    x = torch.randn(B, D, dtype=torch.float64)
    b = batch()
    body, score = torch.nn.Linear(D, D).double(), torch.nn.Linear(D, 2).double()
    loss = make(name).double()
    optimizer = torch.optim.Adam([*body.parameters(), *score.parameters()], lr=0.02)
    seen = []
    for _ in range(40):
        hidden = torch.tanh(body(x))
        stages = score(hidden)
        value = loss(replace(b, logits=stages[:, 1], embeddings=hidden, stage_logits=stages))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        seen.append(value.item())
    assert seen[-1] < seen[0] - 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_weights_multiply_the_images(name):
    b, loss = batch(), make(name).double()
    plain, ones = loss(b), loss(replace(b, weights=torch.ones(B).double()))
    torch.testing.assert_close(plain, ones)
    first = torch.arange(B) < 6
    halves = [loss(replace(b, weights=m.double())) for m in (first, ~first)]
    if name != "lcron":  # its learned deviations add a part without images, 0 at the start
        torch.testing.assert_close(sum(halves), plain)
    torch.testing.assert_close(loss(replace(b, weights=torch.full((B,), 3.0).double())), 3.0 * plain)
    assert not torch.allclose(halves[0], halves[1])


@pytest.mark.parametrize("name", [n for n in NAMES if LOSSES[n].soft_labels and n != "koleo"])
def test_soft_labels_lie_between_hard_ones(name):
    b, loss = batch(), make(name).double()
    ends = [loss(replace(b, labels=torch.full((B,), float(v)).double())) for v in (0, 1)]
    middle = loss(replace(b, labels=torch.full((B,), 0.25).double()))
    torch.testing.assert_close(middle, 0.75 * ends[0] + 0.25 * ends[1])


@pytest.mark.parametrize("name", NAMES)
def test_settings_and_state_make_the_same_loss_again(name):
    loss = make(name)
    with torch.no_grad():
        for p in loss.parameters():
            p.add_(0.3)
    again = LOSSES[name](**loss.settings())
    again.load_state_dict(loss.state_dict())
    assert again.settings() == loss.settings()
    b = batch(dtype=torch.float32)
    assert torch.equal(again(b), loss(b))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_needed_is_asked_for(name):
    loss = make(name)
    bare = replace(batch(dtype=torch.float32), embeddings=None, groups=None, stage_logits=None)
    if not loss.needs:
        assert math.isfinite(loss(bare).item())
        return
    with pytest.raises(ValueError, match=sorted(loss.needs)[0]):
        loss(bare)
    with pytest.raises(ConfigError, match="which is not there"):
        require(loss, set())
    require(loss, loss.needs)
    if not loss.soft_labels:
        with pytest.raises(ConfigError, match="mixed labels"):
            require(loss, loss.needs, soft_labels=True)


@pytest.mark.parametrize("name", BY_LOGITS)
def test_the_right_order_costs_less(name):
    b = batch()
    sign = 2 * b.labels - 1
    good, bad = (replace(b, logits=s * sign, stage_logits=torch.stack([s * sign] * 2, 1)) for s in (2.0, -2.0))
    loss = make(name).double()
    if name == "gatekeeper":  # wrong images are pulled to 0.5, so that being surely wrong is what costs
        bad = replace(bad, logits=8 * bad.logits)
    assert loss(good) < loss(bad)


# Parity


def test_focal_is_torchvisions():
    ops = pytest.importorskip("torchvision.ops")
    b = batch(scale=3)
    for gamma, alpha in ((2.0, 0.25), (0.0, 0.5), (1.5, 0.7)):
        expected = ops.sigmoid_focal_loss(b.logits, b.labels, alpha=alpha, gamma=gamma, reduction="mean")
        torch.testing.assert_close(Focal(gamma, alpha)(b), expected)
    assert Focal().alpha == 0.5, "0.25 would weigh a missed roadwork a third of a false alarm"


def test_cross_entropy_and_smoothing_are_torchs():
    b = batch()
    two = torch.stack([torch.zeros(B).double(), b.logits], dim=1)
    expected = F.cross_entropy(two, b.labels.long(), label_smoothing=0.1)
    torch.testing.assert_close(make("label_smoothing")(b), expected)
    expected = F.cross_entropy(two, b.labels.long(), weight=torch.tensor([1.0, 3.0]).double(), reduction="sum") / B
    torch.testing.assert_close(make("cross_entropy", pos_weight=3.0)(b), expected)


@pytest.mark.parity
def test_koleo_is_lightlys():
    loss = pytest.importorskip("lightly.loss").KoLeoLoss()
    b = batch()
    torch.testing.assert_close(make("koleo")(b), loss(b.embeddings), rtol=1e-6, atol=1e-8)


def test_supcon_is_its_formula():
    b = batch()
    z = (b.embeddings / b.embeddings.norm(dim=1, keepdim=True)).numpy()
    total = 0.0
    for i in range(B):
        others = [a for a in range(B) if a != i]
        denominator = sum(math.exp(z[i] @ z[a] / 0.07) for a in others)
        positives = [p for p in others if b.labels[p] == b.labels[i]]
        total -= sum(math.log(math.exp(z[i] @ z[p] / 0.07) / denominator) for p in positives) / len(positives)
    assert make("supcon")(b).item() == pytest.approx(total / B)


def test_evidential_is_that_of_two_logits():
    two = torch.randn(B, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 3
    alpha = F.softplus(two) + 1
    logits = alpha[:, 1].log() - alpha[:, 0].log()
    least = alpha_of(logits, torch.zeros(B).double())
    extra = alpha.sum(dim=1) - least.sum(dim=1)
    assert bool((extra >= -1e-9).all()), "every pair of evidences is one score and one number that is 0 or more"
    again = alpha_of(logits, extra)
    torch.testing.assert_close(again, alpha)
    b = batch()
    target = F.one_hot(b.labels.long(), 2)
    p, total = alpha / alpha.sum(dim=1, keepdim=True), alpha.sum(dim=1, keepdim=True)
    error = ((target - p) ** 2 + p * (1 - p) / (total + 1)).sum(dim=1)
    wrong = torch.distributions.Dirichlet(target + (1 - target) * alpha)
    divergence = torch.distributions.kl_divergence(wrong, torch.distributions.Dirichlet(torch.ones_like(alpha)))
    for epoch in (0, 4, 10, 50):
        mine = Evidential(D).each(again, b.labels, epoch)
        torch.testing.assert_close(mine, error + min(1.0, epoch / 10) * divergence)


def test_gatekeeper_is_its_formula():
    b = batch()
    p = torch.sigmoid(b.logits)
    both = torch.stack([1 - p, p], dim=1)
    right = both.argmax(dim=1) == b.labels.long()
    entropy = F.nll_loss(both.log(), b.labels.long(), reduction="none")
    from_uniform = (both * (both * 2).log()).sum(dim=1)
    expected = torch.where(right, 0.3 * entropy, 0.7 * from_uniform).mean()
    torch.testing.assert_close(Gatekeeper(alpha=0.3)(b), expected)
    torch.testing.assert_close(Gatekeeper(start=21)(b), make("cross_entropy")(b))


def test_neural_sort_becomes_the_order():
    p = neural_sort(torch.tensor([3.0, 1.0, 2.0]), 1e-3)
    assert p.argmax(dim=1).tolist() == [0, 2, 1]
    torch.testing.assert_close(neural_sort(torch.randn(7), 2.0).sum(dim=1), torch.ones(7))


def test_lcron_is_its_formula_for_two_stages():
    b = replace(batch(), groups=torch.zeros(B, dtype=torch.int64))
    loss = LCRON(budget=0.25, tau=0.5).double()
    passed = []
    for m, q in ((0, 6), (1, 4)):  # round(sqrt(0.25) * 12), and 4 roadwork frames where 3 would be the budget
        s = b.stage_logits[:, m]
        n = B
        rows = torch.stack([(n + 1 - 2 * i) * s - (s[:, None] - s[None]).abs().sum(1) for i in range(1, n + 1)])
        sort = (rows / (0.5 * n)).softmax(dim=1)
        passed.append((sort[:q].sum(0) / sort.sum(0)).clamp(1e-6, 1 - 1e-6))

    def entropy(p):
        return F.binary_cross_entropy(p, b.labels)

    expected = entropy(passed[0] * passed[1]) + 0.5 * entropy(passed[0]) + 0.5 * entropy(passed[1])
    torch.testing.assert_close(loss(b), expected)


def test_lcron_ranks_within_drives_alone():
    b = replace(batch(), stage_logits=None)
    loss = LCRON()
    moved = replace(b, logits=b.logits + 5.0 * b.groups)
    torch.testing.assert_close(loss(moved), loss(b))
    whole = LCRON(items="batch")
    assert not torch.allclose(whole(moved), whole(b))
    one_label = replace(b, groups=(b.labels > 0.5).long())
    assert loss(one_label).item() == 0.0


def test_cascade_survival_is_its_formula():
    b, loss = batch(), make("cascade_survival", temperature=0.5, cost=0.3).double()
    with torch.no_grad():
        loss.threshold.fill_(0.4)
    first, last = torch.sigmoid(b.stage_logits).unbind(dim=1)
    reach = torch.sigmoid((b.stage_logits[:, 0] - 0.4) / 0.5)
    single = (F.binary_cross_entropy(first, b.labels) + F.binary_cross_entropy(last, b.labels)) / 2
    expected = F.binary_cross_entropy(reach * last, b.labels) + single + 0.3 * ((1 + 10 * reach) / 11).mean()
    torch.testing.assert_close(loss(b), expected)


def test_thresholds_of_the_cascade_learn():
    loss = make("cascade_survival", cost=1.0).double()
    loss(batch()).backward()
    assert loss.threshold.grad.abs().item() > 1e-4
    cheap, dear = (make("cascade_survival", cost=c).double()(batch()) for c in (0.0, 1.0))
    assert 0.0 < (dear - cheap).item() < 1.0


# Text


def test_weights_of_a_sum():
    for text, expected in {
        "supcon+ce": [("supcon", 0.5), ("cross_entropy", 0.5)],
        "0.9*lcron+0.1*koleo": [("lcron", 0.9), ("koleo", 0.1)],
        "ce + 0.1*koleo": [("cross_entropy", 1.0), ("koleo", 0.1)],
        "1e-1*focal(gamma=1, alpha=5e-1)": [("focal", 0.1)],
    }.items():
        assert [(t.name, t.weight) for t in parse_loss(text)] == expected
    b = batch()
    torch.manual_seed(0)
    value = create_loss("0.9*lcron+0.1*koleo", dim=D).double()(b)
    torch.testing.assert_close(value, 0.9 * make("lcron").double()(b) + 0.1 * make("koleo")(b))
    assert create_loss("focal(gamma=1,alpha=0.3)").settings() == {"gamma": 1.0, "alpha": 0.3}
    assert FuseConfig(loss=["0.5*supcon", "0.5*ce"]).loss == "0.5*supcon+0.5*ce"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hinge", "unknown loss 'hinge'"),
        ("ce+ce", "twice"),
        ("-1*ce", "above 0"),
        ("nan*ce", "cannot read"),
        ("focal(gamma)", "key=value"),
        ("ce;import os", "cannot read"),
        ("ce+" * 300 + "ce", "at most 500"),
        ("", "cannot read"),
        ("supcon", "leaves the score as it was"),
    ],
)
def test_a_wrong_text_is_refused_by_the_configuration(text, message):
    with pytest.raises(ValueError, match=message):
        FuseConfig(loss=text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("focal(beta=1)", "no argument 'beta', it has gamma, alpha"),
        ("focal(gamma=high)", "gamma cannot be 'high'"),
        ("focal(alpha=1.5)", "between 0 and 1"),
        ("lcron(items=3)", "items cannot be 3"),
        ("evidential(dim=3)", "no argument 'dim'"),
        ("supcon+koleo", "leaves the score as it was"),
    ],
)
def test_wrong_arguments_are_refused_before_training(text, message):
    with pytest.raises(ConfigError, match=message):
        create_loss(text, dim=D)
