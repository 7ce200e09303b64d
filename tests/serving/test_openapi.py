"""The OpenAPI description: valid, nothing in it without a meaning, and the page shows it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

from workzone.serving import docs
from workzone.serving.app import create_app
from workzone.serving.settings import ServeSettings


def described(**settings: Any) -> dict[str, Any]:
    return create_app(ServeSettings(bundle=Path("none"), **settings)).openapi()


def operations(description: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def properties(schema: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        for name, held in schema.get("properties", {}).items():
            yield f"{where}.{name}", held
            yield from properties(held, f"{where}.{name}")


def test_everything_has_a_meaning() -> None:
    described_parts: dict[str, str] = {}
    for name, operation in operations(described()):
        described_parts[name] = operation.get("description", "")
        for parameter in operation.get("parameters", []):
            described_parts[f"{name}, {parameter['in']} {parameter['name']}"] = parameter.get("description", "")
        for status, response in operation["responses"].items():
            described_parts[f"{name}, {status}"] = response.get("description", "")
            for header, held in response.get("headers", {}).items():
                described_parts[f"{name}, {status} {header}"] = held.get("description", "")
        if body := operation.get("requestBody"):
            described_parts[f"{name}, body"] = body.get("description", "")
            for kind, content in body["content"].items():
                described_parts[f"{name}, {kind}"] = content["schema"].get("description", "")
                for where, held in properties(content["schema"], f"{name}, {kind}"):
                    described_parts[where] = held.get("description", "")
    # FastAPI writes this where nobody has said what the answer is.
    without = [where for where, text in described_parts.items() if text in ("", "Successful Response")]
    assert not without
    assert len(described_parts) > 100


def test_what_the_routes_read_is_described() -> None:
    found = {name: {p["name"] for p in o.get("parameters", [])} for name, o in operations(described())}
    request = {"X-Deadline-Ms", "X-Request-ID"}
    assert found["post /v1/predict"] == {*request, "X-Sequence-ID", "views", "slice"}
    assert found["post /v2/models/{name}/infer"] == {*request, "Inference-Header-Content-Length", "name", "wanted"}
    version = next(
        p
        for name, o in operations(described())
        for p in o.get("parameters", [])
        if name == "get /v2/models/{name}/versions/{wanted}" and p["name"] == "wanted"
    )
    assert version["required"]
    assert version["schema"]["type"] == "string", "a part of a path is never null"


def test_the_ways_to_send_a_key(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("me 0123456789abcdef\n")
    without, asked = described(), described(api_key_file=keys)
    schemes = asked["components"]["securitySchemes"]
    assert {s.get("name") or s["scheme"] for s in schemes.values()} == {"X-API-Key", "bearer"}
    assert all(s["description"] for s in schemes.values())
    assert {} in without["security"]
    assert {} not in asked["security"]
    assert asked["paths"]["/healthz"]["get"]["security"] == []
    assert "security" not in asked["paths"]["/v1/predict"]["post"]


def test_the_description_is_valid() -> None:
    definitions = pytest.importorskip("schemathesis.specs.openapi.definitions", reason="schemathesis is not installed")
    description = described()
    assert description["openapi"].startswith("3.1")
    errors = [f"{'/'.join(map(str, e.instance_path))}: {e.message:.200}"
              for e in definitions.OPENAPI_31_VALIDATOR.iter_errors(description)]  # fmt: skip
    assert not errors
    names = [o["operationId"] for _, o in operations(description)]
    assert len(names) == len(set(names))
    for path, methods in description["paths"].items():
        for operation in methods.values():
            of_path = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert of_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_the_page_shows_the_description() -> None:
    description = described()
    page = docs.page(description)
    for name, operation in operations(description):
        assert f"{name.partition(' ')[0].upper()} {name.partition(' ')[2]}" in page
        for parameter in operation.get("parameters", []):
            shown = page.replace("<code>", "").replace("</code>", "")
            assert escape(parameter["description"]).replace("``", "") in shown
    assert "X-API-Key" in page
    assert "``" not in page
    assert "<td></td>" not in page


def test_the_page_takes_every_meaning_from_the_description() -> None:
    description = described()
    description["paths"]["/v1/review"]["get"]["parameters"][0]["description"] = "Changed & new"
    assert "<td>Changed &amp; new</td>" in docs.page(description)
