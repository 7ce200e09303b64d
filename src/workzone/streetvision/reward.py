"""The reward of a miner, step by step, for many streams of challenges at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workzone.predictions import FloatArray

NO_ANSWER = -1.0
MCC_WINDOW = 100
ACCURACY_WINDOW = 10
EMA = 0.05


def rewards(answers: NDArray[np.floating], labels: NDArray[np.integer]) -> FloatArray:
    """Reward of each step: ``(0.5 m + 0.5 a) ** 3``.

    ``m`` is the MCC over the last 100 challenges and ``a`` the accuracy over the last 10, this one included; fewer
    while the history is short. Answers of -1 keep their place in the windows and are left out of both figures. ``m`` is
    floored at 0, and 0 where labels or rounded answers are all of one class; both are 0 where nothing was answered.
    Answers are rounded half to even, so exactly 0.5 means no roadwork. A step earns 0 when its answer is -1 or outside
    [0, 1]; what lies outside and rounds to neither 0 nor 1 counts in the windows as an answer of a third class.

    Args:
        answers: (..., N) in the order of the challenges.
        labels: (..., N) 0 or 1; the shapes broadcast.

    Returns:
        (..., N) in [0, 1].

    Raises:
        ValueError: an answer is not a number, or a label is neither 0 nor 1.
    """
    given, truth = np.broadcast_arrays(np.asarray(answers), np.asarray(labels))
    if not np.isfinite(given).all():
        raise ValueError("answers must be numbers")
    if not ((truth == 0) | (truth == 1)).all():
        raise ValueError("labels must be 0 or 1")
    answered = given != NO_ANSWER
    said = np.rint(given)
    yes, no = answered & (said == 1), answered & (said == 0)
    right = np.where(truth == 1, yes, no)
    # The multiclass MCC, which with two classes is the usual one.
    n = _window(answered, MCC_WINDOW)
    true_yes, said_yes, said_no = (_window(x, MCC_WINDOW) for x in (answered & (truth == 1), yes, no))
    said_other = n - said_yes - said_no
    true_no = n - true_yes
    covered = _window(right, MCC_WINDOW) * n - true_yes * said_yes - true_no * said_no
    spread = (n**2 - true_yes**2 - true_no**2) * (n**2 - said_yes**2 - said_no**2 - said_other**2)
    mcc = np.maximum(covered, 0) / np.sqrt(np.maximum(spread, 1))
    mcc[spread == 0] = 0.0
    recent = _window(answered, ACCURACY_WINDOW)
    accuracy = _window(right, ACCURACY_WINDOW) / np.maximum(recent, 1)
    earned = (0.5 * mcc + 0.5 * accuracy) ** 3
    valid = answered & (given >= 0) & (given <= 1)
    return np.asarray(np.where(valid, earned, 0.0), dtype=np.float64)


def _window(flags: NDArray[np.bool_], length: int) -> NDArray[np.int64]:
    """Number of set ``flags`` (..., N) among the last ``length``, this one included."""
    total = np.cumsum(flags, axis=-1, dtype=np.int64)
    total[..., length:] -= total[..., :-length].copy()
    return total


def ema(earned: FloatArray, *, start: float = 0.0, factor: float = EMA) -> FloatArray:
    """Score after each step: ``factor`` of the reward and the rest of the score before.

    Args:
        earned: (..., N) rewards.
        start: score before the first step.
        factor: share of the newest reward.
    """
    scores = np.empty_like(earned)
    score = np.full(earned.shape[:-1], start)
    for step in range(earned.shape[-1]):
        score = (1 - factor) * score + factor * earned[..., step]
        scores[..., step] = score
    return scores
