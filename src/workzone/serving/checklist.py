"""The checklist before production: each row is computed, and what cannot be proved has failed."""

from __future__ import annotations

import json
import stat
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from workzone.bundle.chain import read_bundle
from workzone.bundle.verify import verify_bundle
from workzone.errors import ConfigError, WorkzoneError
from workzone.registry.address import registry_of
from workzone.registry.gates import Gate, certificate_gate, certificate_of, not_void, parity_gate, promises_gate

MAX_ANSWER = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Given:
    """What the checklist may look at.

    Attributes:
        bundle: folder.
        limits: largest promised limit by risk.
        keys: file of API keys.
        key: one of them, to ask the server with.
        reference: of the monitor.
        registry: folder, or address of MLflow, whose champion the bundle should be.
        url: of the running server.
        seconds: longest time of a question to it.
        load: report of a load test.
    """

    bundle: Path
    limits: Mapping[str, float] = field(default_factory=dict)
    keys: Path | None = None
    key: str | None = None
    reference: Path | None = None
    registry: Path | str | None = None
    url: str | None = None
    seconds: float = 5.0
    load: Path | None = None


def checklist(given: Given) -> list[Gate]:
    """All rows, in the order in which one would mend them."""
    rows = [_row(name, partial(check, given)) for name, check in ROWS.items()]
    if given.url is None:
        return [*rows, Gate("server", False, "not given: --url")]
    return [*rows, *(_row(name, partial(check, given)) for name, check in SERVER_ROWS.items())]


def _row(name: str, work: Callable[[], tuple[bool, str]]) -> Gate:
    try:
        passed, detail = work()
    except (WorkzoneError, OSError, ValueError, KeyError, TypeError) as error:
        return Gate(name, False, f"{error}" if isinstance(error, WorkzoneError) else f"{type(error).__name__}: {error}")
    return Gate(name, passed, detail)


def _of(gate: Gate) -> tuple[bool, str]:
    return gate.passed is True, gate.detail


def _bundle(given: Given) -> tuple[bool, str]:
    checks = verify_bundle(given.bundle)
    failed = [f"{c.name}: {c.detail}" for c in checks if not c.passed]
    return not failed, "; ".join(failed) or f"{len(checks)} checks passed"


def _certificate(given: Given) -> tuple[bool, str]:
    certificate = certificate_of(given.bundle)
    return certificate.certified, " ".join(certificate.sentences()[:-1])


def _independent(given: Given) -> tuple[bool, str]:
    certificate = certificate_of(given.bundle)
    warnings = certificate.warnings
    groups, n = certificate.n_certification_groups, certificate.n_certification
    return not warnings, " ".join(warnings) or f"{n} images of {groups} groups"


def _limits(given: Given) -> tuple[bool, str]:
    if not given.limits:
        return False, "not given: --limit RISK=VALUE, what the use of the bundle allows"
    return _of(certificate_gate(given.bundle, None, given.limits))


def _keys(given: Given) -> tuple[bool, str]:
    from workzone.serving.keys import ApiKeys

    if given.keys is None:
        return False, "not given: --api-key-file"
    loaded = ApiKeys.load(given.keys)
    lines = [line for line in given.keys.read_text(encoding="utf-8").splitlines() if line.strip()]
    plain = [line for line in lines if not line.lstrip().startswith("#") and " sha256:" not in line]
    if plain:
        return False, f"{len(plain)} of {len(loaded.hashes)} keys lie there in plain text; store sha256:HEX"
    if given.keys.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        return False, "others may read or change the file; chmod 640 it"
    return True, f"{len(loaded.hashes)} keys, hashed, not open to others"


def _reference(given: Given) -> tuple[bool, str]:
    from workzone.monitoring.reference import load_reference

    if given.reference is None:
        return False, "not given: --reference (workzone monitor freeze)"
    found = load_reference(given.reference, read_bundle(given.bundle).sha256)
    return True, f"{len(found.log)} predictions, frozen {found.created}"


def _registry(given: Given) -> tuple[bool, str]:
    if given.registry is None:
        return False, "not given: --registry"
    registry = registry_of(str(given.registry))
    failed = [g for g in registry.verify(bundles=False) if not g.passed]
    if failed:
        return False, f"{failed[0].name}: {failed[0].detail}"
    state, sha = registry.state(), read_bundle(given.bundle).sha256
    champion = state.aliases.get("champion")
    if champion is None or state.versions[champion] != sha:
        return False, f"the champion is {champion or 'nobody'}, which is not this bundle"
    if "previous" not in state.aliases:
        return True, f"champion {champion}; there is no previous version to go back to yet"
    return True, f"champion {champion}, previous {state.aliases['previous']}"


def _load(given: Given) -> tuple[bool, str]:
    from workzone.serving.load import load_gate

    return _of(load_gate(given.load, given.bundle))


ROWS: Mapping[str, Callable[[Given], tuple[bool, str]]] = {
    "bundle verifies": _bundle,
    "certificate": _certificate,
    "independent evidence": _independent,
    "not void": lambda given: _of(not_void(given.bundle)),
    "limits of the use": _limits,
    "promises on the test images": lambda given: _of(promises_gate(given.bundle)),
    "parity": lambda given: _of(parity_gate(given.bundle)),
    "API keys": _keys,
    "monitoring reference": _reference,
    "registry": _registry,
    "load test": _load,
}


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nobody: the key must not go elsewhere."""

    def redirect_request(self, *args: object) -> None:
        return None


def _ask(given: Given, path: str, *, key: bool = True, body: bytes | None = None) -> tuple[int, bytes]:
    url = given.url or ""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigError("this is no address of a server", where=f"--url {url[:80]}", fix="write http://HOST:PORT")
    headers = {"Authorization": f"Bearer {given.key}"} if key and given.key else {}
    request = urllib.request.Request(url.rstrip("/") + path, data=body, headers=headers)
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=given.seconds) as answer:
            return answer.status, answer.read(MAX_ANSWER)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(MAX_ANSWER)


def _live(given: Given) -> tuple[bool, str]:
    code, _ = _ask(given, "/healthz")
    return code == 200, f"/healthz answers {code}"


def _ready(given: Given) -> tuple[bool, str]:
    code, text = _ask(given, "/readyz")
    if code != 200:
        return False, f"/readyz answers {code}: {text[:300].decode(errors='replace')}"
    state = json.loads(text)["certificate"]
    return state == "certified", f"/readyz answers 200, certificate {state}"


def _same_bundle(given: Given) -> tuple[bool, str]:
    code, text = _ask(given, "/v1/model")
    if code != 200:
        return False, f"/v1/model answers {code}"
    served, wanted = json.loads(text)["bundle"]["sha256"], read_bundle(given.bundle).sha256
    return served == wanted, "this very bundle" if served == wanted else f"it serves {served[:12]}, not {wanted[:12]}"


def _closed(given: Given) -> tuple[bool, str]:
    code, _ = _ask(given, "/v1/predict", key=False, body=b"no picture")
    return code == 401, f"a request without a key is answered {code}"


def _figures(given: Given) -> tuple[bool, str]:
    code, text = _ask(given, "/metrics")
    held = b"workzone_certificate{" in text
    return code == 200 and held, f"/metrics answers {code}" + ("" if held else ", without workzone_certificate")


SERVER_ROWS: Mapping[str, Callable[[Given], tuple[bool, str]]] = {
    "server lives": _live,
    "server ready": _ready,
    "server has this bundle": _same_bundle,
    "server asks for a key": _closed,
    "server figures": _figures,
}
