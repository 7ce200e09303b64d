"""Variants of an ablation from words of the command line."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from workzone.config import RunConfig
from workzone.config.load import load_config
from workzone.errors import ConfigError
from workzone.tuning.shared import FREE

BASELINE = "baseline"
MOST = 512


def variants(vary: Sequence[str], named: Sequence[str], *, one_at_a_time: bool = False) -> dict[str, list[str]]:
    """Words of each variant by name, the unchanged baseline first.

    Args:
        vary: ``KEY=VALUE,VALUE,...``; all combinations, or with ``one_at_a_time`` one key moved at once.
        named: ``NAME: KEY=VALUE KEY=VALUE``.

    Raises:
        ConfigError: a word that is neither, a name given twice, or more than 512 variants.
    """
    axes = [_axis(word) for word in vary]
    found: dict[str, list[str]] = {BASELINE: []}
    if one_at_a_time:
        combinations: list[tuple[str, ...]] = [(f"{key}={value}",) for key, values in axes for value in values]
    else:
        combinations = list(itertools.product(*([f"{k}={v}" for v in vs] for k, vs in axes))) if axes else []
    for words in combinations:
        found[" ".join(words)] = list(words)
    for text in named:
        name, sign, rest = text.partition(":")
        if not sign or not rest.split() or not name.strip():
            raise ConfigError(f"{text!r} is no 'NAME: KEY=VALUE ...'", where="--variant")
        if name.strip() in found:
            raise ConfigError(f"the variant {name.strip()!r} is given twice", where="--variant")
        found[name.strip()] = rest.split()
    if len(found) > MOST:
        raise ConfigError(f"{len(found)} variants are too many", fix=f"take {MOST} or fewer, or use 'workzone sweep'")
    return found


def _axis(word: str) -> tuple[str, list[str]]:
    key, sign, values = word.partition("=")
    split = [v for v in values.split(",") if v]
    if not sign or not split:
        raise ConfigError(f"{word!r} is no KEY=VALUE,VALUE", where="--vary", fix="say --vary fuse.k=2,3,5")
    return key.strip(), split


def over(base: Sequence[str], words: Sequence[str]) -> list[str]:
    """Words of ``base`` and ``words``, which win where both name a key."""
    given = {word.partition("=")[0] for word in words}
    return [*(word for word in base if word.partition("=")[0] not in given), *words]


def resolve(base: Sequence[str], found: Mapping[str, Sequence[str]]) -> dict[str, RunConfig]:
    """Configuration of each variant; its words win over those of ``base``.

    Raises:
        ConfigError: a wrong key or value, or a variant that changes what must be the same for all.
    """
    configs = {name: load_config(over(base, words)) for name, words in found.items()}
    fixed = configs[BASELINE].model_dump(mode="json", exclude=set(FREE))
    for name, config in configs.items():
        own = config.model_dump(mode="json", exclude=set(FREE))
        if moved := [key for key in fixed if own[key] != fixed[key]]:
            raise ConfigError(
                f"variant {name!r} changes {moved[0]!r}, so its scores could not be compared",
                fix=f"vary keys of the sections {', '.join(FREE)}",
            )
    return configs
