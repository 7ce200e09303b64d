"""MLflow as a second registry: each version a model version, with the same aliases; ours stays the one that decides."""

from __future__ import annotations

import os
import re
from typing import Any

from workzone.errors import ConfigError, MissingExtraError
from workzone.registry.store import ALIASES, Registry

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_TAG = "workzone.version"


def mirror(registry: Registry, uri: str, name: str = "workzone") -> dict[str, str]:
    """Make the registered model ``name`` say what ``registry`` says; returns the MLflow version by our version.

    Versions that are there already are left alone, so it may be repeated. Model versions refer to the folders of the
    registry; nothing is uploaded.

    Args:
        registry: ours.
        uri: of the tracking store, for example ``sqlite:///mlflow.db`` or ``http://mlflow:5000``.
        name: of the registered model.

    Raises:
        MissingExtraError: MLflow is not installed.
        ConfigError: the store cannot be used, or it holds another bundle under one of our versions.
        CheckFailedError: our log was changed.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name[:60]!r} is no name for a registered model", fix="use letters, digits, . _ -")
    # MLflow reports how it is used to its makers unless it is told not to.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise MissingExtraError("mlflow-skinny", "ops", feature="mirroring a registry to MLflow") from error
    state = registry.state()
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        found = _known(client, name)
        for version, sha in state.versions.items():
            if version in found:
                if found[version].tags.get("workzone.bundle_sha256") != sha:
                    fix = "take another name for the registered model"
                    raise ConfigError(f"MLflow holds another bundle as version {version}", where=uri, fix=fix)
                continue
            about = state.added[version].values
            tags = {
                _TAG: version,
                "workzone.bundle_sha256": sha,
                "workzone.bundle_name": str(about["name"]),
                "workzone.engine": str(about["engine"]),
                "workzone.certified": str(about["certified"]).lower(),
            }
            source = registry.folder(version).resolve().as_uri()
            found[version] = client.create_model_version(name, source, tags=tags, description=str(about["note"]))
        held = client.get_registered_model(name).aliases
        for alias in ALIASES:
            wanted = state.aliases.get(alias)
            if wanted is not None:
                client.set_registered_model_alias(name, alias, found[wanted].version)
            elif alias in held:
                client.delete_registered_model_alias(name, alias)
    except MlflowException as error:
        raise ConfigError(f"MLflow cannot be used: {error.message}", where=uri, fix="check --uri") from error
    return {version: str(found[version].version) for version in state.versions}


def _known(client: Any, name: str) -> dict[str, Any]:
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        client.create_registered_model(name, description="Bundles of workzone")
    found: dict[str, Any] = {}
    page = None
    while True:
        part = client.search_model_versions(f"name = '{name}'", page_token=page)
        found.update({v.tags[_TAG]: v for v in part if _TAG in v.tags})
        page = part.token
        if not page:
            return found
