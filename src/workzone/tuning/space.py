"""Search space of a sweep from words of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from workzone.errors import ConfigError

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True, slots=True)
class Axis:
    """One key: choices, or a range of whole or real numbers, perhaps on a log scale."""

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False

    def suggest(self, trial: optuna.Trial) -> Any:
        """A value for ``trial``."""
        if self.choices:
            return trial.suggest_categorical(self.key, list(self.choices))
        if self.whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)

    def values(self, steps: int) -> list[Any]:
        """Values of a grid: all choices, or ``steps`` values of the range."""
        import numpy as np

        if self.choices:
            return list(self.choices)
        ends = (self.low, self.high)
        found = np.geomspace(*ends, steps) if self.log else np.linspace(*ends, steps)
        return sorted({round(float(v)) for v in found}) if self.whole else [float(v) for v in found]


def parse_space(words: Sequence[str]) -> tuple[Axis, ...]:
    """``KEY=LOW..HIGH``, ``KEY=LOW..HIGH:log`` or ``KEY=CHOICE,CHOICE``.

    Raises:
        ConfigError: a word that is neither, or a key given twice.
    """
    axes = tuple(_axis(word) for word in words)
    if not axes:
        raise ConfigError("a sweep needs a search space", fix="say --space fuse.lr=1e-4..1e-2:log")
    if len({a.key for a in axes}) < len(axes):
        raise ConfigError("a key is given twice", where="--space")
    return axes


def _axis(word: str) -> Axis:
    key, sign, text = word.partition("=")
    if not sign or not text:
        raise ConfigError(f"{word!r} is no KEY=LOW..HIGH or KEY=CHOICE,CHOICE", where="--space")
    body, _, scale = text.partition(":")
    if ".." not in body:
        return Axis(key.strip(), choices=tuple(yaml.safe_load(v) for v in text.split(",") if v))
    low, _, high = body.partition("..")
    try:
        ends = float(low), float(high)
    except ValueError as error:
        raise ConfigError(f"{body!r} is no range of numbers", where=f"--space {key}") from error
    log = scale == "log"
    if scale not in ("", "log") or not ends[0] < ends[1] or (log and ends[0] <= 0):
        raise ConfigError(f"{text!r} is no range", where=f"--space {key}", fix="say LOW..HIGH or LOW..HIGH:log")
    whole = all(part.strip().lstrip("+-").isdigit() for part in (low, high))
    return Axis(key.strip(), low=ends[0], high=ends[1], whole=whole, log=log)
