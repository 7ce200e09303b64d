"""Where a registry lies: a folder, or an address of MLflow's model registry that knows the folder.

MLflow takes 240 MB and seconds of a processor to load, so what runs for long (the server) asks it in a process of its
own: ``python -m workzone.registry.address find|tell|compare WORD``. So do the commands: a database that takes a
connection and never answers would hold them for ever.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from workzone.errors import CheckFailedError, ConfigError, WorkzoneError
from workzone.files import write_json
from workzone.registry.gates import Gate
from workzone.registry.store import Registry

RECORD = "mlflow.json"
"""File of a registry that says where MLflow holds it, where that is not ``mlflow.db`` beside it."""
OFF = "off"
_STORES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")
_MAX_RECORD = 4096
_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Link:
    """MLflow's place of a registry: ``uri`` of the store and ``name`` of the registered model; off without a uri."""

    uri: str
    name: str = "workzone"

    @classmethod
    def parse(cls, word: str) -> Link:
        """``URI`` or ``URI#NAME``, or ``off``.

        Raises:
            ConfigError: it is no address of a store, or holds a password, which would be written down.
        """
        if word == OFF:
            return cls("")
        uri, _, name = word.partition("#")  # urldefrag would drop slashes of sqlite:////FILE
        _refuse_password(uri)  # first: every other message repeats the address
        parts = urlsplit(uri)
        if parts.scheme.partition("+")[0] not in _STORES:
            fix = "write sqlite:///FILE, postgresql://HOST/DATABASE, http://HOST:PORT, or off"
            raise ConfigError(f"{word[:80]!r} is no address of MLflow", where="--mlflow", fix=fix)
        if parts.scheme.startswith("sqlite") and (path := _file(uri)) is not None:
            uri = f"sqlite:///{path.absolute()}"
        from workzone.registry.mlflow_mirror import require_name

        return cls(uri, require_name(name or "workzone"))

    @classmethod
    def of(cls, registry: Registry) -> Link | None:
        """What was said for ``registry``, else ``mlflow.db`` in its folder; None where off or MLflow is not installed.

        Raises:
            ConfigError: the record cannot be read.
        """
        path = registry.root / RECORD
        if not path.is_file():
            there = find_spec("mlflow") is not None and find_spec("sqlalchemy") is not None
            return cls(f"sqlite:///{registry.root.absolute() / 'mlflow.db'}") if there else None
        try:
            with path.open("rb") as stream:
                raw = json.loads(stream.read(_MAX_RECORD))
            link = cls(str(raw["uri"]), str(raw["name"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"the record of MLflow cannot be read: {error}", where=str(path)) from error
        return link if link.uri else None

    def keep(self, registry: Registry) -> None:
        """Remember it for ``registry``."""
        registry.root.mkdir(parents=True, exist_ok=True)
        write_json(registry.root / RECORD, {"uri": self.uri, "name": self.name})


def _refuse_password(uri: str) -> None:
    parts = urlsplit(uri)
    if parts.password or any("password" in key.lower() for key, _ in parse_qsl(parts.query, keep_blank_values=True)):
        fix = "leave it out; PostgreSQL reads PGPASSWORD or ~/.pgpass, a server of MLflow MLFLOW_TRACKING_PASSWORD"
        raise ConfigError("a password must not stand in the address, which is written down", fix=fix)


def _file(uri: str) -> Path | None:
    """File of an SQLite store."""
    prefix = "sqlite:///"
    return Path(unquote(uri[len(prefix) :])) if uri.startswith(prefix) and len(uri) > len(prefix) else None


def registry_of(place: str, *, apart: bool = False) -> Registry:
    """The registry at a path, a ``file://`` URL, or an address of MLflow (``URI`` or ``URI#NAME``).

    Args:
        place: see above.
        apart: ask MLflow in another process, so that this one stays small.

    Raises:
        ConfigError: another kind of address, or MLflow knows no registry there.
        CheckFailedError: MLflow says something else than the log of the registry.
    """
    parts = urlsplit(place)
    if not parts.scheme:
        return Registry(Path(place))
    if parts.scheme == "file":
        return Registry(Path(unquote(parts.path)))
    _refuse_password(place)
    if parts.scheme.partition("+")[0] not in _STORES:
        fix = "give the folder of 'workzone registry', or where MLflow holds it: sqlite:///FILE, postgresql://HOST/DB"
        raise ConfigError(f"a registry is a folder or an address of MLflow, not {place[:80]!r}", fix=fix)
    link = Link.parse(place)
    return Registry(Path(_elsewhere("find", place)[0])) if apart else _found(link)


def _found(link: Link) -> Registry:
    from workzone.registry.mlflow_mirror import ROOT_TAG, client_of, differences

    fix = "make it with: workzone registry add BUNDLE --root FOLDER --mlflow ADDRESS"
    file = _file(link.uri)
    if file is not None and not file.is_file():  # which MLflow would make
        raise ConfigError("there is no such database", where=link.uri, fix=fix)
    with client_of(link.uri) as client:
        models = client.search_registered_models(filter_string=f"name = '{link.name}'")
    root = models[0].tags.get(ROOT_TAG) if models else None
    if root is None:
        raise ConfigError(f"MLflow holds no registry of workzone called {link.name!r}", where=link.uri, fix=fix)
    registry = Registry(Path(unquote(urlsplit(root).path)))
    if not registry.root.is_dir():
        raise ConfigError(f"the folder of the registry, {registry.root}, is not on this machine", where=link.uri)
    if wrong := differences(registry, link.uri, link.name):
        fix = f"look who changed it, then: workzone registry mlflow --root {registry.root}"
        raise CheckFailedError(f"MLflow does not say what the log says: {wrong[0]}", where=link.uri, fix=fix)
    return registry


def tell_mlflow(registry: Registry, note: Callable[[str], None], *, apart: bool = False) -> dict[str, str]:
    """Bring MLflow up to the log of ``registry``; what fails is told, since the log has the last word anyway.

    Returns the MLflow version by ours, empty where it is off, not installed, could not be told, or was told ``apart``.
    """
    try:
        link = Link.of(registry)
        if link is None:
            return {}
        if apart:
            for line in _elsewhere("tell", str(registry.root)):
                note(line)
            return {}
        from workzone.registry.mlflow_mirror import mirror

        return mirror(registry, link.uri, link.name, note=note)
    except WorkzoneError as error:
        again = f"workzone registry mlflow --root {registry.root}"
        note(f"MLflow was not told, the registry itself has changed: {error} Repeat it with: {again}")
        return {}


def mlflow_gate(registry: Registry) -> Gate:
    """Whether MLflow says what the log says; not judged where it is off, not installed, or was told nothing yet."""
    try:
        link = Link.of(registry)
        if link is None:
            return Gate("mlflow", None, "off, or not installed")
        file = _file(link.uri)
        if file is not None and not file.is_file():
            return Gate("mlflow", None, f"nothing was told to {link.uri} yet")
        wrong = _elsewhere("compare", str(registry.root))
    except WorkzoneError as error:
        return Gate("mlflow", False, str(error))
    return Gate("mlflow", not wrong, "; ".join(wrong) or f"{link.uri} says what the log says")


def _elsewhere(verb: str, word: str) -> list[str]:
    """What another process says about it, line by line; a database that never answers costs that process alone."""
    words = [sys.executable, "-m", "workzone.registry.address", verb, word]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"MLflow did not answer within {_SECONDS:.0f} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing was said"]
        raise (CheckFailedError if done.returncode == CheckFailedError.exit_code else ConfigError)(said[-1][:1000])
    return done.stdout.splitlines()


def _main(verb: str, word: str) -> int:
    said: list[str] = []
    try:
        with redirect_stdout(sys.stderr):  # what libraries print is none of our lines
            if verb == "find":
                said.append(str(_found(Link.parse(word)).root))
            elif verb == "tell":
                tell_mlflow(Registry(Path(word)), said.append)
            elif (link := Link.of(Registry(Path(word)))) is not None:
                from workzone.registry.mlflow_mirror import differences

                said += differences(Registry(Path(word)), link.uri, link.name)
    except WorkzoneError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    for text in said:
        print(text if verb == "find" else " ".join(text.split()))
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:3]))
