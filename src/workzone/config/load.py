"""From a preset and ``key=value`` words to one validated ``RunConfig``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from workzone.config.run import RunConfig
from workzone.errors import ConfigError

PRESETS = ("demo", "small", "full")
_SHOW = "see 'workzone config show' for keys, types and defaults"
_PATH_KEYS = (
    ("out",),
    ("model", "weights"),
    ("pretrain", "unlabelled"),
    ("pretrain", "teacher_weights"),
    ("split", "file"),
    ("cache", "folder"),
)
_WORDS = ("hub", "package")
_TEXT = (str, Path, str | None, Path | None)


def load_config(words: Sequence[str], *, file: Path | None = None) -> RunConfig:
    """Resolve ``words`` such as ``data=DIR preset=small train.lr=1e-4`` into a configuration.

    Layers, weakest first: defaults, preset, ``file`` (YAML), words. Relative paths are taken from the working folder.

    Raises:
        ConfigError: unknown key (with the nearest valid one), wrong type, value out of range, unreadable file.
    """
    from omegaconf import DictConfig, OmegaConf

    layers: list[Any] = []
    overrides = _split_words(words)
    preset = overrides.pop("preset", None)
    if preset is not None:
        layers.append(_load_yaml(_preset_text(str(preset)), f"preset {preset}"))
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(
                f"the configuration file cannot be read: {reason}", where=str(file), fix="check the path"
            ) from error
        layers.append(_load_yaml(text, str(file)))
    layers.append(_from_dotlist(overrides))
    try:
        merged = OmegaConf.merge(*layers)
        assert isinstance(merged, DictConfig)
        values = OmegaConf.to_container(merged, resolve=True)
    except Exception as error:  # omegaconf has many classes for layers that do not fit and for bad interpolations
        raise ConfigError(f"a value cannot be resolved: {_first_line(error)}", fix=_SHOW) from error
    assert isinstance(values, dict)
    return build_config({str(k): v for k, v in values.items()})


def build_config(values: dict[str, Any]) -> RunConfig:
    """Validate nested ``values``; raises ConfigError with the key, the value and what was expected."""
    _refuse_unknown(values)
    for key, fix in (("data", "say data=FOLDER or data=synthetic"), ("out", "say out=FOLDER")):
        if values.get(key) in (None, ""):
            raise ConfigError(f"the key {key!r} is missing", fix=fix)
    _absolute_paths(values)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        problems = []
        for e in error.errors():
            key = ".".join(str(part) for part in e["loc"] if isinstance(part, str | int)) or "the configuration"
            given = f" (given: {e['input']!r})" if not isinstance(e["input"], dict | BaseModel) else ""
            problems.append(f"{key}: {e['msg'].removeprefix('Value error, ')}{given}")
        raise ConfigError("; ".join(problems), fix=_SHOW) from error


def parse_words(words: Sequence[str]) -> dict[str, Any]:
    """Nested values of ``key=value`` words, not yet validated."""
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(_from_dotlist(_split_words(words)))
    assert isinstance(values, dict)
    return {str(k): v for k, v in values.items()}


def dump_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML that ``load_config`` reads back to an equal object."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json")))


def walk_fields(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted key and field of every leaf, in the order of definition."""
    for name, info in model.model_fields.items():
        nested = info.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from walk_fields(nested, f"{prefix}{name}.")
        else:
            yield prefix + name, info


def _split_words(words: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise ConfigError(f"{word!r} is not of the form key=value", fix="write, for example, train.lr=1e-4")
        if key in values:
            raise ConfigError(f"the key {key!r} is given twice", fix="give it once")
        values[key] = value
    return values


def _from_dotlist(overrides: dict[str, str]) -> Any:
    from omegaconf import OmegaConf

    # Paths and names are taken as text: YAML would read 'data=2024' as a number and fail on '#' or ':'.
    plain = {key for key, info in walk_fields() if info.annotation in _TEXT}
    tree = OmegaConf.create()
    for key, value in overrides.items():
        if not all(re.fullmatch(r"\w+", part) for part in key.split(".")):
            raise ConfigError(f"{key!r} is no configuration key", fix=_SHOW)
        try:
            if key in plain:
                OmegaConf.update(tree, key, None if value in ("", "null") else value)
            else:
                tree.merge_with_dotlist([f"{key}={value}"])
        except Exception as error:  # yaml and omegaconf raise several classes for one fault: bad syntax in a value
            raise ConfigError(
                f"the value of {key!r} cannot be read (given: {value!r}): {_first_line(error)}",
                fix="put text with special signs into quotes and lists into brackets: 'evaluate.slices=[source]'",
            ) from error
    return tree


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _load_yaml(text: str, where: str) -> Any:
    from omegaconf import DictConfig, OmegaConf

    try:
        tree = OmegaConf.create(text)
    except Exception as error:  # see _from_dotlist
        text = " ".join(str(error).split())
        raise ConfigError(
            f"the configuration is not valid YAML: {text}", where=where, fix="correct the file"
        ) from error
    if not isinstance(tree, DictConfig):
        raise ConfigError(
            "the configuration is no mapping of keys to values", where=where, fix="write lines such as 'seed: 1'"
        )
    return tree


def _preset_text(name: str) -> str:
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}", fix=f"take one of {', '.join(PRESETS)}")
    return resources.files("workzone.config").joinpath(f"presets/{name}.yaml").read_text(encoding="utf-8")


def _refuse_unknown(values: dict[str, Any], model: type[BaseModel] = RunConfig, prefix: str = "") -> None:
    for key, value in values.items():
        info = model.model_fields.get(key)
        if info is None:
            near = _nearest(prefix + str(key), prefix)
            raise ConfigError(
                f"unknown configuration key {prefix + str(key)!r}", fix=f"perhaps {near!r} was meant" if near else _SHOW
            )
        nested = info.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            if not isinstance(value, dict):
                raise ConfigError(
                    f"the key {prefix + key!r} is a section, not a value (given: {value!r})",
                    fix=f"set {prefix}{key}.KEY=VALUE",
                )
            _refuse_unknown(value, nested, f"{prefix}{key}.")


def _nearest(unknown: str, prefix: str) -> str | None:
    """The key that was most likely meant: one of the same section, else one of the same name, else the nearest."""
    keys = [k for k, _ in walk_fields()]
    keys += dict.fromkeys(k.rpartition(".")[0] for k in keys if "." in k)
    siblings = [k for k in keys if k.startswith(prefix) and "." not in k.removeprefix(prefix)]
    name = unknown.removeprefix(prefix)
    near = difflib.get_close_matches(name, [k.removeprefix(prefix) for k in siblings], n=1, cutoff=0.6)
    if near:
        return prefix + near[0]
    namesakes = [k for k in keys if k.rpartition(".")[2] == name]
    return next(iter(namesakes or difflib.get_close_matches(unknown, keys, n=1, cutoff=0.5)), None)


def _absolute(path: str, key: str) -> str:
    if "\0" in path:
        raise ConfigError("a path cannot hold a null character", where=key, fix=f"check the value {path!r}")
    return str(Path(path).expanduser().resolve())


def _absolute_paths(values: dict[str, Any]) -> None:
    if values["data"] != "synthetic":
        values["data"] = _absolute(str(values["data"]), "data")
    for *sections, key in _PATH_KEYS:
        section: Any = values
        for name in sections:
            section = section.get(name) or {}
        if value := section.get(key):
            joined = key == "weights" and "+" in str(section.get("backbone"))
            parts = str(value).split("+") if joined else [str(value)]
            section[key] = "+".join(p if p in _WORDS else _absolute(p, key) for p in parts)
