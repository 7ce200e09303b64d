"""The page ``/docs``: the OpenAPI description, read by people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any


def page(description: dict[str, Any]) -> str:
    """The description as one HTML page without scripts, so that it works without a network."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>workzone: API</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="static/icon.svg" type="image/svg+xml">',
        '<link rel="stylesheet" href="static/page.css"></head><body><main class="docs"><h1>API</h1>',
        f"<p>{escape(str(description['info'].get('description', '')))} ",
        'For programs: <a href="openapi.json">openapi.json</a>. <a href="./">Back to the page</a>.</p>',
        "<p>Errors: "
        '<code>{"error": {"code", "what", "where", "fix"}}</code>; under /v2 <code>{"error": "..."}</code>.</p>',
    ]
    schemes = description.get("components", {}).get("securitySchemes", {}).values()
    parts += [f"<p>{_prose(scheme['description'])}</p>" for scheme in schemes]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts += _operation(path, method, operation)
    parts.append("</main></body></html>")
    return "".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any]) -> list[str]:
    parts = [
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>",
        f"<p><strong>{escape(operation.get('summary', ''))}.</strong>",
        f" {_prose(operation.get('description', ''))}</p>",
    ]
    if body := operation.get("requestBody"):
        kinds = [(f"<code>{escape(k)}</code>", _prose(v["schema"]["description"])) for k, v in body["content"].items()]
        parts += [f"<p>{_prose(body['description'])}</p>", _table(("Content-Type", "Body"), kinds)]
    if parameters := operation.get("parameters"):
        named = [(f"<code>{escape(p['name'])}</code>", p["in"], _prose(p["description"])) for p in parameters]
        parts.append(_table(("Name", "In", "Meaning"), named))
    codes = [f"<li><code>{c}</code> {escape(r['description'])}</li>" for c, r in operation.get("responses", {}).items()]
    return [*parts, f"<details><summary>Status codes</summary><ul>{''.join(codes)}</ul></details></section>"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose cells are HTML already."""
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _prose(text: str) -> str:
    return re.sub("``(.+?)``", r"<code>\1</code>", escape(text))
