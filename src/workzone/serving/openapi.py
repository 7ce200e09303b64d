"""Parts of the OpenAPI description that cannot be read off the routes, because bodies are read while they stream."""

from __future__ import annotations

import re
from html import escape
from typing import Any

_PROBLEM = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "what"],
            "properties": {
                "code": {"type": "string"},
                "what": {"type": "string"},
                "where": {"type": ["string", "null"]},
                "fix": {"type": ["string", "null"]},
            },
        }
    },
}
_MEANINGS = {
    400: "The request is malformed",
    401: "An API key is missing or unknown",
    404: "There is nothing of this name",
    408: "The request took too long to arrive",
    413: "Too many bytes, pixels or pictures",
    415: "The body or the picture is of a kind that is not read",
    421: "A server without keys was asked under a name that is not local",
    422: "The request is well-formed, but cannot be answered",
    429: "The queue is full; see Retry-After",
    503: "The server is stopping, or its certificate is void",
    504: "The time of the request is up",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": _PROBLEM}}}
    for status, text in _MEANINGS.items()
}
_V2_PROBLEM = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
}
V2_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": _V2_PROBLEM}}}
    for status, text in _MEANINGS.items()
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_JSON = {
    "schema": {
        "type": "object",
        "properties": {
            "image": _BASE64,
            "images": {"type": "array", "items": _BASE64},
            "columns": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    }
}
_FORM = {
    "schema": {
        "type": "object",
        "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    }
}
PREDICT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
        "multipart/form-data": _FORM,
        "application/json": _JSON,
    },
}
PREDICT_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "views",
        "in": "query",
        "description": "1 adds the box, log-odds and weight of each view.",
        "schema": {"type": "integer"},
    },
    {
        "name": "slice",
        "in": "query",
        "description": "COLUMN=VALUE that the calibrator needs; may be repeated.",
        "schema": {"type": "array", "items": {"type": "string"}},
    },
    {
        "name": "X-Deadline-Ms",
        "in": "header",
        "description": "Milliseconds after which the answer is of no use.",
        "schema": {"type": "integer"},
    },
    {
        "name": "X-Request-ID",
        "in": "header",
        "description": "Name of the request in log and answer: 1 to 64 of A-Z a-z 0-9 . _ -",
        "schema": {"type": "string"},
    },
]
INFER_BODY: dict[str, Any] = {
    "required": True,
    "description": "Open Inference Protocol v2: one input 'image' of datatype BYTES.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {"id": {"type": "string"}, "inputs": {"type": "array"}, "outputs": {"type": "array"}},
            }
        },
        "application/octet-stream": _BINARY,
    },
}
REVIEW_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["sha256", "reviewer", "label"],
                "properties": {
                    "sha256": {"type": "string"},
                    "reviewer": {"type": "string"},
                    "label": {"enum": ["roadwork", "none", "skip", "undo"]},
                },
            }
        }
    },
}


def page(description: dict[str, Any]) -> str:
    """The description as one HTML page without scripts, so that it works without a network."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>workzone: API</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="static/icon.svg" type="image/svg+xml">',
        '<link rel="stylesheet" href="static/page.css"></head><body><main class="docs"><h1>API</h1>',
        f"<p>{escape(str(description['info'].get('description', '')))} ",
        'For programs: <a href="openapi.json">openapi.json</a>. <a href="./">Back to the page</a>.</p>',
        '<p>JSON for /v1/predict: <code>{"image": "BASE64"}</code> or <code>{"images": ["BASE64", ...]}</code>.',
        " Errors: "
        '<code>{"error": {"code", "what", "where", "fix"}}</code>; under /v2 <code>{"error": "..."}</code>.</p>',
    ]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts += _operation(path, method, operation)
    parts.append("</main></body></html>")
    return "".join(parts)


_PARAMETERS = {
    "name": "Name of the bundle, as GET /v1/model says it.",
    "wanted": "Version: the first 12 digits of the SHA-256 of the bundle; any version where left out.",
    "reviewer": "Name of the person who reviews: 1 to 64 letters, digits, spaces or . @ _ -",
    "sha256": "SHA-256 of the picture, as GET /v1/review lists it.",
}
"""Of parameters that are declared by their type alone."""


def _operation(path: str, method: str, operation: dict[str, Any]) -> list[str]:
    parts = [
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>",
        f"<p><strong>{escape(operation.get('summary', ''))}.</strong>",
        f" {_prose(operation.get('description', ''))}</p>",
    ]
    bodies = operation.get("requestBody", {}).get("content", {})
    if bodies:
        parts.append(f"<p>Body: {', '.join(f'<code>{escape(kind)}</code>' for kind in bodies)}</p>")
    parameters = operation.get("parameters", [])
    if parameters:
        rows = "".join(
            f"<tr><td><code>{escape(p['name'])}</code></td><td>{escape(p['in'])}</td>"
            f"<td>{escape(p.get('description') or _PARAMETERS.get(p['name'], ''))}</td></tr>"
            for p in parameters
        )
        parts.append(
            f"<table><thead><tr><th>Name</th><th>In</th><th>Meaning</th></tr></thead><tbody>{rows}</tbody></table>"
        )
    codes = [f"<li><code>{c}</code> {escape(r['description'])}</li>" for c, r in operation.get("responses", {}).items()]
    return [*parts, f"<details><summary>Status codes</summary><ul>{''.join(codes)}</ul></details></section>"]


def _prose(text: str) -> str:
    return re.sub("``(.+?)``", r"<code>\1</code>", escape(text))
