"""Self-supervised pretraining: terms against a reference, collapse, resuming, what is learned."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from helpers.patches import Killed, killer_at
from workzone.config.pretraining import PretrainConfig
from workzone.models.adapters import merge
from workzone.training.pretraining import terms
from workzone.training.pretraining.check import check_features
from workzone.training.pretraining.guard import CollapseError, CollapseGuard, spread
from workzone.training.pretraining.heads import DinoHead
from workzone.training.pretraining.images import StoredImages, cut, draw_boxes, jitter, store_images
from workzone.training.pretraining.loop import run_loop
from workzone.training.pretraining.objective import Objective, StepResult, any_size
from workzone.training.pretraining.run import _unfrozen
from workzone.training.pretraining.selfsupervised import SelfSupervised

SMALL = {"local_crops": 2, "local_size": 16, "prototypes": 16, "queue": 16, "hidden": 16, "bottleneck": 8}


def config(method: str = "hybrid", ssl: dict[str, object] | None = None, **changes: object) -> PretrainConfig:
    base = {"method": method, "epochs": 3, "batch_size": 8, "lr": 1e-3, "checkpoint_seconds": 1e9, "warmup": 0.0}
    return PretrainConfig(**(base | {"ssl": SMALL | (ssl or {})} | changes))


def images(n: int = 24, side: int = 48, seed: int = 0) -> StoredImages:
    """Stripes of one of four directions and any colour, under noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side]
    pixels = np.empty((n, side, side, 3), dtype=np.uint8)
    for i in range(n):
        angle = (i % 4) * np.pi / 4
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 0.8 + rng.uniform(0, 6))
        colour = rng.uniform(40, 120, 3)
        pixels[i] = np.clip(128 + wave[..., None] * colour + rng.normal(0, 15, (side, side, 3)), 0, 255)
    return StoredImages(pixels, tuple(f"{i:064x}" for i in range(n)))


def objective(tiny, cfg: PretrainConfig, seed: int = 3) -> SelfSupervised:
    return SelfSupervised(_unfrozen(tiny(), cfg, seed), cfg, seed=seed)


def train(tiny, cfg, folder, **more):
    made = objective(tiny, cfg)
    return made, run_loop(made, images(), cfg, seed=5, folder=folder, key="k", **more)


# --- terms


def random_logits(count: int, width: int = 12, crops: int = 4, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, width, generator=generator) for _ in range(crops)]


@pytest.mark.parity
def test_terms_match_lightly():
    loss = pytest.importorskip("lightly.loss")
    students, teachers = random_logits(6), random_logits(6, crops=2, seed=1)
    reference = loss.DINOLoss(12, teacher_temp=0.05, student_temp=0.1, warmup_teacher_temp_epochs=1)
    centre = torch.randn(12, generator=torch.Generator().manual_seed(2))
    reference.center.copy_(centre.view(1, 1, 12))
    torch.testing.assert_close(
        terms.dino_term(students, teachers, centre, student=0.1, teacher=0.05), reference(teachers, students)
    )
    scores = [F.normalize(s, dim=-1) for s in students]
    queue = [F.normalize(q, dim=-1) for q in random_logits(20, crops=2, seed=4)]
    wanted = loss.SwaVLoss()(scores[:2], scores[2:], queue)
    torch.testing.assert_close(terms.swav_term(scores, queue, 2), wanted.squeeze())
    torch.testing.assert_close(terms.koleo_term(students[0]), loss.KoLeoLoss()(students[0]))
    a, b = students[:2]
    cosine = loss.NegativeCosineSimilarity()
    torch.testing.assert_close(terms.byol_term([a, b], teachers), 2 + cosine(a, teachers[1]) + cosine(b, teachers[0]))


def test_codes_share_the_prototypes_evenly():
    scores = F.normalize(torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), dim=-1) * 0.2
    codes = terms.sinkhorn(scores, iterations=50)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(64))
    torch.testing.assert_close(codes.sum(dim=0), torch.full((8,), 8.0), atol=1e-2, rtol=1e-2)
    assert bool(torch.isfinite(terms.sinkhorn(scores * 1000)).all())


def test_the_teacher_must_be_sharper_than_the_student():
    for values in ({"teacher_temperature": 0.1}, {"last_teacher_temperature": 0.2}, {"student_temperature": 0.07}):
        with pytest.raises(ValidationError, match="must stay below the student's"):
            config(ssl=values)
    with pytest.raises(ValidationError, match="cannot share 32 features"):
        config(ssl={"prototypes": 64})
    with pytest.raises(ValidationError, match=r"set pretrain\.teacher"):
        config("distil")
    with pytest.raises(ValidationError, match="make no sense"):
        config(trains="explora", start="scratch")
    with pytest.raises(ValidationError, match="nothing to learn"):
        config(ssl={"byol": 0, "swav": 0, "dino": 0})


