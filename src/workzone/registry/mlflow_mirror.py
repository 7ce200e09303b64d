"""MLflow's model registry holds the same versions and aliases; our log, which gates have passed, decides."""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workzone.errors import ConfigError, needs_extra
from workzone.registry.log import head_of
from workzone.registry.store import ALIASES, Registry, State

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_TAG, _SHA = "workzone.version", "workzone.bundle_sha256"
_HEAD, _BEGUN = "workzone.head", "workzone.begun"
"""Tags of the registered model: the log up to which MLflow was told, and up to which somebody began to tell it."""
ROOT_TAG = "workzone.root"
"""Tag of the registered model: the folder of the registry, as a URI."""
_CONNECT_SECONDS, _LOST_SECONDS = 10, 30
"""How long a database may take to answer a connection, and what was sent before the connection counts as lost."""
_PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""What to install, by the module of a driver that SQLAlchemy looks for."""
_HTTP = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Settings of MLflow that nobody made: it would repeat a request for minutes, while a change waits to be told."""


@contextmanager
def client_of(uri: str) -> Iterator[Any]:
    """A client of MLflow's registry at ``uri``.

    Raises:
        MissingExtraError: MLflow is not installed.
        ConfigError: the store cannot be used.
    """
    # MLflow reports how it is used to its makers unless it is told not to.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name, value in _HTTP.items():
        os.environ.setdefault(name, value)
    with needs_extra("mlflow-skinny", "ops", feature="MLflow's model registry"):
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    for name in ("alembic", "mlflow"):  # a new database is laid out in sixty lines otherwise
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback of what is told below
    try:
        reached = _reached(uri)
        yield MlflowClient(tracking_uri=reached, registry_uri=reached)
    except MlflowException as error:
        fix = "check the address, and that the store can be reached"
        raise ConfigError(f"MLflow cannot be used: {_first_line(error.message)}", where=uri, fix=fix) from error
    except SQLAlchemyError as error:
        what = f"MLflow's store cannot be used: {_first_line(getattr(error, 'orig', None) or error)}"
        raise ConfigError(what, where=uri, fix="check the address, and that the store can be reached") from error
    except ModuleNotFoundError as error:
        what = f"MLflow needs the package {error.name!r} for this kind of store"
        package = _PACKAGES.get(str(error.name), error.name)
        raise ConfigError(what, where=uri, fix=f"install it: pip install '{package}'") from error


