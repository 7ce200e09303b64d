"""What data sets do to the adaptation of a backbone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from workzone.config.load import load_config
from workzone.config.run import TrainConfig
from workzone.data.roles import TrainData
from workzone.errors import ConfigError, DataError
from workzone.training.augmentation.mixing import mix, paste_across
from workzone.training.datasets import check_names, data_sets, rows_by_augmentation
from workzone.training.images import make_loaders
from workzone.training.module import ImageModule


def images(**columns) -> TrainData:
    labels = np.array([0, 1, 0, 1, 0, 1])
    ids = np.array(list("abcdef"))
    known = {"source": np.array(["far", "far", "near", "near", "near", "far"]), **columns}
    return TrainData(ids=ids, labels=labels, groups=ids, paths=ids, columns=known)


def fused(**columns) -> TrainData:
    weights = {"sample_weight": np.array([0.0, 1, 1, 1, 2, 1]), "loss_weight": np.array([1.0, 1, 2, 1, 1, 1])}
    return images(**{**weights, **columns})


def test_nothing_is_asked_for():
    found = data_sets(images(), TrainConfig())
    assert (found.draw, found.weights, found.sets, found.augment, found.across) == (None, None, None, (), False)


def test_weights_of_the_manifest():
    found = data_sets(fused(), TrainConfig(mixture="manifest"))
    assert found.draw.tolist() == [0, 1, 1, 1, 2, 1]
    assert found.weights.tolist() == [1, 1, 2, 1, 1, 1]
    for column in ({"sample_weight": np.full(6, np.nan)}, {"loss_weight": np.array(["1"] * 6)}):
        with pytest.raises(DataError, match="usable numbers"):
            data_sets(fused(**column), TrainConfig(mixture="manifest"))
    with pytest.raises(DataError, match="data fuse"):
        data_sets(images(), TrainConfig(mixture="manifest"))


def test_augmentation_of_each_data_set():
    config = TrainConfig(augment="light", augment_by=("far=none",))
    found = data_sets(images(), config)
    assert found.augment == ("none", "light")
    assert found.sets.tolist() == [0, 0, 1, 1, 1, 0]
    check_names(images(), config)
    with pytest.raises(DataError, match=r"'fra'.*far, near"):
        check_names(images(), TrainConfig(augment_by=("fra=none",)))
    named = images(domain_set=np.array(["x"] * 3 + ["y"] * 3))
    assert data_sets(named, TrainConfig(augment_by=("y=standard",))).augment == ("light", "standard")


@pytest.mark.parametrize("words", [("far",), ("=light",), ("far=heavy",), ("far=light", "far=none")])
def test_words_of_augmentation(words):
    with pytest.raises(ValidationError):
        TrainConfig(augment_by=words)


def test_what_frozen_training_cannot_do():
    with pytest.raises(ConfigError, match="augment_by"):
        load_config(["data=x", "out=y", "train.augment_by=[far=none]"])
    with pytest.raises(ValidationError, match="cutmix above 0"):
        TrainConfig(cutmix_sets="other")
    alone = images(source=np.array(["far"] * 6))
    with pytest.raises(DataError, match="one data set, far"):
        data_sets(alone, TrainConfig(cutmix=1.0, cutmix_sets="other"))


def test_rows_go_to_their_augmentation():
    found = rows_by_augmentation(torch.tensor([0, 2, 1, 2, 0]), ("light", "none", "light"))
    assert [(name, rows.tolist()) for name, rows in found] == [("light", [0, 1, 3, 4]), ("none", [2])]


def module(tiny, config: TrainConfig, data: TrainData) -> ImageModule:
    from workzone.models.heads import ProbeHead

    backbone = tiny()
    return ImageModule(backbone, ProbeHead(backbone.embedding_dim, 0, 0.0), config, sets=data_sets(data, config))


def test_an_image_is_augmented_as_its_set_says(tiny):
    made = module(tiny, TrainConfig(augment="standard", augment_by=("far=none",)), images())
    pixels = torch.rand(6, 3, 32, 32)
    out = made._augment(pixels, made.sets.sets, torch.Generator().manual_seed(1))
    moved = [not torch.equal(a, b) for a, b in zip(out, pixels, strict=True)]
    assert moved == [False, False, True, True, True, False]
    # Two views of each image.
    twice = pixels.repeat_interleave(2, dim=0)
    out = made._augment(twice, made.sets.sets, torch.Generator().manual_seed(1))
    assert [not torch.equal(a, b) for a, b in zip(out, twice, strict=True)] == np.repeat(moved, 2).tolist()


def test_cutmix_pastes_from_another_set_and_within_the_class():
    sets = torch.tensor([0, 0, 1, 1, 1, 0])
    labels = torch.tensor([0.0, 1, 0, 1, 0, 1])
    # The value of a picture is 10 * set + label.
    pictures = (10 * sets + labels).view(-1, 1, 1, 1).expand(-1, 3, 16, 16).clone()
    pasted = 0
    for seed in range(20):
        torch.manual_seed(seed)
        out, kept = paste_across(pictures, labels, sets, 1.0, any_pair=False)
        assert torch.equal(kept, labels)
        for i in range(6):
            found = set(out[i].unique().tolist())
            other = float(10 * (1 - sets[i]) + labels[i])
            assert found <= {float(pictures[i, 0, 0, 0]), other}
            pasted += other in found
    assert pasted > 60


def test_cutmix_across_classes_follows_the_area_and_leaves_who_has_no_partner():
    sets, labels = torch.tensor([0, 1, 1]), torch.tensor([0.0, 1.0, 1.0])
    pictures = labels.view(-1, 1, 1, 1).expand(-1, 3, 20, 20).clone()
    torch.manual_seed(3)
    out, soft = paste_across(pictures, labels, sets, 1.0, any_pair=True)
    assert soft.tolist() == pytest.approx(out.mean(dim=(1, 2, 3)).tolist(), abs=1e-6)
    assert 0 < float(soft[0]) < 1
    alone, same = paste_across(pictures, labels, sets, 1.0, any_pair=False)
    assert torch.equal(alone, pictures)
    assert torch.equal(same, labels)
    generator = torch.Generator().manual_seed(1)
    mixed, _ = mix(pictures, labels, generator, mixup=0.0, cutmix=1.0, sets=torch.zeros(3, dtype=torch.long))
    assert torch.equal(mixed, pictures)


def test_loaders_draw_by_weight_in_epochs_of_one_length():
    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> int:
            return index

    draw = torch.tensor([0.0, 0, 5, 1, 1, 1, 1, 1, 0, 0])
    parts = []
    for rank in (0, 1):
        plain = make_loaders(Rows(), Rows(), batch_size=2, seed=4, rank=rank, world=2)[0]
        loader = make_loaders(Rows(), Rows(), batch_size=2, seed=4, rank=rank, world=2, draw=draw)[0]
        assert len(loader) == len(plain)
        loader.sampler.set_epoch(3)
        parts.append(torch.cat(list(loader)))
    assert torch.bincount(torch.cat(parts), minlength=10).tolist() == draw.tolist()
    whole = make_loaders(Rows(), Rows(), batch_size=4, seed=4, draw=draw)[0]
    whole.sampler.set_epoch(3)
    # A step of both ranks shows what one process would show.
    for one, *two in zip(whole, *(p.split(2) for p in parts), strict=False):
        assert sorted(one.tolist()) == sorted(torch.cat(two).tolist())
