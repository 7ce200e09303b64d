"""A checkpoint is the whole of one state, wherever temporary files lie."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")


def test_a_checkpoint_is_replaced_by_a_whole_one_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workzone.config.run import TrainConfig
    from workzone.training.trainer import LAST, last_checkpoint, make_trainer

    trainer = make_trainer(TrainConfig(), tmp_path, monitor="val_mcc", device="cpu")
    store = trainer.strategy.checkpoint_io
    # A move from a disk for temporary files would be a copy, and half a copy is half a checkpoint.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such folder"))
    path = tmp_path / "checkpoints" / LAST
    store.save_checkpoint({"epoch": 1, "weights": torch.arange(4)}, path)
    assert last_checkpoint(tmp_path) == path
    whole = path.read_bytes()

    def cut(state: object, target: Path) -> None:
        Path(target).write_bytes(whole[: len(whole) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", cut)
        with pytest.raises(KeyboardInterrupt):
            store.save_checkpoint({"epoch": 2}, path)
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == [LAST]
    store.save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 2}
