"""One battery for every optimiser."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from workzone.config.run import OptimizerName, TrainConfig
from workzone.errors import ConfigError
from workzone.training.optimisers import (
    OPTIMISERS,
    backward,
    check_training,
    find_method,
    make_optimizer,
    make_schedule,
)
from workzone.training.optimisers.ademamix import slow_decay
from workzone.training.optimisers.base import is_hidden_matrix
from workzone.training.optimisers.muon import MuonWithAdamW

NAMES = list(OPTIMISERS)
LR = 1e-2


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))


def problem():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(64, 6, generator=g)
    return x, (x[:, :2].sum(dim=1) > 0).float()


class Training:
    """A training that is done step by step."""

    def __init__(self, name: str, total: int = 40, decay: float = 0.1) -> None:
        self.method, self.model, self.calls = find_method(name), network(), 0
        self.optimizer = make_optimizer([(self.model, LR)], weight_decay=decay, name=name, total=total, warmup=0.1)
        self.schedule = make_schedule(
            self.optimizer, total=total, warmup=0.1, min_lr=1e-6, scheduled=self.method.scheduled
        )

    def loss(self) -> torch.Tensor:
        x, y = problem()
        return torch.nn.functional.binary_cross_entropy_with_logits(self.model(x).squeeze(1), y)

    def closure(self) -> torch.Tensor:
        self.calls += 1
        self.optimizer.zero_grad()
        value = self.loss()
        backward(value, create_graph=self.method.wants_graph(self.optimizer))
        return value.detach()

    def run(self, start: int, stop: int) -> list[float]:
        self.method.set_mode(self.optimizer, training=True)
        seen = []
        for step in range(start, stop):
            torch.manual_seed(step)
            seen.append(float(self.optimizer.step(self.closure)))
            self.schedule.step()
        return seen


def test_registry_and_configuration_name_the_same_optimisers():
    assert tuple(OPTIMISERS) == get_args(OptimizerName)
    with pytest.raises(ConfigError, match="unknown optimizer 'lion'"):
        find_method("lion")


@pytest.mark.parametrize("name", NAMES)
def test_one_step_lowers_a_convex_quadratic(name):
    target = torch.arange(20.0).reshape(4, 5) / 20
    model = torch.nn.Module()
    model.w = torch.nn.Parameter(torch.ones(4, 5))
    optimizer = make_optimizer([(model, LR)], weight_decay=0.0, name=name, total=10)
    method = find_method(name)

    def closure():
        optimizer.zero_grad()
        # Couples the weights, so that its second derivative depends on none of them alone.
        value = (model.w - target).square().sum() + 0.1 * (model.w.sum() - 3).square()
        backward(value, create_graph=method.wants_graph(optimizer))
        return value.detach()

    before = float(closure())
    torch.manual_seed(0)
    assert float(optimizer.step(closure)) == pytest.approx(before)
    method.set_mode(optimizer, training=False)
    assert float(closure()) < before


@pytest.mark.parametrize("name", NAMES)
def test_training_learns(name):
    training = Training(name)
    seen = training.run(0, 40)
    training.method.set_mode(training.optimizer, training=False)
    assert training.loss().item() < seen[0] - 0.02
    assert training.calls == 40 * training.method.passes


@pytest.mark.parametrize("name", NAMES)
def test_decay_is_decoupled_and_on_matrices_alone(name):
    model = network()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = make_optimizer([(model, LR)], weight_decay=0.5, name=name, total=10)

    def closure():
        optimizer.zero_grad()
        value = 0.0 * sum(p.square().sum() for p in model.parameters())
        backward(value, create_graph=find_method(name).wants_graph(optimizer))
        return value.detach()

    optimizer.step(closure)
    find_method(name).set_mode(optimizer, training=False)
    for n, p in model.named_parameters():
        expected = before[n] * (1 - LR * 0.5) if p.ndim == 2 else before[n]
        torch.testing.assert_close(p.detach(), expected, msg=n)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_training_repeats_an_uninterrupted_one(name, tmp_path):
    whole = Training(name)
    expected = whole.run(0, 30)
    first = Training(name)
    first.run(0, 13)
    file = tmp_path / "state.pt"
    torch.save([first.model.state_dict(), first.optimizer.state_dict(), first.schedule.state_dict()], file)
    model, optimizer, schedule = torch.load(file, weights_only=True)
    second = Training(name)
    second.model.load_state_dict(model)
    second.optimizer.load_state_dict(optimizer)
    second.schedule.load_state_dict(schedule)
    assert second.run(13, 30) == expected[13:]
    for a, b in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_follows_the_cosine_or_stays(name):
    training = Training(name, total=20)
    units = [g.get("unit", 1.0) for g in training.optimizer.param_groups]
    training.run(0, 20)
    rates = [g["lr"] / u for g, u in zip(training.optimizer.param_groups, units, strict=True)]
    assert rates == pytest.approx([1e-6 if training.method.scheduled else LR] * len(rates))


def test_flags():
    assert {n for n, m in OPTIMISERS.items() if m.passes == 2} == {"sam", "asam"}
    assert {n for n, m in OPTIMISERS.items() if m.graph_every} == {"sophia"}
    assert {n for n, m in OPTIMISERS.items() if m.averaged} == {"schedule_free"}
    assert {n for n, m in OPTIMISERS.items() if not m.scheduled} == {"schedule_free"}


def test_sophia_measures_curvature_every_ten_updates():
    training = Training("sophia")
    wanted = []
    for step in range(21):
        wanted.append(training.method.wants_graph(training.optimizer))
        training.run(step, step + 1)
    assert [i for i, w in enumerate(wanted) if w] == [0, 10, 20]


@pytest.mark.parametrize("name", ["sam", "asam"])
def test_sam_steps_by_the_gradient_at_the_worst_point_nearby(name):
    training = Training(name, decay=0.0)
    rho = 0.05 if name == "sam" else 0.5
    twin = network()
    loss = training.loss()
    grads = torch.autograd.grad(loss, list(training.model.parameters()))
    scale = [p.detach().abs() if name == "asam" else torch.ones_like(p) for p in twin.parameters()]
    norm = torch.sqrt(sum((s * g).square().sum() for s, g in zip(scale, grads, strict=True)))
    with torch.no_grad():
        for p, g, s in zip(twin.parameters(), grads, scale, strict=True):
            p.add_(rho * s * s * g / norm)
    x, y = problem()
    worst = torch.nn.functional.binary_cross_entropy_with_logits(twin(x).squeeze(1), y)
    expected = torch.autograd.grad(worst, list(twin.parameters()))
    training.run(0, 1)
    for p, g in zip(training.model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-7)


def test_both_passes_of_sam_draw_the_same():
    training, drawn = Training("sam"), []
    plain = training.closure

    def closure():
        drawn.append(torch.rand(3).tolist())
        return plain()

    training.optimizer.step(closure)
    training.optimizer.step(closure)
    assert drawn[0] == drawn[1]
    assert drawn[2] == drawn[3]
    assert drawn[0] != drawn[2]


def test_schedule_free_evaluates_an_average():
    training = Training("schedule_free")
    training.run(0, 10)
    at = [p.detach().clone() for p in training.model.parameters()]
    training.method.set_mode(training.optimizer, training=False)
    moved = [p.detach().clone() for p in training.model.parameters()]
    assert any(not torch.allclose(a, b) for a, b in zip(at, moved, strict=True))
    training.method.set_mode(training.optimizer, training=True)
    for a, p in zip(at, training.model.parameters(), strict=True):
        torch.testing.assert_close(a, p.detach())


def test_muon_takes_hidden_matrices_and_adamw_the_rest():
    optimizer = Training("muon").optimizer
    assert isinstance(optimizer, MuonWithAdamW)
    shapes = [[tuple(p.shape) for g in part.param_groups for p in g["params"]] for part in optimizer.parts]
    assert shapes == [[(5, 6)], [(1, 5), (5,), (1,)]]
    with pytest.raises(ConfigError, match="no hidden matrix"):
        make_optimizer([(torch.nn.Linear(4, 1), LR)], weight_decay=0.0, name="muon")
    plain = torch.zeros(8, 8)
    assert is_hidden_matrix("blocks.0.mlp.fc1.weight", plain)
    for name, p in (("lora_A.weight", plain), ("patch_embed.proj.weight", plain), ("conv", torch.zeros(8, 8, 1, 1))):
        assert not is_hidden_matrix(name, p)


def test_slow_momentum_of_ademamix_fits_the_run():
    assert slow_decay(1000) ** 150 == pytest.approx(0.5)
    assert slow_decay(10**7) == 0.9999
    assert slow_decay(1) == 0.95
    group = Training("ademamix", total=1000).optimizer.param_groups[0]
    assert (group["t_alpha_beta3"], group["weight_decouple"]) == (1000.0, True)


@pytest.mark.parametrize(
    ("settings", "precision", "key"),
    [
        ({"optimizer": "sam", "accumulate": 2}, "32-true", "train.accumulate"),
        ({"optimizer": "asam"}, "16-mixed", "train.precision"),
        ({"optimizer": "sophia"}, "16-mixed", "train.precision"),
        ({"optimizer": "sophia", "compile": True}, "32-true", "train.compile"),
        ({"optimizer": "schedule_free", "ema": 0.9}, "32-true", "train.ema"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, precision, key):
    with pytest.raises(ConfigError, match=key):
        check_training(TrainConfig(**settings), precision)
    check_training(TrainConfig(**(settings | {"optimizer": "adamw"})), precision)