# --- crops


def test_crops_keep_what_is_up_up_and_differ_by_draw():
    picture = torch.zeros(2, 3, 40, 40)
    picture[:, :, :20] = 1.0
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, 4)
    torch.testing.assert_close(cut(picture, whole, 40), picture)
    generator = torch.Generator().manual_seed(0)
    boxes = draw_boxes(500, 0.3, 0.6, generator)
    area = boxes[:, 2] * boxes[:, 3]
    assert 0.27 < area.min() < area.max() < 0.61
    assert bool(((boxes[:, :2].abs() + boxes[:, 2:]) <= 1.0001).all())
    crop = cut(picture.expand(2, 3, 40, 40), boxes[:2], 16, torch.tensor([True, False]))
    assert bool((crop[:, :, 0].mean(dim=(1, 2)) >= crop[:, :, -1].mean(dim=(1, 2))).all())
    grey = torch.full((200, 3, 4, 4), 0.5)
    out = jitter(grey, generator)
    assert out.mean(dim=(1, 2, 3)).std() > 0.05
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1


def test_images_are_decoded_once_and_kept(tmp_path, monkeypatch):
    from PIL import Image

    from workzone.errors import DataError
    from workzone.training.pretraining import images as module

    paths = []
    for i in range(3):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.new("RGB", (30, 20), (i * 40, 10, 200)).save(paths[-1])
    shas = [f"{i:064x}" for i in range(3)]
    first = store_images(paths, shas, 16, tmp_path / "cache")
    assert first.pixels.shape == (3, 16, 16, 3)
    assert first.pixels[2].mean(axis=(0, 1)).tolist() == [80, 10, 200]
    monkeypatch.setattr(module, "load_views", None)
    again = store_images(paths, shas, 16, tmp_path / "cache")
    assert np.array_equal(again.pixels, first.pixels)
    monkeypatch.undo()
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"cannot be read.*bad\.png"):
        store_images([str(tmp_path / "bad.png")], ["f" * 64], 16, tmp_path / "cache")
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


def test_other_sizes_pass_through_interpolated_positions(tiny):
    plain, backbone = tiny(), any_size(tiny())
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(backbone.features(x), plain.features(x))
    assert backbone.features(torch.randn(2, 3, 16, 16)).shape == (2, 32)
    assert backbone.features(torch.randn(2, 3, 48, 48)).shape == (2, 32)


# --- training


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("byol", {"byol", "koleo"}),
        ("swav", {"swav", "koleo"}),
        ("dino", {"dino", "koleo"}),
        ("hybrid", {"byol", "swav", "dino", "koleo"}),
    ],
)
def test_every_method_trains_with_its_terms(tiny, tmp_path, method, names):
    made, outcome = train(tiny, config(method, epochs=2), tmp_path)
    assert len(outcome.trace) == 6
    last = outcome.history[-1]
    assert names <= last.keys()
    assert not {"byol", "swav", "dino"} - names & last.keys()
    assert last["std"] > 0.1
    start = tiny().network.state_dict()
    moved = {k for k, v in made.student.network.state_dict().items() if not torch.equal(v, start[k])}
    assert any("blocks.0.attn.qkv" in k for k in moved)
    followed = made.teacher.network.state_dict()
    key = "blocks.0.attn.qkv.weight"
    gap = (made.student.network.state_dict()[key] - start[key]).norm()
    assert 0 < (followed[key] - start[key]).norm() < 0.2 * gap
    assert not any(p.requires_grad for p in made.teacher.parameters())


def test_a_term_can_be_switched_off(tiny, tmp_path):
    _, outcome = train(tiny, config(ssl={"byol": 0, "koleo": 0, "local_crops": 0}, epochs=1), tmp_path)
    assert {"swav", "dino"} <= outcome.history[-1].keys()
    assert not {"byol", "koleo"} & outcome.history[-1].keys()


def test_momentum_rises_to_one(tiny):
    made = objective(tiny, config("dino", ssl={"momentum": 0.9}))
    moves = []
    for done in (0.0, 0.5, 1.0):
        with torch.no_grad():
            for s, t in zip(made.student.parameters(), made.teacher.parameters(), strict=True):
                t.zero_()
                s.fill_(1.0)
        made.after_update(done)
        moves.append(float(next(made.teacher.parameters()).flatten()[0].detach()))
    assert moves == pytest.approx([0.1, 0.05, 0.0], abs=1e-6)
    assert made.temperature(0.0) == pytest.approx(0.04)
    assert made.temperature(0.5) == pytest.approx(0.07)


