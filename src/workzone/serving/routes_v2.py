"""``/v2``: the Open Inference Protocol, for clients of KServe and Triton.

Source: Open Inference Protocol, version 2, and Triton's binary tensor data extension.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from workzone.serving.body import Picture, deadline_seconds, parsed_json
from workzone.serving.model import Answer
from workzone.serving.openapi import ERRORS, INFER_BODY
from workzone.serving.problems import Problem
from workzone.serving.routes_v1 import certificate_headers, service_of

router = APIRouter(prefix="/v2")
_HEADER = "inference-header-content-length"
INPUT = "image"
OUTPUTS = {"decision": "BYTES", "probability": "FP64", "prediction_set": "BYTES", "reason": "BYTES", "log_odds": "FP64"}


def problem_response(problem: Problem) -> Response:
    """The protocol's own form of an error: one sentence."""
    parts = [problem.what, problem.where and f"Where: {problem.where}", problem.fix and f"What to do: {problem.fix}"]
    text = ". ".join(p for p in parts if p)
    return JSONResponse({"error": text, "code": problem.code}, problem.status, headers=problem.headers)


@router.get("", summary="The server")
async def server() -> Response:
    """Name, version and extensions."""
    return JSONResponse({"name": "workzone", "version": version("workzone"), "extensions": ["binary_tensor_data"]})


@router.get("/health/live", summary="Whether the process lives")
async def live() -> Response:
    """As /healthz."""
    return JSONResponse({"live": True})


@router.get("/health/ready", summary="Whether requests should come here")
async def ready(request: Request) -> Response:
    """As /readyz."""
    reasons = await service_of(request).not_ready()
    return JSONResponse({"ready": not reasons}, 503 if reasons else 200)


def _require_model(request: Request, name: str, wanted: str | None) -> None:
    model = service_of(request).model
    if name != model.name:
        raise Problem(404, "no_model", f"There is no model {name[:80]!r}", fix=f"this server has {model.name!r}")
    if wanted is not None and wanted != model.sha256[:12]:
        raise Problem(404, "no_version", f"There is no version {wanted[:80]!r}", fix=f"take {model.sha256[:12]!r}")


@router.get("/models/{name}", summary="A model", responses=ERRORS)
@router.get("/models/{name}/versions/{wanted}", summary="A version of a model", responses=ERRORS)
async def model_metadata(request: Request, name: str, wanted: str | None = None) -> Response:
    """Inputs and outputs; the version is the beginning of the SHA-256 of the bundle."""
    _require_model(request, name, wanted)
    model = service_of(request).model
    return JSONResponse(
        {
            "name": model.name,
            "versions": [model.sha256[:12]],
            "platform": f"workzone_{model.detector.engine.name}",
            "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": n, "datatype": kind, "shape": [-1]} for n, kind in OUTPUTS.items()],
            "parameters": {"bundle_sha256": model.sha256, "certificate": model.certificate()},
        },
        headers=certificate_headers(service_of(request)),
    )


@router.get("/models/{name}/ready", summary="Whether a model is ready", responses=ERRORS)
@router.get("/models/{name}/versions/{wanted}/ready", summary="Whether a version is ready", responses=ERRORS)
async def model_ready(request: Request, name: str, wanted: str | None = None) -> Response:
    """As /readyz."""
    _require_model(request, name, wanted)
    reasons = await service_of(request).not_ready()
    return JSONResponse({"name": name, "ready": not reasons}, 503 if reasons else 200)


@router.post(
    "/models/{name}/infer", summary="Decide on pictures", responses=ERRORS, openapi_extra={"requestBody": INFER_BODY}
)
@router.post(
    "/models/{name}/versions/{wanted}/infer",
    summary="Decide on pictures",
    responses=ERRORS,
    openapi_extra={"requestBody": INFER_BODY},
)
async def infer(request: Request, name: str, wanted: str | None = None) -> Response:
    """Input ``image``, BYTES, one picture an element: base64 in JSON, or the bytes themselves as binary data.

    A picture that cannot be used refuses the whole request, because the protocol has no place for errors of elements.
    """
    began, service = time.monotonic(), service_of(request)
    _require_model(request, name, wanted)
    deadline = began + deadline_seconds(request.headers, service.settings.deadline_ms)
    body = await service.body_of(request)
    try:
        header, binary = _split(body, request.headers.get(_HEADER))
        pictures = _pictures(header, binary, service.settings.max_images)
        columns = _columns(header)
        wanted_outputs = _wanted(header)
        results = await service.predict(request, pictures, columns, deadline)
    finally:
        service.memory.give(len(body))
    answers = []
    for result in results:
        if isinstance(result, Problem):
            raise result
        answers.append(result)
    model = service.model
    told = {
        "model_name": model.name,
        "model_version": model.sha256[:12],
        "id": str(header.get("id", request.scope["workzone"].request_id)),
        "parameters": {"certificate": model.state(), "certificate_sentence": model.certificate()["sentence"]},
    }
    return _answered(told, answers, wanted_outputs, certificate_headers(service))


def _bad(what: str, where: str) -> Problem:
    return Problem(400, "bad_tensor", what, where=where, fix="see /docs and the Open Inference Protocol v2")


