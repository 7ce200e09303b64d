"""Search for pictures in one split role that are crops, mirrored copies or near copies of pictures in another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workzone.data.audit.window_index import Pictures, nearest_windows
from workzone.data.audit.windows import (
    COARSE,
    FINE,
    Floats,
    Window,
    bank,
    mirror,
    refine,
    whole_features,
    window_coarse,
    window_features,
)

COARSE_SCORE = 0.70
# Unrelated street pictures reached 0.90 (1,235 images, pairs across roles); of 160 crops and copies 159 reached 0.93.
MATCH_SCORE = 0.93
EXACT_UP_TO = 1000
# The index names the most similar window by low frequencies, not the best of all by these features. Of 400 crops and
# copies among 4,118 street images the least were 0.69 here and 0.68, 0.72, 0.79 and 0.90 after each round of refining.
INDEXED_SCORE = 0.60
_FLOORS = (0.60, 0.65, 0.70, 0.82)
_KEPT = 3


@dataclass(frozen=True, slots=True)
class Match:
    """Picture ``part`` shows ``window`` of picture ``whole``; both are indices."""

    part: int
    whole: int
    window: Window
    mirrored: bool
    score: float


class _Best:
    """The few best windows that were seen for each picture."""

    def __init__(self, n: int, least: float = COARSE_SCORE) -> None:
        self.score = np.full((n, _KEPT), least, dtype=np.float32)
        self.whole = np.full((n, _KEPT), -1, dtype=np.int64)
        self.window = np.zeros((n, _KEPT), dtype=np.int64)
        self.mirrored = np.zeros((n, _KEPT), dtype=bool)

    def offer(
        self, parts: NDArray[np.intp], whole: int, score: Floats, window: NDArray[np.intp], mirrored: NDArray[np.bool_]
    ) -> None:
        """Take the windows of ``whole`` for the pictures that have kept a worse one."""
        worst = self.score[parts].argmin(axis=1)
        better = score > self.score[parts, worst]
        rows, slots = parts[better], worst[better]
        self.score[rows, slots] = score[better]
        self.whole[rows, slots] = whole
        self.window[rows, slots] = window[better]
        self.mirrored[rows, slots] = mirrored[better]


def _coarse(grey: NDArray[np.uint8], roles: NDArray[np.int64], step: Callable[[], None]) -> _Best:
    plain = np.concatenate([whole_features(g[None].astype(np.float32), COARSE) for g in grey])
    best = _Best(len(grey))
    for role in np.unique(roles):
        others = np.flatnonzero(roles != role)
        both = np.concatenate([plain[others], mirror(plain[others], COARSE)])
        for whole in np.flatnonzero(roles == role).tolist():
            if len(others):
                product = both @ window_features(grey[whole].astype(np.float32)).T
                top = product.argmax(axis=1)
                score = product[np.arange(len(both)), top]
                straight, turned = score[: len(others)], score[len(others) :]
                flip = turned > straight
                window = np.where(flip, top[len(others) :], top[: len(others)])
                best.offer(others, whole, np.maximum(straight, turned), window, flip)
            step()
    return best


def correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Correlation of two whole (SIDE, SIDE) pictures, -1 to 1, blind to brightness and contrast."""
    a, b = (whole_features(g[None].astype(np.float32), FINE)[0] for g in (first, second))
    return float(a @ b)


def is_flat(grey: NDArray[np.uint8]) -> bool:
    """Whether a (SIDE, SIDE) picture has no structure, so that it correlates with nothing."""
    return not whole_features(grey[None].astype(np.float32), FINE).any()


def _indexed(grey: Pictures, roles: NDArray[np.int64], step: Callable[[], None]) -> _Best:
    found = nearest_windows(grey, roles, step=step)
    best = _Best(len(grey), INDEXED_SCORE)
    for part in np.flatnonzero(found.whole[:, 0] >= 0).tolist():
        plain = whole_features(grey[part][None].astype(np.float32), COARSE)[0]
        turned = mirror(plain, COARSE)
        for k in np.flatnonzero(found.whole[part] >= 0).tolist():
            whole, window, flip = int(found.whole[part, k]), int(found.window[part, k]), found.mirrored[part, k]
            score = window_coarse(grey[whole].astype(np.float32), window) @ (turned if flip else plain)
            one = (np.array([v]) for v in (part, score, window, flip))
            best.offer(next(one), whole, *one)
    return best


def find_matches(
    grey: Pictures,
    roles: Sequence[int] | NDArray[np.int64],
    *,
    exact_up_to: int = EXACT_UP_TO,
    step: Callable[[], None] = lambda: None,
) -> list[Match]:
    """Find pictures that show a part, or all, of a picture of another role.

    Up to ``exact_up_to`` pictures all pairs are compared through a bank of windows. Beyond, an index names the few
    windows most like each picture (``nearest_windows``). The best few of each picture are refined in either case.

    Args:
        grey: (N, SIDE, SIDE) grey squares, in memory or on disk.
        roles: (N,) role of each picture.
        exact_up_to: number of pictures up to which all pairs are compared; the work for that is quadratic.
        step: called after each picture.

    Returns:
        At most one match per pair of pictures, best first.
    """
    number = np.asarray(roles, dtype=np.int64)
    exact = len(grey) <= exact_up_to
    best = _coarse(grey[:], number, step) if exact else _indexed(grey, number, step)
    floors = () if exact else _FLOORS
    windows = bank()[2]
    found: dict[tuple[int, int], Match] = {}
    for part in range(len(grey)):
        taken = [k for k in range(_KEPT) if best.whole[part, k] >= 0]
        if not taken:
            continue
        plain = whole_features(grey[part][None].astype(np.float32), FINE)[0]
        for k in taken:
            whole, mirrored = int(best.whole[part, k]), bool(best.mirrored[part, k])
            target = mirror(plain, FINE) if mirrored else plain
            start = windows[int(best.window[part, k])]
            score, window = refine(grey[whole].astype(np.float32), target, start, floors=floors)
            pair = (min(part, whole), max(part, whole))
            if score >= MATCH_SCORE and (pair not in found or found[pair].score < score):
                found[pair] = Match(part, whole, window, mirrored, score)
    return sorted(found.values(), key=lambda m: (-m.score, m.part, m.whole))