def test_features_learn_what_the_pictures_share(tiny, tmp_path):
    """Stripes of four directions are told apart better after training than before, by a linear model."""
    ssl = {"keep": "student", "koleo": 0.2, "momentum": 0.95, "hidden": 64, "bottleneck": 16}
    cfg = config("hybrid", ssl=ssl, epochs=10, lr=2e-3, batch_size=16)
    kept = images(64)
    labels, groups = (np.arange(64) % 4 >= 2).astype(np.int64), np.array([f"{i:03d}" for i in range(64)])
    made = objective(tiny, cfg)

    def check(now: Objective) -> dict[str, object]:
        from workzone.training.pretraining.check import embed

        return check_features(embed(now.result(), kept, np.arange(64), 32), labels, groups, folds=4, seed=0)

    outcome = run_loop(made, kept, cfg, seed=5, folder=tmp_path, key="k", check=check)
    checks = [row["check"]["linear"]["auroc"] for row in outcome.history if "check" in row]
    assert len(checks) == 3
    assert outcome.history[-1]["swav"] < 0.8 * outcome.history[1]["swav"]
    assert outcome.history[-1]["byol"] < 0.8 * outcome.history[1]["byol"]
    assert checks[-1] > checks[0] + 0.1


def test_explora_trains_adapters_and_merges_to_a_plain_network(tiny, tmp_path):
    cfg = config("dino", trains="explora", ssl={"keep": "student"})
    made, _ = train(tiny, cfg, tmp_path)
    plain = merge(made.result())
    start = tiny().network.state_dict()
    assert plain.network.state_dict().keys() == start.keys()
    changed = {k for k, v in plain.network.state_dict().items() if not torch.equal(v, start[k])}
    assert "blocks.0.attn.qkv.weight" in changed
    assert "blocks.1.mlp.fc1.weight" in changed
    assert "norm.weight" in changed
    assert not {"blocks.0.attn.proj.weight", "blocks.0.mlp.fc1.weight", "patch_embed.proj.weight"} & changed
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain.features(x), made.result().eval().features(x), atol=1e-5, rtol=1e-5)


# --- resuming


@pytest.mark.parametrize(("method", "at", "seconds"), [("hybrid", 5, 1e9), ("hybrid", 5, 1e-9), ("swav", 7, 1e-9)])
def test_a_killed_training_repeats_the_uninterrupted_one(tiny, tmp_path, method, at, seconds):
    """With a checkpoint after each epoch, and with one after each step."""
    cfg = config(method, checkpoint_seconds=seconds)
    whole, expected = train(tiny, cfg, tmp_path / "whole")
    with pytest.raises(Killed):
        train(tiny, cfg, tmp_path / "killed", on_step=killer_at(at))
    resumed_at: list[int] = []
    made, outcome = train(tiny, cfg, tmp_path / "killed", on_step=resumed_at.append)
    assert resumed_at[0] == (at if seconds < 1 else at - at % 3) + 1
    assert outcome.trace == expected.trace
    assert outcome.history == expected.history
    states = made.state_dict(), whole.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_a_checkpoint_of_something_else_is_left_alone(tiny, tmp_path):
    train(tiny, config(), tmp_path)
    made = objective(tiny, config())
    seen: list[int] = []
    run_loop(made, images(), config(), seed=5, folder=tmp_path, key="other", on_step=seen.append)
    assert seen[0] == 1


# --- collapse


def test_spread_of_features_in_all_directions_and_in_none():
    generator = torch.Generator().manual_seed(0)
    wide = spread(torch.randn(256, 32, generator=generator))
    assert wide["std"] == pytest.approx(1.0, abs=0.05)
    assert wide["rank"] > 25
    line = torch.randn(256, 1, generator=generator) @ torch.randn(1, 32, generator=generator)
    assert spread(line)["rank"] == pytest.approx(1.0, abs=0.01)
    assert spread(torch.ones(16, 8)) == pytest.approx({"std": 0.0, "rank": 0.0}, abs=1e-5)