def _split(body: bytes, length: str | None) -> tuple[dict[str, Any], bytes]:
    if length is None:
        return parsed_json(body), b""
    if not length.isascii() or not length.isdigit() or int(length[:12]) > len(body):
        raise _bad("The length of the JSON header is wrong", f"header {_HEADER}")
    return parsed_json(body[: int(length)]), body[int(length) :]


def _pictures(header: dict[str, Any], binary: bytes, most: int) -> list[Picture]:
    inputs = header.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _bad("There must be exactly one input", "inputs")
    tensor = inputs[0]
    if tensor.get("name") != INPUT or tensor.get("datatype") != "BYTES":
        raise _bad(f"The input must be {INPUT!r} of datatype BYTES", "inputs[0]")
    shape, parameters = tensor.get("shape"), tensor.get("parameters") or {}
    if not isinstance(shape, list) or not shape or not all(type(s) is int and 0 < s <= 1 << 20 for s in shape):
        raise _bad("The shape must be a list of positive numbers", "inputs[0].shape")
    count = math.prod(shape)
    if count > most:
        raise Problem(413, "too_many_images", f"More than {most} pictures in one request", fix="send several requests")
    if not isinstance(parameters, dict):
        raise _bad("The parameters must be an object", "inputs[0].parameters")
    size = parameters.get("binary_data_size")
    if size is None:
        contents = _from_json(tensor.get("data"))
    elif type(size) is int and size == len(binary):
        contents = _from_binary(binary)
    else:
        raise _bad("binary_data_size is not the number of bytes that came", "inputs[0].parameters")
    if len(contents) != count:
        raise _bad(f"The shape says {count} elements, and {len(contents)} came", "inputs[0].shape")
    return [Picture(f"inputs[0][{i}]", content) for i, content in enumerate(contents)]


def _from_json(data: object) -> list[bytes]:
    flat: list[Any] = data if isinstance(data, list) else []
    while len(flat) and all(isinstance(item, list) for item in flat):
        flat = [element for item in flat for element in item]
    contents = []
    for index, text in enumerate(flat):
        try:
            contents.append(base64.b64decode(text, validate=True))
        except (TypeError, ValueError, binascii.Error) as error:
            raise _bad("A BYTES element in JSON must be base64 text", f"inputs[0].data[{index}]") from error
    return contents


def _from_binary(binary: bytes) -> list[bytes]:
    contents, at = [], 0
    while at < len(binary):
        if at + 4 > len(binary):
            raise _bad("The binary data ends within a length", "binary data")
        (size,) = struct.unpack_from("<I", binary, at)
        at += 4
        if at + size > len(binary):
            raise _bad("The binary data ends within an element", "binary data")
        contents.append(binary[at : at + size])
        at += size
    return contents


def _columns(header: dict[str, Any]) -> dict[str, str]:
    """Metadata columns, sent as parameters ``column_NAME`` of the request."""
    parameters = header.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise _bad("The parameters must be an object", "parameters")
    return {k.removeprefix("column_"): str(v) for k, v in parameters.items() if k.startswith("column_")}


def _wanted(header: dict[str, Any]) -> dict[str, bool]:
    """Names of the outputs that were asked for, and whether each goes out as binary data."""
    parameters = header.get("parameters") or {}
    binary = parameters.get("binary_data_output") is True
    outputs = header.get("outputs")
    if not outputs:
        return dict.fromkeys(OUTPUTS, binary)
    if not isinstance(outputs, list) or not all(isinstance(o, dict) and o.get("name") in OUTPUTS for o in outputs):
        raise _bad(f"The outputs are {', '.join(OUTPUTS)}", "outputs")
    return {o["name"]: (o.get("parameters") or {}).get("binary_data", binary) is True for o in outputs}


def _values(name: str, answers: Sequence[Answer]) -> list[Any]:
    if name == "decision":
        return [a.decision.label for a in answers]
    if name == "prediction_set":
        return [",".join(sorted(a.decision.prediction_set)) for a in answers]
    return [getattr(a.decision, name) for a in answers]


def _packed(kind: str, values: Sequence[Any]) -> bytes:
    if kind == "FP64":
        return struct.pack(f"<{len(values)}d", *values)
    encoded = [v.encode() for v in values]
    return b"".join(struct.pack("<I", len(e)) + e for e in encoded)


def _answered(
    told: dict[str, Any], answers: Sequence[Answer], wanted: dict[str, bool], headers: dict[str, str]
) -> Response:
    outputs, tail = [], b""
    for name, binary in wanted.items():
        tensor: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": [len(answers)]}
        values = _values(name, answers)
        if binary:
            packed = _packed(OUTPUTS[name], values)
            tensor["parameters"] = {"binary_data_size": len(packed)}
            tail += packed
        else:
            tensor["data"] = values
        outputs.append(tensor)
    text = json.dumps({**told, "outputs": outputs}).encode()
    if not tail:
        return Response(text, media_type="application/json", headers=headers)
    length = {"Inference-Header-Content-Length": str(len(text))}
    return Response(text + tail, media_type="application/octet-stream", headers={**headers, **length})
