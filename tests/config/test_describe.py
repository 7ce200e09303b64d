from __future__ import annotations

from workzone.config.describe import markdown, reference
from workzone.config.load import load_config, walk_fields
from workzone.config.run import RunConfig


def test_every_key_has_a_type_and_a_meaning() -> None:
    rows = reference()
    assert [r[0] for r in rows] == [key for key, _ in walk_fields()]
    assert [
        r[0]
        for r in rows
        if not r[1] or not r[3] or "typing" in r[1] or "<" in r[1].replace("<=", "").replace("< ", "")
    ] == []


def test_shown_defaults_are_the_defaults() -> None:
    defaults = [(key, default) for key, _, default, _ in reference() if default not in ("required", "")]
    config = load_config(["data=synthetic", "out=run", *(f"{key}={value}" for key, value in defaults)])
    assert config == load_config(["data=synthetic", "out=run"])


def test_markdown_has_one_row_a_key_and_one_heading_a_section() -> None:
    text = markdown()
    for key, _ in walk_fields():
        assert text.count(f"| `{key}` |") == 1
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(headings) == len(set(headings)), "a section is split in two"
    assert len(headings) >= len([f for f in RunConfig.model_fields if f not in ("data", "out", "seed")])