@pytest.mark.parametrize(
    ("sign", "value", "text"),
    [("output_entropy", 0.99, "nearly uniform"), ("marginal_entropy", 0.01, "nearly all images get one output")],
)
def test_outputs_that_say_nothing_stop_the_training(sign, value, text):
    features = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    guard = CollapseGuard(patience=3, grace=5)
    healthy = {"output_entropy": 0.5, "marginal_entropy": 0.9}
    for _ in range(5):
        guard.look(features, healthy | {sign: value})
    guard.look(features, healthy)
    again = CollapseGuard(patience=3, grace=5)
    again.restore(guard.state())
    for _ in range(2):
        again.look(features, healthy | {sign: value})
    with pytest.raises(CollapseError, match=f"{text}.*3 steps on end.*step 9"):
        again.look(features, healthy | {sign: value})


class Shrink(Objective):
    """Pulls all features to one point."""

    def __init__(self, backbone) -> None:
        super().__init__()
        self.student = backbone
        for p in self.student.parameters():
            p.requires_grad_(True)

    def parts(self):
        return [(self.student, 1.0)]

    def result(self):
        return self.student

    def step(self, rows, images, generator, done):
        features = self.student.features(self.student.normalise(F.interpolate(images, size=32)))
        features = F.normalize(features, dim=-1)
        loss = (features - features.detach().mean(dim=0)).pow(2).sum(dim=-1).mean() * 100
        return StepResult(loss, {"pull": loss}, features.detach())


def test_collapse_stops_the_loop_with_an_explanation(tiny, tmp_path):
    cfg = config("dino", epochs=60, patience=5, lr=5e-3)
    with pytest.raises(CollapseError, match=r"have collapsed.*at first.*What to do: take a lower pretrain\.lr"):
        run_loop(Shrink(tiny()), images(), cfg, seed=0, folder=tmp_path, key="k")


def test_equal_temperatures_would_drift_to_uniform_outputs():
    """Why they are refused: the target of a teacher as warm as the student is no sharper than its answer."""
    generator = torch.Generator().manual_seed(0)
    entropies = {}
    for warm in (0.04, 0.1):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            head = DinoHead(8, 32, 16, 32)
        optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
        centre = torch.zeros(32)
        for _ in range(300):
            x = torch.randn(32, 8, generator=generator)
            two = [x + 0.1 * torch.randn(32, 8, generator=generator) for _ in range(2)]
            students = [head(v) for v in two]
            loss = terms.dino_term(students, students, centre, student=0.1, teacher=warm)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mean = torch.cat(students).detach().mean(dim=0)
            out = F.softmax((torch.cat(students).detach() - centre) / warm, dim=-1)
            centre = 0.9 * centre + 0.1 * mean
        entropies[warm] = float(terms.entropy(out).mean())
    assert entropies[0.1] > entropies[0.04] + 0.3


# --- random starts


def test_random_weights_are_a_start_only_where_they_are_asked_for(tmp_path):
    from workzone.config.run import ModelConfig
    from workzone.errors import ConfigError, WeightsError
    from workzone.models.backbones import create_backbone, load_backbone, save_backbone, scratch_backbone

    own = ModelConfig(backbone="workzone_vit_t", image_size=32)
    with pytest.raises(WeightsError, match="none were given"):
        create_backbone(own)
    with pytest.raises(WeightsError, match=r"nobody offers weights.*pretrain\.start=scratch"):
        create_backbone(own.model_copy(update={"weights": "hub"}))
    with pytest.raises(ConfigError, match="random ones asked for"):
        scratch_backbone(own.model_copy(update={"weights": "a.safetensors"}), seed=0)
    first, again, other = (scratch_backbone(own, seed=s) for s in (0, 0, 1))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    save_backbone(first, tmp_path)
    assert load_backbone(tmp_path).fingerprint() == first.fingerprint()


# --- check of the features


def test_check_cannot_profit_from_images_of_the_same_group():
    """Features that only name the group: neighbours of the own group would give an AUROC of 1."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 5)
    labels = np.repeat(rng.integers(0, 2, 60), 5)
    centres = torch.from_numpy(rng.normal(size=(60, 64)).astype(np.float32))
    features = centres[groups] + 0.01 * torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    row = check_features(features, labels, groups.astype(str), folds=5, seed=0)
    assert row["n"] == 300
    assert row["groups"] == 60
    for name in ("knn", "linear"):
        assert row[name]["low"] < 0.6
        assert row[name]["low"] < row[name]["auroc"] < row[name]["high"]
    useful = features + 3 * torch.from_numpy(labels)[:, None]
    assert check_features(useful, labels, groups.astype(str), folds=5, seed=0)["linear"]["auroc"] > 0.95
    assert math.isfinite(row["knn"]["auroc"])
