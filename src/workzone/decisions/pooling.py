"""Pools: log-odds of the frames of one drive that heed their neighbours in time.

Nothing in the pools of this file is trained; ``decisions.attention`` holds those whose numbers are fitted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from workzone.calibration.base import as_number
from workzone.errors import BundleError, ConfigError, DataError
from workzone.predictions import FloatArray, logit, sigmoid

MAX_EVIDENCE = 7.0
"""Log-odds of one frame are limited to this before pooling (probabilities 0.001 and 0.999): a calibrator that was
fitted on some hundred images cannot tell more, and a frame it calls certain would outvote all others."""


@dataclass(frozen=True, slots=True)
class Pool(ABC):
    """Turns the log-odds of frames into log-odds that heed their neighbours."""

    name: ClassVar[str]
    needs_embeddings: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not np.isfinite(as_number(value)) or value <= 0:
                raise ConfigError(f"{field.name} is {value!r}, but must be positive", where=f"pool {self.name!r}")

    def __call__(
        self, log_odds: FloatArray, seconds: FloatArray, embeddings: NDArray[np.floating[Any]] | None = None
    ) -> FloatArray:
        """Pooled log-odds (N,).

        Args:
            log_odds: (N,) calibrated log-odds of the frames of one drive.
            seconds: (N,) their times, not falling.
            embeddings: (N, D), for the pools that compare pictures.

        Raises:
            DataError: a value is NaN, or times fall.
        """
        s, t = np.asarray(log_odds, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
        if s.ndim != 1 or s.shape != t.shape:
            raise ValueError(f"log_odds and seconds must have one shape (N,), got {s.shape} and {t.shape}")
        if np.isnan(s).any() or not np.isfinite(t).all() or (np.diff(t) < 0).any():
            raise DataError("scores of a drive must be numbers, and its times must not fall", where="pooling of frames")
        e = None if embeddings is None else np.asarray(embeddings, dtype=np.float64)
        if self.needs_embeddings and (e is None or e.ndim != 2 or len(e) != len(s)):
            raise ValueError(f"pool {self.name!r} needs embeddings of shape ({len(s)}, D)")
        return self._pool(np.clip(s, -MAX_EVIDENCE, MAX_EVIDENCE), t, e) if len(s) else s

    @abstractmethod
    def _pool(self, s: FloatArray, t: FloatArray, e: FloatArray | None) -> FloatArray:
        """Pooled log-odds of N > 0 frames."""

    def to_dict(self) -> dict[str, Any]:
        """Name and settings; ``pool_from_dict`` reads it back."""
        return {"pool": self.name, "parameters": asdict(self)}


@dataclass(frozen=True, slots=True)
class WindowMean(Pool):
    """Mean over the frames at most ``seconds / 2`` away."""

    name: ClassVar[str] = "mean"
    seconds: float = 4.0

    def _pool(self, s: FloatArray, t: FloatArray, e: FloatArray | None) -> FloatArray:
        low, high = _window(t, self.seconds)
        total = np.concatenate([[0.0], np.cumsum(s)])
        return np.asarray((total[high] - total[low]) / (high - low))


@dataclass(frozen=True, slots=True)
class Exponential(Pool):
    """Causal mean, where a frame counts half as much after ``half_life`` seconds; looks at no later frame."""

    name: ClassVar[str] = "exponential"
    half_life: float = 2.0

    def _pool(self, s: FloatArray, t: FloatArray, e: FloatArray | None) -> FloatArray:
        kept = 0.5 ** (np.diff(t, prepend=t[0]) / self.half_life)
        pooled, value, weight = np.empty_like(s), 0.0, 0.0
        for i in range(len(s)):
            value, weight = kept[i] * value + s[i], kept[i] * weight + 1.0
            pooled[i] = value / weight
        return pooled


@dataclass(frozen=True, slots=True)
class TopMean(Pool):
    """Mean of the ``k`` highest frames at most ``seconds / 2`` away: one clear sight of a sign is enough."""

    name: ClassVar[str] = "topk"
    seconds: float = 4.0
    k: int = 2

    def _pool(self, s: FloatArray, t: FloatArray, e: FloatArray | None) -> FloatArray:
        low, high = _window(t, self.seconds)
        k = int(self.k)
        return np.array([np.sort(s[a:b])[-k:].mean() for a, b in zip(low, high, strict=True)])


@dataclass(frozen=True, slots=True)
class HiddenMarkov(Pool):
    """Forward-backward over two states (L. R. Rabiner, A tutorial on hidden Markov models, 1989).

    The state changes as a continuous-time chain that stays in roadwork ``stay`` seconds on average and whose long-run
    share of roadwork is ``prior``. A frame's log-odds, less those of the prevalence it was calibrated at, are the
    evidence; ``trust`` below 1 discounts it, since neighbouring frames repeat each other's mistakes.

    Args:
        stay: mean seconds in roadwork.
        prior: long-run share of roadwork.
        prevalence: share of roadwork at which the frames' probabilities were calibrated.
        trust: exponent of each frame's likelihood, at most 1.
    """

    name: ClassVar[str] = "hmm"
    stay: float = 20.0
    prior: float = 0.5
    prevalence: float = 0.5
    trust: float = 0.5

    def __post_init__(self) -> None:
        # The own form of super() does not work in a class with slots.
        Pool.__post_init__(self)
        if self.prior >= 1 or self.prevalence >= 1 or self.trust > 1:
            raise ConfigError("prior and prevalence must be below 1 and trust at most 1", where="pool 'hmm'")

    def _pool(self, s: FloatArray, t: FloatArray, e: FloatArray | None) -> FloatArray:
        evidence = self.trust * (s - logit(np.array(self.prevalence)))
        likelihood = np.stack([sigmoid(-evidence), sigmoid(evidence)], axis=1)
        share = np.array([1.0 - self.prior, self.prior])
        # Leaving roadwork at rate 1/stay and entering it at the rate that keeps the long-run share.
        fade = np.exp(-np.diff(t) / self.stay / share[0])
        n = len(s)
        forward, backward = np.empty((n, 2)), np.ones((n, 2))
        forward[0] = _normal(share * likelihood[0])
        for i in range(1, n):
            forward[i] = _normal((fade[i - 1] * forward[i - 1] + (1.0 - fade[i - 1]) * share) * likelihood[i])
        for i in range(n - 2, -1, -1):
            ahead = likelihood[i + 1] * backward[i + 1]
            backward[i] = _normal(fade[i] * ahead + (1.0 - fade[i]) * (share @ ahead))
        both = forward * backward
        return np.asarray(np.log(both[:, 1]) - np.log(both[:, 0]))


@dataclass(frozen=True, slots=True)
class Attention(Pool):
    """Mean of all frames, weighted by the softmax of cosine similarity over ``temperature`` less distance in time.

    Nothing is trained: embeddings are both queries and keys, log-odds are the values. Embeddings are centred over the
    drive first, since what all its frames share tells none apart.

    Args:
        temperature: of the cosine similarity.
        seconds: distance in time that lowers a weight by the factor e.
    """

    name: ClassVar[str] = "attention"
    needs_embeddings: ClassVar[bool] = True
    temperature: float = 0.2
    seconds: float = 4.0

    def _pool(self, s: FloatArray, t: FloatArray, e: FloatArray | None) -> FloatArray:
        assert e is not None
        centred = e - e.mean(axis=0)
        norm = np.linalg.norm(centred, axis=1, keepdims=True)
        unit = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 1e-12)
        pooled = np.empty_like(s)
        for start in range(0, len(s), 512):  # N x N weights of a long drive would not fit in memory
            rows = slice(start, start + 512)
            score = unit[rows] @ unit.T / self.temperature - np.abs(t[rows, None] - t) / self.seconds
            weight = np.exp(score - score.max(axis=1, keepdims=True))
            pooled[rows] = weight @ s / weight.sum(axis=1)
        return pooled


POOLS: Mapping[str, type[Pool]] = {cls.name: cls for cls in (WindowMean, Exponential, TopMean, HiddenMarkov, Attention)}


def create_pool(name: str, **options: Any) -> Pool:
    """Return a pool.

    Raises:
        ConfigError: no pool has this name or option, or a setting is impossible.
    """
    if name not in POOLS:
        raise ConfigError(f"there is no pool {name!r}", fix=f"use one of {', '.join(POOLS)}")
    known = [f.name for f in fields(POOLS[name])]
    if unknown := [key for key in options if key not in known]:
        raise ConfigError(f"pool {name!r} has no option {unknown[0]!r}", fix=f"its options are {', '.join(known)}")
    return POOLS[name](**options)


def pool_from_dict(stored: object) -> Pool:
    """Rebuild what ``Pool.to_dict`` wrote, trained pools too.

    Raises:
        BundleError: unknown pool or settings.
    """
    if not isinstance(stored, Mapping) or set(stored) != {"pool", "parameters"}:
        raise BundleError("a stored pool must hold exactly 'pool' and 'parameters'")
    name, parameters = stored["pool"], stored["parameters"]
    if not isinstance(name, str) or not isinstance(parameters, Mapping):
        raise BundleError("a stored pool must hold a name and its settings")
    from workzone.decisions.attention import TRAINED

    if name in TRAINED:
        return TRAINED[name].from_numbers(parameters)
    try:
        return create_pool(name, **parameters)
    except ConfigError as error:
        raise BundleError(f"the stored pool is impossible: {error.what}") from error


def pool_groups(
    pool: Pool,
    log_odds: FloatArray,
    groups: NDArray[Any],
    seconds: FloatArray,
    embeddings: NDArray[np.floating[Any]] | None = None,
) -> FloatArray:
    """Pooled log-odds (N,) of frames of several drives in any order; no frame sees another drive."""
    pooled = np.empty(len(log_odds))
    for name in np.unique(groups):
        rows = np.flatnonzero(groups == name)
        rows = rows[np.argsort(seconds[rows], kind="stable")]
        pooled[rows] = pool(log_odds[rows], seconds[rows], None if embeddings is None else embeddings[rows])
    return pooled


def _window(t: FloatArray, seconds: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    # Times are rounded to milliseconds; a frame exactly at the edge belongs to the window.
    half = seconds / 2 + 1e-6
    return np.searchsorted(t, t - half, side="left"), np.searchsorted(t, t + half, side="right")


def _normal(v: FloatArray) -> FloatArray:
    return np.asarray(v / v.sum())
