"""Parts of the OpenAPI description that cannot be read off the routes, because bodies are read while they stream."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any

from fastapi import Path, Query

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
_HELD = {
    401: {"WWW-Authenticate": "How a key is sent: Bearer."},
    429: {"Retry-After": "Seconds after which to ask again."},
    503: {"Retry-After": "Seconds after which to ask again, where the server is stopping."},
}


def _headers(meanings: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in meanings.items()}


def _problems(schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    return {
        status: {
            "description": text,
            "headers": _headers({**_HELD.get(status, {}), "X-Request-ID": _REQUEST_ID}),
            "content": {"application/json": {"schema": schema}},
        }
        for status, text in _MEANINGS.items()
    }


_REQUEST_ID = "Name of the request in log and answer: 1 to 64 of A-Z a-z 0-9 . _ -"
ERRORS = _problems(_PROBLEM)
_V2_PROBLEM = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
}
V2_ERRORS = _problems(_V2_PROBLEM)


def refused(errors: Mapping[int | str, dict[str, Any]], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Those of ``errors`` that a route without a body gives: of keys, hosts and a stopping server, and ``statuses``."""
    return {status: errors[status] for status in sorted({401, 421, 503, *statuses})}


def answered(text: str) -> dict[int | str, dict[str, Any]]:
    """The response 200 of a route whose answer names the bundle it comes from."""
    told = {
        "X-Workzone-Certificate": "certified, not_certified or void: whether the promise of the bundle holds.",
        "X-Workzone-Bundle": "The first 12 digits of the SHA-256 of the bundle that answers.",
        "X-Workzone-Role": "champion or challenger: which of the bundles answers.",
        "X-Request-ID": _REQUEST_ID,
    }
    return {200: {"description": text, "headers": _headers(told)}}


NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "Not ready; the body says why"}}


def _bytes(meaning: str) -> dict[str, Any]:
    return {"schema": {"type": "string", "format": "binary", "description": meaning}}


_BASE64 = {"type": "string", "contentEncoding": "base64", "description": "The bytes of a picture in base64."}
_JSON = {
    "schema": {
        "type": "object",
        "description": 'One picture or several in base64: ``{"image": "BASE64"}`` or ``{"images": ["BASE64", ...]}``.',
        "properties": {
            "image": _BASE64,
            "images": {"type": "array", "items": _BASE64, "description": "Several pictures, in place of image."},
            "columns": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Metadata columns that the calibrator needs, and their values.",
            },
        },
    }
}
_FORM = {
    "schema": {
        "type": "object",
        "description": "A form with one file or several; fields ``slice`` are read as the parameter of this name.",
        "properties": {
            "file": {
                "type": "array",
                "items": {"type": "string", "format": "binary"},
                "description": "Pictures; the name of the field does not matter.",
            }
        },
    }
}
PREDICT_BODY: dict[str, Any] = {
    "required": True,
    "description": "One picture or several. The header Content-Type says which of these kinds the body is.",
    "content": {
        "image/*": _bytes("The bytes of one picture, such as ``image/jpeg``."),
        "application/octet-stream": _bytes("The bytes of one picture of any kind that is read."),
        "multipart/form-data": _FORM,
        "application/json": _JSON,
    },
}


def _header(name: str, kind: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": kind}}


_REQUEST = [
    _header("X-Deadline-Ms", "integer", "Milliseconds after which the answer is of no use."),
    _header("X-Request-ID", "string", _REQUEST_ID),
    _header("X-Sequence-ID", "string", "In a roll-out, requests of one id go to one bundle: as X-Request-ID."),
]
PREDICT_PARAMETERS: list[dict[str, Any]] = [
    *_REQUEST,
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
]
INFER_BODY: dict[str, Any] = {
    "required": True,
    "description": "Open Inference Protocol v2: one input ``image`` of datatype BYTES, one picture an element.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "description": "A request of the protocol, whose elements are base64 text.",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string", "description": "Comes back in the answer."},
                    "inputs": {"type": "array", "description": "One input: name, datatype, shape and data."},
                    "outputs": {"type": "array", "description": "Outputs that are wanted; all where left out."},
                    "parameters": {
                        "type": "object",
                        "description": "``column_NAME``: a metadata column; ``sequence_id``: as X-Sequence-ID; "
                        "``binary_data_output``: outputs as binary data.",
                    },
                },
            }
        },
        "application/octet-stream": _bytes(
            "The JSON of the request, then binary data: of each picture four bytes with its length, then its bytes."
        ),
    },
}
INFER_PARAMETERS: list[dict[str, Any]] = [
    *_REQUEST[:2],
    _header(
        "Inference-Header-Content-Length", "integer", "Bytes of the JSON at the beginning of a body with binary data."
    ),
]
_REVIEWER = "Name of the person who reviews: 1 to 64 letters, digits, spaces or . @ _ -"
_PICTURE = "SHA-256 of the picture, as GET /v1/review lists it."
_VERSION = "The first 12 digits of the SHA-256 of the bundle"
Reviewer = Annotated[str, Query(description=_REVIEWER)]
PictureHash = Annotated[str, Path(description=_PICTURE)]
ModelName = Annotated[str, Path(description="Name of the bundle, as GET /v1/model says it.")]
Version = Annotated[str, Path(description=f"{_VERSION}.")]
AnyVersion = Annotated[str | None, Query(description=f"{_VERSION}; any version where left out.")]
REVIEW_BODY: dict[str, Any] = {
    "required": True,
    "description": "One label, as JSON only: a form could be sent by another site without asking.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "description": 'Such as ``{"sha256": "...", "reviewer": "Ada", "label": "roadwork"}``.',
                "required": ["sha256", "reviewer", "label"],
                "properties": {
                    "sha256": {"type": "string", "description": _PICTURE},
                    "reviewer": {"type": "string", "description": _REVIEWER},
                    "label": {
                        "enum": ["roadwork", "none", "skip", "undo"],
                        "description": "What the picture shows; skip: cannot be told; undo: takes the last label back.",
                    },
                },
            }
        }
    },
}
_SCHEMES: dict[str, dict[str, str]] = {
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "Where the server has a file of keys: a key of it in the header ``X-API-Key``.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "Or the same key in the header ``Authorization: Bearer KEY``.",
    },
}


def with_keys(description: dict[str, Any], *, asked: bool, free: Collection[str]) -> dict[str, Any]:
    """``description`` with the ways to send an API key, which the gate asks for before any route.

    Args:
        description: of the routes; it is changed.
        asked: whether the server has keys; without them a key may be sent, and is not looked at.
        free: paths that never ask.
    """
    description.setdefault("components", {})["securitySchemes"] = _SCHEMES
    one_of: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
    description["security"] = one_of if asked else [{}, *one_of]
    for path, methods in description["paths"].items():
        for operation in methods.values():
            if path in free:
                operation["security"] = []
    return description
