"""Losses on the stages of a cascade: gatekeeper for its exits, survival over all of its stages."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from workzone.config.load import load_config
from workzone.config.run import FuseConfig
from workzone.data.roles import Role
from workzone.errors import ConfigError
from workzone.models.aggregators import create_aggregator
from workzone.models.standardise import Standardise
from workzone.training.exits import Exits, make_exits
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator, score_features
from workzone.training.loop import LoopSettings, TensorFeatures
from workzone.training.losses import LossInput, create_loss
from workzone.training.objective import bag_loss

V, D = 5, 6
FAST = {"epochs": 12, "batch_size": 32, "members": 1, "hidden": 8, "lr": 2e-2, "dropout": 0.0, "view_dropout": 0.0}


def features(n: int, seed: int, role: Role = Role.TRAIN) -> Features:
    """Roadwork is seen in one tile of a half of the positive images, and in the whole picture of the others."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.5).astype(np.int64)
    x = rng.normal(size=(n, V, D)).astype(np.float32)
    near = rng.random(n) < 0.5
    x[(labels == 1) & near, 0, 0] += 4.0
    far = np.flatnonzero((labels == 1) & ~near)
    x[far, rng.integers(1, V, len(far)), 1] += 6.0
    boxes = np.tile(np.array([0, 0, 1, 1], dtype=np.float32), (n, V, 1))
    return Features(x, boxes, np.ones((n, V), dtype=bool), labels, role)


def settings(**given: object) -> LoopSettings:
    return replace(LoopSettings(epochs=1, batch_size=8, lr=1e-3, weight_decay=0.0, patience=1), **given)  # type: ignore[arg-type]


def test_early_stages_see_the_whole_picture_and_as_many_tiles_as_asked() -> None:
    model = create_aggregator(FuseConfig(hidden=4), D, member=0).eval()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    combine = model.combine
    model.combine = lambda e, b, m: seen.append((e, m)) or combine(e, b, m)  # type: ignore[func-returns-value, method-assign]
    data = features(64, 0)
    whole = torch.from_numpy(data.embeddings)
    mask = torch.ones(64, V, dtype=torch.bool)
    mask[:8, 3:] = False
    exits = Exits((1, 2, 4))
    early = exits.log_odds(model, whole, torch.from_numpy(data.boxes), mask)
    assert [z.shape for z in early] == [(64,)] * 3
    assert all(torch.equal(e[:, 0], whole[:, 0]) for e, _ in seen), "the whole picture is first"
    assert [m[8:].sum(dim=1).unique().tolist() for _, m in seen] == [[1], [2], [4]]
    assert seen[2][1][:8].sum(dim=1).unique().tolist() == [3], "no view that does not exist"
    assert all(torch.equal(a, b[:, : a.shape[1]]) for (a, _), (b, _) in pairwise(seen)), "a stage keeps what was seen"
    tiles = (seen[1][0][8:, 1, None] == whole[8:]).all(dim=2).float().argmax(dim=1)
    assert set(tiles.tolist()) == set(range(1, V)), "tiles are drawn for each image"


def test_the_loss_of_the_exits_is_the_mean_over_early_stages() -> None:
    loss = create_loss("gatekeeper(start=0)")
    early = [torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0])]
    batch = LossInput(torch.zeros(2), torch.tensor([1.0, 0.0]), epoch=3)
    each = [loss(replace(batch, logits=z)) for z in early]
    assert Exits((1, 2), loss, 0.5).value(early, batch).item() == pytest.approx(0.25 * sum(e.item() for e in each))
    assert Exits((1, 2)).value(early, batch).item() == 0.0


@pytest.mark.parametrize(
    "given", [{"exit_loss": "gatekeeper(start=0)", "exit_weight": 2.0}, {"loss": "cascade_survival(stages=3)"}]
)
def test_stages_change_what_is_learned(given: dict[str, object]) -> None:
    train, select, test = features(256, 0), features(96, 1, Role.VAL_SELECT), features(400, 2, Role.VAL_TEST)
    plain = fit_aggregator(train, select, FuseConfig(**FAST), seed=0)
    made = fit_aggregator(train, select, FuseConfig(stages=(1, 3), **given, **FAST), seed=0)
    scores = score_features(made.head, test)
    assert not np.allclose(scores, score_features(plain.head, test))
    right = (scores > 0) == (test.labels == 1)
    assert right.mean() > 0.65


def test_exits_are_added_to_the_loss_of_the_image_and_feed_its_stages() -> None:
    data = features(32, 0)
    known = TensorFeatures.of(data, Standardise(D), torch.device("cpu"))
    torch.manual_seed(0)
    model = create_aggregator(FuseConfig(hidden=8, dropout=0.0), D, member=0)
    rows, gate = torch.arange(32), create_loss("gatekeeper(start=0)")

    def value(exits: Exits | None, loss: str = "cross_entropy") -> float:
        return bag_loss(model, known, rows, known.mask, settings(), loss=create_loss(loss), exits=exits).item()

    first, whole = (model.combine(known.embeddings[:, :n], known.boxes[:, :n], known.mask[:, :n])[0] for n in (1, V))
    batch = LossInput(whole, known.labels)
    added = value(Exits((1,), gate, 3.0)) - value(None)
    assert added == pytest.approx(3.0 * gate(replace(batch, logits=first)).item(), rel=1e-4)
    survival = create_loss("cascade_survival(stages=2)")
    stages = replace(batch, stage_logits=torch.stack([first, whole], dim=1))
    assert value(Exits((1,)), "cascade_survival(stages=2)") == pytest.approx(survival(stages).item(), rel=1e-5)
    assert value(Exits((1, 2, 4)), "cascade_survival(stages=4)") > 0.0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"stages": (3, 2)}, "rising"),
        ({"stages": (1, 5)}, "the early stages see 1, 5 views, and an image has 5"),
        ({"stages": (0, 2)}, "rising"),
        ({"stages": (1, 2), "loss": "cascade_survival"}, r"cascade_survival\(stages=3\)"),
        ({"stages": (1, 2), "loss": "lcron"}, r"lcron\(stages=3\)"),
        ({"exit_loss": "cascade_survival"}, "two stages"),
        ({"exit_loss": "lcron"}, "drive"),
    ],
)
def test_what_cannot_be_trained_is_refused(given: dict[str, object], told: str) -> None:
    chosen = settings(**given)
    with pytest.raises(ConfigError, match=told):
        make_exits(chosen, V, create_loss(chosen.loss, dim=D))


def test_stages_are_keys_of_the_command_line(tmp_path: Path) -> None:
    text = "0.5*gatekeeper(alpha=0.3)+0.5*ce"
    words = ["data=synthetic", f"out={tmp_path}", "fuse.stages=[2,4]", f"fuse.exit_loss={text}"]
    chosen = load_config(words).fuse
    assert chosen.stages == (2, 4)
    assert chosen.exit_loss == text
    assert load_config(words[:2]).fuse.exit_loss is None
    with pytest.raises(ConfigError, match="unknown loss"):
        load_config([*words[:2], "fuse.exit_loss=nothing"])
