"""Trained pools: attention from every frame of a drive to every other, with numbers fitted on labelled drives.

Training is done with torch (``workzone.training.drives``); this is the same arithmetic in numpy, for the runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from workzone.calibration.base import as_number
from workzone.decisions.pooling import Pool
from workzone.errors import BundleError, DataError
from workzone.predictions import FloatArray

EVIDENCE_SCALE = 4.0
"""Log-odds are divided by this before they are compared, so that they are of the size of the other features."""
MOST_NUMBERS = 2_000_000
_PAIRS = 2_000_000
"""Weights that are in memory at once: a long drive is taken in blocks of rows."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedAttention(Pool):
    """Log-odds of a frame, corrected by what attention over all frames of its drive says.

    A frame i is ``u_i = [x_i, s_i / 4]``: C directions of its embedding, and its log-odds. Each of H heads weighs frame
    j by the softmax of ``u_i Q K^T u_j / sqrt(K) - decay |t_i - t_j|``. The score is ``s_i`` plus, over the heads,
    ``gain (sum_j a_ij s_j - s_i)`` and ``mean · sum_j a_ij u_j``, plus a number for all. With gains, means and that
    number at 0 it is the score of the frame alone, which is where training starts.

    Attributes:
        centre: (D,) mean embedding of the frames that trained it.
        basis: (D, C) directions, scaled to unit spread.
        query, key: (H, C + 1, K).
        decay: (H,) per second, 0 or more.
        gain: (H,).
        mean: (H, C + 1).
        bias: (1,).

    Reference: the weights are scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762) with a penalty by
    distance (Press et al. 2021, arXiv 2108.12409).
    """

    name: ClassVar[str] = "trained_attention"
    needs_embeddings: ClassVar[bool] = True

    centre: FloatArray
    basis: FloatArray
    query: FloatArray
    key: FloatArray
    decay: FloatArray
    gain: FloatArray
    mean: FloatArray
    bias: FloatArray

    def __post_init__(self) -> None:
        shapes = {f.name: getattr(self, f.name).shape for f in fields(self)}
        heads, width, _ = self.query.shape if self.query.ndim == 3 else (0, 0, 0)
        wanted = {
            "centre": self.basis.shape[:1],
            "basis": (self.basis.shape[0], width - 1),
            "query": self.query.shape,
            "key": self.query.shape,
            "decay": (heads,),
            "gain": (heads,),
            "mean": (heads, width),
            "bias": (1,),
        }
        finite = all(np.isfinite(getattr(self, name)).all() for name in shapes)
        if heads < 1 or shapes != wanted or not finite or (self.decay < 0).any():
            raise DataError("the numbers of a trained pool do not fit together", where=f"pool {self.name!r}")

    def _pool(self, s: FloatArray, t: FloatArray, e: FloatArray | None) -> FloatArray:
        u = self.tokens(s, e)
        corrected = s + self.bias[0]
        rows = max(1, _PAIRS // len(s))
        for q, k, decay, gain, mean in zip(self.query, self.key, self.decay, self.gain, self.mean, strict=True):
            asked, offered = u @ q / np.sqrt(q.shape[1]), u @ k
            # What is averaged is one number a frame, whatever the width of the tokens.
            value = gain * s + u @ mean
            for start in range(0, len(s), rows):
                part = slice(start, start + rows)
                score = asked[part] @ offered.T - decay * np.abs(t[part, None] - t)
                weight = np.exp(score - score.max(axis=1, keepdims=True))
                corrected[part] += weight @ value / weight.sum(axis=1) - gain * s[part]
        return np.asarray(corrected)

    def tokens(self, s: FloatArray, e: FloatArray | None) -> FloatArray:
        """What frames are compared by (N, C + 1), from log-odds (N,) and embeddings (N, D).

        Raises:
            DataError: embeddings of another width.
        """
        own = np.asarray(s / EVIDENCE_SCALE)[:, None]
        if not self.needs_embeddings:
            return own
        assert e is not None
        if e.shape[1] != len(self.centre):
            raise DataError(
                f"the pool was trained on embeddings of width {len(self.centre)}, these have {e.shape[1]}",
                where=f"pool {self.name!r}",
                fix="train it for this bundle",
            )
        return np.concatenate([(e - self.centre) @ self.basis, own], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Name and numbers; ``from_numbers`` reads them back."""
        # Seven digits are what the float32 of the training holds.
        stored = {f.name: np.asarray(getattr(self, f.name), dtype=np.float32) for f in fields(self)}
        return {
            "pool": self.name,
            "parameters": {
                name: {"shape": list(v.shape), "values": [float(f"{x:.8g}") for x in v.ravel()]}
                for name, v in stored.items()
            },
        }

    @classmethod
    def from_numbers(cls, stored: Mapping[str, Any]) -> Self:
        """Rebuild from the ``parameters`` of ``to_dict``; raises BundleError on anything else."""
        names = [f.name for f in fields(cls)]
        if set(stored) != set(names):
            raise BundleError(f"a stored pool {cls.name!r} must hold exactly {', '.join(names)}")
        try:
            return cls(**{name: _array(stored[name]) for name in names})
        except DataError as error:
            raise BundleError(f"the stored pool is impossible: {error.what}") from error


@dataclass(frozen=True, slots=True, eq=False)
class EvidenceAttention(TrainedAttention):
    """The same over log-odds and times alone (C is 0): it never sees a picture."""

    name: ClassVar[str] = "trained_evidence"
    needs_embeddings: ClassVar[bool] = False


TRAINED: Mapping[str, type[TrainedAttention]] = {cls.name: cls for cls in (TrainedAttention, EvidenceAttention)}


def _array(stored: object) -> NDArray[np.float64]:
    shape = stored.get("shape") if isinstance(stored, Mapping) and set(stored) == {"shape", "values"} else None
    values = stored["values"] if isinstance(stored, Mapping) and shape is not None else None
    if not isinstance(shape, list) or not isinstance(values, list) or len(shape) > 3:
        raise BundleError("the numbers of a stored pool must be a shape and values")
    sizes = [int(n) if isinstance(n, int) and not isinstance(n, bool) and n >= 0 else -1 for n in shape]
    if min(sizes, default=1) < 0 or len(values) > MOST_NUMBERS or int(np.prod(sizes)) != len(values):
        raise BundleError("the numbers of a stored pool do not fit their shape")
    return np.array([as_number(v) for v in values], dtype=np.float64).reshape(sizes)
