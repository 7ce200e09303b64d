"""Templates of the pages, read from the package, with everything from data escaped."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def source(name: str) -> str:
    """Text of one template or style sheet."""
    return (files("workzone.evaluation.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def environment() -> Environment:
    """The one environment of all pages."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    from workzone.evaluation.report.words import percent

    made = Environment(
        loader=FunctionLoader(source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["words"] = lambda text: str(text).replace("_", " ").replace("*", " x ")
    made.filters["pct"] = percent
    return made
