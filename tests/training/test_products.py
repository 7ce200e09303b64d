from __future__ import annotations

import numpy as np
import pytest
import torch

from workzone.config.training import FuseConfig
from workzone.data.roles import Role
from workzone.training.features import Features
from workzone.training.fuse import fit_aggregator, score_features
from workzone.training.products import may_round, products

CPU = torch.device("cpu")
CAPABLE = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def setting() -> str:
    return str(torch.backends.mkldnn.matmul.fp32_precision)


def test_who_may_round() -> None:
    assert may_round("auto", CPU) == CAPABLE
    assert may_round("bf16", CPU)
    assert not may_round("fp32", CPU)
    assert not may_round("bf16", torch.device("cuda"))


def test_the_setting_is_as_before_also_after_an_error() -> None:
    before = setting()

    def fail() -> None:
        with products("bf16", CPU):
            assert setting() == "bf16"
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    with products("fp32", CPU):
        assert setting() == before
    assert setting() == before
    assert torch.get_float32_matmul_precision() == "highest"


def test_only_factors_may_be_rounded() -> None:
    rng = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(2048, 128)
    x = torch.rand(2048, 2048, generator=rng)
    with torch.no_grad():
        exact = layer(x)
        with products("bf16", CPU):
            found = layer(x)
    # Rounding each factor to 8 bits moves a sum of 2,048 products by far less than that of the sizes of its terms.
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 2.0**-8 * (x @ layer.weight.abs().T).max()


def features(n: int, role: Role, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    x = rng.normal(size=(n, 4, 64)).astype(np.float32)
    x[:, 1, :8] += 1.5 * y[:, None]
    boxes = np.tile(np.array([0, 0, 1, 1], dtype=np.float32), (n, 4, 1))
    return Features(x, boxes, np.ones((n, 4), dtype=bool), y, role)


def test_a_head_trained_so_scores_like_one_that_was_not() -> None:
    train, select, test = (features(300, r, i) for i, r in enumerate((Role.TRAIN, Role.VAL_SELECT, Role.VAL_TEST)))
    before, found = setting(), []
    for precision in ("fp32", "bf16"):
        config = FuseConfig(members=1, epochs=6, hidden=32, precision=precision)
        found.append(score_features(fit_aggregator(train, select, config, seed=0).head, test))
    assert setting() == before
    assert np.corrcoef(found)[0, 1] > 0.999
    assert np.allclose(*found, atol=0.2)
