"""Images that only exist as names, roles of them, and ways to stop a training in its middle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from workzone.data.roles import RoleData

R = TypeVar("R", bound=RoleData)


class Killed(Exception):  # noqa: N818
    """What a test raises inside a training."""


def draw(path: str) -> np.ndarray:
    """A grey view (32, 32, 3) of ``INDEX-LABEL``; a positive one carries an orange patch somewhere."""
    index, label = (int(part) for part in path.split("-"))
    rng = np.random.default_rng(index)
    view = rng.integers(60, 120, (32, 32, 3), dtype=np.uint8)
    if label:
        y, x = rng.integers(0, 22, 2)
        view[y : y + 10, x : x + 10] = (250, 120, 10)
    return view


def role(kind: type[R], n: int, start: int) -> R:
    """N images of alternating labels, each its own group, numbered from ``start``."""
    labels = np.arange(n) % 2
    ids = np.array([f"{start + i}-{label}" for i, label in enumerate(labels)])
    return kind(ids=ids, labels=labels, groups=ids, paths=ids)


def killer_at(step: int) -> Callable[[int], None]:
    """Called after each step, raises ``Killed`` after ``step``."""

    def on_step(done: int) -> None:
        if done == step:
            raise Killed

    return on_step


def lightning_killer(epoch: int, batch: int) -> Any:
    """Callback of Lightning that raises ``Killed`` after a batch."""
    import lightning as L

    class Killer(L.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, data: Any, batch_idx: int) -> None:
            if (trainer.current_epoch, batch_idx) == (epoch, batch):
                raise Killed

    return Killer()
