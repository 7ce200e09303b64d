"""Every value that a key accepts survives words and YAML; a slip of the keyboard is answered with a key that exists."""

from __future__ import annotations

import difflib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from workzone.config import RunConfig
from workzone.config.load import dump_yaml, load_config, walk_fields
from workzone.errors import ConfigError

BASE = ("data=synthetic", "out=/tmp/run")
KEYS = [key for key, _ in walk_fields() if key not in ("data", "out")]
SECTIONS = sorted({key.partition(".")[0] for key in KEYS if "." in key})
WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=10)
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.booleans(), st.integers(0, 64), st.floats(0, 1), st.floats(1e-9, 1e6), st.sampled_from([1e-4, 3e-5, 0.1, 1 / 3])
)


def value(config: RunConfig, key: str) -> Any:
    found: Any = config.model_dump(mode="json")
    for part in key.split("."):
        found = found[part]
    return found


@settings(max_examples=35, deadline=None)
@given(chosen=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
def test_what_is_accepted_survives_words_and_yaml(chosen: dict[str, Any]) -> None:
    words = [*BASE, *(f"{key}={json.dumps(given_value)}" for key, given_value in chosen.items())]
    try:
        config = load_config(words)
    except ConfigError as error:
        said = str(error)
        assert any(key.rpartition(".")[2] in said or key.partition(".")[0] in said for key in chosen), said
        return
    for key, given_value in chosen.items():
        stored = value(config, key)
        if isinstance(given_value, float) and isinstance(stored, float):
            assert stored == given_value, key
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(dump_yaml(config), encoding="utf-8")
        assert load_config([], file=file) == config
    # Every key said as a word, those that hold text left as they were said.
    text = {k for k, info in walk_fields() if info.annotation in (str, str | None, Path, Path | None)}
    words = [f"{key}={json.dumps(value(config, key))}" for key in KEYS if key not in text]
    words += [f"{key}={json.dumps(chosen[key])}" for key in chosen if key in text]
    assert load_config([*BASE, *words]) == config


@settings(max_examples=15, deadline=None)
@given(text=WORDS)
def test_any_text_is_kept_as_text(text: str) -> None:
    config = load_config([*BASE, f"tracking.experiment={text}"])
    assert config.tracking.experiment == text
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(dump_yaml(config), encoding="utf-8")
        assert load_config([], file=file) == config


@st.composite
def slips(draw: st.DrawFn) -> tuple[str, str]:
    """A key, and the key with one letter left out, doubled, or two exchanged."""
    key = draw(st.sampled_from([k for k in KEYS if len(k.rpartition(".")[2]) >= 5]))
    section, dot, name = key.rpartition(".")
    i = draw(st.integers(0, len(name) - 2))
    how = draw(st.sampled_from(["drop", "double", "swap"]))
    if how == "drop":
        wrong = name[:i] + name[i + 1 :]
    elif how == "double":
        wrong = name[: i + 1] + name[i:]
    else:
        wrong = name[:i] + name[i + 1] + name[i] + name[i + 2 :]
    return key, section + dot + wrong


@settings(max_examples=30, deadline=None)
@given(pair=slips())
def test_a_slip_is_answered_with_the_nearest_key(pair: tuple[str, str]) -> None:
    key, wrong = pair
    assume(wrong not in KEYS and wrong not in SECTIONS)
    with pytest.raises(ConfigError, match="perhaps '") as caught:
        load_config([*BASE, f"{wrong}=1"])
    text = str(caught.value)
    assert wrong in text
    meant = text.partition("perhaps '")[2].partition("'")[0]
    assert meant in KEYS or meant in SECTIONS or meant in ("data", "out")

    def near(one: str) -> float:
        return difflib.SequenceMatcher(None, wrong, one).ratio()

    assert meant == key or near(meant) >= near(key) - 0.05, f"{wrong}: {meant}"
