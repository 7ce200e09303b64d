"""JSON from a stranger: one meaning or none.

The parser of the standard library takes the last of two equal keys, ``NaN``, and numbers that overflow to infinity; two
readers of one file could then see different values. Here all of these are errors.
"""

from __future__ import annotations

import json
import math
from typing import Any

MAX_DEPTH = 64


def parse(text: str) -> Any:
    """Value of ``text``.

    Raises:
        ValueError: not JSON, a key twice in one object, a number that is not finite, half of a surrogate pair, or
            nesting beyond ``MAX_DEPTH``.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if _is_deep(value):
        raise ValueError("it is nested too deeply")
    if "\\u" in text:
        # Half a pair is no character: it could be parsed but never hashed, printed or written again.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} stands there twice")
    return result


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:40]} is too large")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
