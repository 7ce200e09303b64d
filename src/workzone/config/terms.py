"""The text that names a loss: ``focal``, ``focal(gamma=1)``, ``supcon+cross_entropy``, ``0.9*lcron+0.1*koleo``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

LOSS_NAMES = (
    "cross_entropy",
    "focal",
    "label_smoothing",
    "supcon",
    "koleo",
    "evidential",
    "gatekeeper",
    "lcron",
    "cascade_survival",
)
ALIASES = {"ce": "cross_entropy"}
OF_EMBEDDINGS = ("supcon", "koleo")
"""Losses that move embeddings and leave the score as it was."""

_TERM = re.compile(r"(?:(?P<weight>[0-9.eE-]+)\s*\*\s*)?(?P<name>[a-z_]+)\s*(?:\((?P<options>[^()]*)\))?")
_LONGEST = 500


@dataclass(frozen=True, slots=True)
class Term:
    """One loss of a weighted sum, with the arguments that were written for it."""

    name: str
    weight: float
    options: tuple[tuple[str, float | str], ...] = ()


def parse_loss(text: str) -> tuple[Term, ...]:
    """Terms of ``text``; without any weight they share 1 equally, otherwise a term without one weighs 1.

    Raises:
        ValueError: not of the form ``0.9*name(key=value)+0.1*name``, an unknown name, or a sum that trains no score.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"a loss is named in at most {_LONGEST} characters")
    found = []
    # A plus inside brackets or in an exponent belongs to a number.
    for part in re.split(r"\+(?![^()]*\))(?=\s*(?:[a-z]|[0-9.eE-]+\s*\*))", text):
        match = _TERM.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"cannot read {part.strip()!r} as a loss: write name, name(key=value) or 0.5*name")
        name = ALIASES.get(match["name"], match["name"])
        if name not in LOSS_NAMES:
            raise ValueError(f"unknown loss {name!r}: take one of {', '.join(LOSS_NAMES)}")
        found.append((name, match["weight"], _options(match["options"] or "")))
    plain = all(weight is None for _, weight, _ in found)
    terms = []
    for name, written, options in found:
        weight = 1.0 / len(found) if plain else 1.0 if written is None else _number(written)
        if not math.isfinite(weight) or weight <= 0.0:
            raise ValueError(f"the weight of {name} must be a number above 0, got {written}")
        terms.append(Term(name, weight, options))
    if len({term.name for term in terms}) < len(terms):
        raise ValueError(f"{text!r} names a loss twice")
    if all(term.name in OF_EMBEDDINGS for term in terms):
        raise ValueError(f"{text!r} trains embeddings and leaves the score as it was: write {text}+cross_entropy")
    return tuple(terms)


def loss_text(value: object) -> object:
    """``value`` with a list of terms joined by plus signs, and checked; anything else is left to the type check."""
    if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(v, str) for v in value):
        value = "+".join(value)
    if isinstance(value, str):
        parse_loss(value)
    return value


def _options(text: str) -> tuple[tuple[str, float | str], ...]:
    found: list[tuple[str, float | str]] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, sign, value = (p.strip() for p in part.partition("="))
        if not sign or not key.isidentifier() or not value:
            raise ValueError(f"cannot read {part!r}: write key=value")
        number = _number(value)
        found.append((key, value if math.isnan(number) else number))
    return tuple(found)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
