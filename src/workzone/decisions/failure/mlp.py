"""Mistakes by a small network, as numbers; what trains it lives above, where torch may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from workzone.decisions.failure.model import read_keys, read_names, read_row, read_scale
from workzone.errors import BundleError
from workzone.predictions import FloatArray, sigmoid

HIDDEN = (128, 64, 32)
"""Hidden widths of the planned gate."""
MOST_LAYERS, MOST_UNITS = 4, 256
_FARTHEST = 1e6
"""Standard deviations beyond which a measure is cut off, so that no product overflows."""


@dataclass(frozen=True, slots=True, eq=False)
class MLP:
    """Score of a mistake: linear layers with ReLU between them on standardised measures, sigmoid at the end.

    Batch norm is folded into the layers. A network that was trained with a weight on mistakes scores above their
    probability; the order is what the gate uses.

    Attributes:
        names: D measures, in order.
        mean: (D,) subtracted.
        scale: (D,) divided by.
        layers: weights (out, in) and bias (out,) of each layer, the last with one output.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    layers: tuple[tuple[FloatArray, FloatArray], ...]

    @classmethod
    def build(
        cls,
        names: Sequence[str],
        mean: FloatArray,
        scale: FloatArray,
        layers: Sequence[tuple[FloatArray, FloatArray]],
    ) -> Self:
        """Model from arrays; numbers are rounded to nine digits, which float32 weights do not exceed."""
        kept = tuple((_nine(w), _nine(b)) for w, b in layers)
        return cls(tuple(names), tuple(map(float, mean)), tuple(map(float, scale)), kept)

    def log_odds(self, measures: FloatArray) -> FloatArray:
        """Output (N,) before the sigmoid."""
        z = np.asarray(measures, dtype=np.float64)
        z = np.clip((z - np.array(self.mean)) / np.array(self.scale), -_FARTHEST, _FARTHEST)
        for weights, bias in self.layers[:-1]:
            z = np.maximum(z @ weights.T + bias, 0.0)
        weights, bias = self.layers[-1]
        return np.asarray((z @ weights.T + bias)[:, 0], dtype=np.float64)

    def __call__(self, measures: FloatArray) -> FloatArray:
        """Score of a mistake (N,), below 1."""
        # Matrix products round differently in batches of different sizes; an image must not change sides of a cut.
        return np.minimum(np.round(sigmoid(self.log_odds(measures)), 10), np.nextafter(1.0, 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "names": list(self.names),
            "mean": list(self.mean),
            "scale": list(self.scale),
            "layers": [{"weights": w.tolist(), "bias": b.tolist()} for w, b in self.layers],
        }

    @classmethod
    def from_dict(cls, stored: object) -> Self:
        """Read what ``to_dict`` wrote; raises BundleError on missing or impossible values."""
        values = read_keys(stored, {"names", "mean", "scale", "layers"})
        names, layers = read_names(values["names"]), values["layers"]
        if not isinstance(layers, list) or not 1 <= len(layers) <= MOST_LAYERS:
            raise BundleError(f"the stored failure model must have 1 to {MOST_LAYERS} layers")
        found, width = [], len(names)
        for layer in layers:
            part = read_keys(layer, {"weights", "bias"})
            bias, rows = part["bias"], part["weights"]
            if not isinstance(bias, list) or not 1 <= len(bias) <= MOST_UNITS:
                raise BundleError(f"a layer of the stored failure model must have 1 to {MOST_UNITS} units")
            if not isinstance(rows, list) or len(rows) != len(bias):
                raise BundleError("a layer of the stored failure model has not one row of weights per unit")
            weights = np.array([read_row(row, width, "weights") for row in rows], dtype=np.float64)
            found.append((weights, np.array(read_row(bias, len(rows), "bias"), dtype=np.float64)))
            width = len(bias)
        if width != 1:
            raise BundleError(f"the stored failure model ends in {width} numbers instead of one")
        return cls(
            names, read_row(values["mean"], len(names), "mean"), read_scale(values["scale"], len(names)), tuple(found)
        )


def _nine(values: FloatArray) -> FloatArray:
    """``values`` at nine significant digits, which keeps the stored text short."""
    array = np.asarray(values, dtype=np.float64)
    return np.array([float(f"{v:.9g}") for v in array.ravel().tolist()], dtype=np.float64).reshape(array.shape)
