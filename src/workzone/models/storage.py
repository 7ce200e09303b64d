"""Heads on disk: safetensors for the tensors, JSON for the settings."""

from __future__ import annotations

from pathlib import Path

from workzone.errors import ArtifactError, ConfigError
from workzone.files import atomic_path, read_json, write_json
from workzone.models.aggregators import Aggregator, Ensemble, build_aggregator

_SCHEMA = 1
_MOST_MEMBERS = 256


def save_head(head: Ensemble, folder: Path, *, name: str = "head") -> Path:
    """Write ``<name>.safetensors`` and ``<name>.json`` below ``folder``; returns the settings file."""
    from safetensors.torch import save_file

    members = [m for m in head.members if isinstance(m, Aggregator)]
    with atomic_path(folder / f"{name}.safetensors") as partial:
        save_file({k: v.detach().cpu().contiguous() for k, v in head.state_dict().items()}, partial)
    settings = {"schema": _SCHEMA, "members": [{"aggregator": m.name, "settings": m.settings()} for m in members]}
    write_json(folder / f"{name}.json", settings)
    return folder / f"{name}.json"


def load_head(folder: Path, *, name: str = "head") -> Ensemble:
    """Read what ``save_head`` wrote, in evaluation mode; raises ArtifactError when it does not fit together."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        settings = read_json(folder / f"{name}.json")
        if settings["schema"] != _SCHEMA or not 0 < len(settings["members"]) <= _MOST_MEMBERS:
            raise ValueError("unknown schema or number of members")
        head = Ensemble([build_aggregator(m["aggregator"], m["settings"]) for m in settings["members"]])
        head.load_state_dict(load_file(folder / f"{name}.safetensors"), strict=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, ConfigError) as error:
        raise ArtifactError(
            f"the saved head cannot be read: {error}", where=str(folder / name), fix="run the phase fuse again"
        ) from error
    return head.eval()
