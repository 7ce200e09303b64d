"""From a preset and ``key=value`` words to one validated ``RunConfig``."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from workzone.config.models import RunConfig
from workzone.errors import ConfigError

PRESETS = ("demo", "small", "full")
_PATH_KEYS = (("out",), ("model", "weights"), ("split", "file"), ("cache", "folder"))


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
            raise ConfigError(f"the configuration file cannot be read: {error}", where=str(file)) from error
        layers.append(_load_yaml(text, str(file)))
    layers.append(_from_dotlist(overrides))
    merged = OmegaConf.merge(*layers)
    assert isinstance(merged, DictConfig)
    try:
        values = OmegaConf.to_container(merged, resolve=True)
    except Exception as error:  # omegaconf has many classes for a bad interpolation
        raise ConfigError(f"a value cannot be resolved: {error}") from error
    assert isinstance(values, dict)
    return build_config({str(k): v for k, v in values.items()})


def build_config(values: dict[str, Any]) -> RunConfig:
    """Validate nested ``values``; errors name the key, the value and what was expected."""
    _refuse_unknown(values)
    for key in ("data", "out"):
        if values.get(key) in (None, ""):
            raise ConfigError(f"the key {key!r} is missing", fix=f"say {key}=FOLDER" + (" or data=synthetic" if key == "data" else ""))
    _absolute_paths(values)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        problems = []
        for e in error.errors():
            key = ".".join(str(part) for part in e["loc"] if isinstance(part, str | int)) or "the configuration"
            given = f" (given: {e['input']!r})" if not isinstance(e["input"], dict | BaseModel) else ""
            problems.append(f"{key}: {e['msg'].removeprefix('Value error, ')}{given}")
        raise ConfigError("; ".join(problems), fix="see 'workzone config show' for keys, types and defaults") from error


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
    plain = {"data", "out", "model.weights", "model.backbone", "split.file", "cache.folder", "tracking.uri"}
    try:
        tree = OmegaConf.from_dotlist([f"{k}={v}" for k, v in overrides.items() if k not in plain])
        for key in plain & overrides.keys():
            OmegaConf.update(tree, key, overrides[key] or None)
    except Exception as error:  # yaml and omegaconf raise several classes for one fault: bad syntax in a value
        raise ConfigError(f"a value cannot be read: {error}", fix="quote it, for example 'fuse.aggregator=\"attention\"'") from error
    return tree


def _load_yaml(text: str, where: str) -> Any:
    from omegaconf import DictConfig, OmegaConf

    try:
        tree = OmegaConf.create(text)
    except Exception as error:  # see _from_dotlist
        raise ConfigError(f"the configuration is not valid YAML: {error}", where=where) from error
    if not isinstance(tree, DictConfig):
        raise ConfigError("the configuration must be a mapping of keys to values", where=where)
    return tree


def _preset_text(name: str) -> str:
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}", fix=f"take one of {', '.join(PRESETS)}")
    return resources.files("workzone.config").joinpath(f"presets/{name}.yaml").read_text(encoding="utf-8")


def _refuse_unknown(values: dict[str, Any], model: type[BaseModel] = RunConfig, prefix: str = "") -> None:
    for key, value in values.items():
        info = model.model_fields.get(key)
        if info is None:
            known = [k for k, _ in walk_fields()] + list(RunConfig.model_fields)
            near = difflib.get_close_matches(prefix + key, known, n=1, cutoff=0.5)
            near = near or [k for k in known if k.rpartition(".")[2] == key][:1]
            fix = f"did you mean {near[0]!r}?" if near else "see 'workzone config show' for all keys"
            raise ConfigError(f"unknown configuration key {prefix + key!r}", fix=fix)
        nested = info.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            if not isinstance(value, dict):
                raise ConfigError(f"the key {prefix + key!r} is a section, not a value (given: {value!r})", fix=f"set {prefix}{key}.KEY=VALUE")
            _refuse_unknown(value, nested, f"{prefix}{key}.")


def _absolute_paths(values: dict[str, Any]) -> None:
    if values["data"] != "synthetic":
        values["data"] = str(Path(str(values["data"])).expanduser().resolve())
    for *sections, key in _PATH_KEYS:
        section: Any = values
        for name in sections:
            section = section.get(name) or {}
        value = section.get(key)
        if value and value != "hub":
            section[key] = str(Path(str(value)).expanduser().resolve())