def _reached(uri: str) -> str:
    """``uri`` with a limit on how long its database may be silent, after one connection to it.

    MLflow repeats a failed connection ten times, and each may take as long as the system waits for a host that does
    not answer: twenty minutes for a wrong address.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url
    from sqlalchemy.pool import NullPool

    if uri.startswith(("sqlite", "http")):
        return uri
    url = make_url(uri)
    limits = {
        "psycopg2": {"connect_timeout": str(_CONNECT_SECONDS), "tcp_user_timeout": str(1000 * _LOST_SECONDS)},
        "psycopg": {"connect_timeout": str(_CONNECT_SECONDS), "tcp_user_timeout": str(1000 * _LOST_SECONDS)},
        "pymysql": {"connect_timeout": str(_CONNECT_SECONDS)},
    }.get(url.get_driver_name(), {})
    url = url.update_query_dict({k: v for k, v in limits.items() if k not in url.query})
    with create_engine(url, poolclass=NullPool).connect():
        return url.render_as_string(hide_password=False)  # none is in it, see Link.parse


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One process at a time tells MLflow about the registry in ``root``.

    Two at once would make the same version twice, and take what the other said for something that no gate has seen.
    """
    with (root / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def mirror(
    registry: Registry, uri: str, name: str = "workzone", *, note: Callable[[str], None] = lambda text: None
) -> dict[str, str]:
    """Make the registered model ``name`` say what ``registry`` says; returns the MLflow version by our version.

    Versions that are there already are left alone, so it may be repeated. Model versions refer to the folders of the
    registry; nothing is uploaded. An alias that was changed in MLflow has passed no gate: it is set back.

    Args:
        registry: ours.
        uri: of the store, for example ``sqlite:///mlflow.db``, ``postgresql://host/db`` or ``http://mlflow:5000``.
        name: of the registered model.
        note: called with a sentence for each alias that was set back.

    Raises:
        MissingExtraError: MLflow is not installed.
        ConfigError: the store cannot be used, or it belongs to another registry.
        CheckFailedError: our log was changed.
    """
    require_name(name)
    registry.entries()  # no folder, or a changed log, before anything is written
    with _alone(registry.root), client_of(uri) as client:
        return _told(registry, client, uri, name, note)


def _told(registry: Registry, client: Any, uri: str, name: str, note: Callable[[str], None]) -> dict[str, str]:
    entries = registry.entries()
    state = State.of(entries)
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        client.create_registered_model(name, description="Bundles of workzone")
    found, model = versions_of(client, name), client.get_registered_model(name)
    known = [i for i, e in enumerate(entries, 1) if e.sha256 == model.tags.get(_HEAD)]
    if not known and (_HEAD in model.tags or any(found[v].tags.get(_SHA) != state.versions.get(v) for v in found)):
        fix = "take another name for the registered model"
        raise ConfigError(f"the registered model {name!r} belongs to another registry", where=uri, fix=fix)
    before = _aliases(model, found)
    # Whoever told it last may have been killed half-way: what was to be told then is no change by others.
    begun = [i for i, e in enumerate(entries, 1) if e.sha256 == model.tags.get(_BEGUN)]
    ours = [State.of(entries[:i]).aliases for i in (*known, *begun)]
    for alias in ALIASES if known else ():
        if before.get(alias) not in {aliases.get(alias) for aliases in ours}:
            was = before.get(alias) or "nobody"
            note(f"MLflow called {was} {alias}, which no gate has seen; the log says {state.aliases.get(alias)}")
    for version, sha in state.versions.items():
        if version in found:
            continue
        about = state.added[version].values
        tags = {
            _TAG: version,
            _SHA: sha,
            "workzone.bundle_name": str(about["name"]),
            "workzone.engine": str(about["engine"]),
            "workzone.certified": str(about["certified"]).lower(),
        }
        source = registry.folder(version).resolve().as_uri()
        found[version] = client.create_model_version(name, source, tags=tags, description=str(about["note"]))
    client.set_registered_model_tag(name, _BEGUN, head_of(entries))
    for alias in ALIASES:
        wanted = state.aliases.get(alias)
        if wanted is not None and before.get(alias) != wanted:
            client.set_registered_model_alias(name, alias, found[wanted].version)
        elif wanted is None and alias in model.aliases:
            client.delete_registered_model_alias(name, alias)
    client.set_registered_model_tag(name, ROOT_TAG, registry.root.resolve().as_uri())
    client.set_registered_model_tag(name, _HEAD, head_of(entries))
    return {version: str(found[version].version) for version in state.versions}


def differences(registry: Registry, uri: str, name: str = "workzone") -> list[str]:
    """Where MLflow says something else than the log, in sentences; raises as ``mirror``."""
    state = registry.state()
    with client_of(uri) as client:
        if not client.search_registered_models(filter_string=f"name = '{require_name(name)}'"):
            return [f"there is no registered model {name!r}"]
        found = versions_of(client, name)
        aliases = _aliases(client.get_registered_model(name), found)
    wrong = [f"version {v} is missing there" for v in state.versions if v not in found]
    wrong += [
        f"version {v} is another bundle there"
        for v, sha in state.versions.items()
        if v in found and found[v].tags.get(_SHA) != sha
    ]
    return wrong + [
        f"{alias} is {aliases.get(alias) or 'nobody'} there, {state.aliases.get(alias) or 'nobody'} in the log"
        for alias in ALIASES
        if aliases.get(alias) != state.aliases.get(alias)
    ]


def require_name(name: str) -> str:
    """``name``; raises ConfigError where it can be no registered model."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name[:60]!r} is no name for a registered model", fix="use letters, digits, . _ -")
    return name


def versions_of(client: Any, name: str) -> dict[str, Any]:
    """Model versions by our version."""
    found: dict[str, Any] = {}
    page = None
    while True:
        part = client.search_model_versions(f"name = '{name}'", page_token=page)
        found.update({v.tags[_TAG]: v for v in part if _TAG in v.tags})
        page = part.token
        if not page:
            return found


def _aliases(model: Any, found: dict[str, Any]) -> dict[str, str]:
    """Our version by alias, as MLflow says it; its own number where the version is none of ours."""
    ours = {str(v.version): version for version, v in found.items()}
    return {alias: ours.get(str(number), f"model version {number}") for alias, number in model.aliases.items()}
