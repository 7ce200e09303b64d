"""Sources from words of a command line: kind, class map, and options by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, cast

from workzone.data.sources.base import SOURCES, Source
from workzone.data.sources.classmap import ClassMap
from workzone.errors import ConfigError

REST = ("negative", "unlabelled", "drop")


def _fields(cls: type[Source]) -> dict[str, Field[Any]]:
    return {f.name: f for f in fields(cast(Any, cls))}


def _value(kind: str, field: Field[Any], text: str) -> Any:
    default = field.default
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, (int, float)):
            return type(default)(text)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"the option {field.name} of {kind} cannot be {text!r}", fix=f"its default is {default}"
        ) from error
    if default is MISSING:
        raise ConfigError(f"the option {field.name} of {kind} cannot be given as a word")
    return text


def make_source(
    kind: str,
    *,
    class_map: str | None = None,
    rest: str | None = None,
    assume_negative: bool = False,
    options: Sequence[str] = (),
) -> Source:
    """Source of a kind with options ``name=value``.

    Raises:
        ConfigError: unknown kind, or an option that this kind does not have or that has another type.
    """
    if kind not in SOURCES:
        raise ConfigError(f"there is no source {kind!r}", fix=f"the sources are {', '.join(sorted(SOURCES))}")
    cls = SOURCES[kind]
    known = _fields(cls)
    given: dict[str, Any] = {}
    if class_map is not None:
        if "classes" not in known or "rest" not in known:
            raise ConfigError(f"the source {kind} takes no class map", fix="leave --class-map out")
        given["classes"] = ClassMap.parse(class_map)
    if assume_negative:
        if "assume_negative" not in known:
            raise ConfigError(f"the source {kind} has labels of its own", fix="leave --assume-negative out")
        given["assume_negative"] = True
    words = [*options, *([f"rest={rest}"] if rest is not None else [])]
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or name not in known:
            names = ", ".join(n for n, f in known.items() if f.default is not MISSING) or "none"
            raise ConfigError(
                f"the source {kind} has no option {word!r}", fix=f"give name=value; the names are {names}"
            )
        given[name] = _value(kind, known[name], text)
    if given.get("rest", "negative") not in REST:
        raise ConfigError(f"images without roadwork cannot be {given['rest']!r}", fix=f"use {', '.join(REST)}")
    return cls(**given)
