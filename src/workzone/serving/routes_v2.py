"""``/v2``: the Open Inference Protocol, for clients of KServe and Triton.

Source: Open Inference Protocol, version 2, and Triton's binary tensor data extension.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import struct
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from workzone.bundle import Detector
from workzone.serving.body import Picture, deadline_seconds, parsed_json
from workzone.serving.model import Answer, Model
from workzone.serving.openapi import (
    INFER_BODY,
    INFER_PARAMETERS,
    NOT_READY,
    V2_ERRORS,
    AnyVersion,
    ModelName,
    Version,
    answered,
    refused,
)
from workzone.serving.problems import Problem
from workzone.serving.roles import Arm
from workzone.serving.routes_v1 import service_of

router = APIRouter(prefix="/v2")
_HEADER = "inference-header-content-length"
INPUT = "image"
_DIMENSIONS = 8
OUTPUTS = {"decision": "BYTES", "probability": "FP64", "prediction_set": "BYTES", "reason": "BYTES", "log_odds": "FP64"}
STAGED = {"stage": "INT64", "cost": "FP64"}
"""What a cascade tells besides: where an image stopped, and the share of the full cost that it took."""
_PACKED = {"FP64": "d", "INT64": "q"}
_METADATA = {**answered("Inputs, outputs and versions"), **refused(V2_ERRORS, 404)}
_READINESS = {**refused(V2_ERRORS, 404), **NOT_READY}
_INFERENCE = {**answered("Outputs, one element for each picture"), **V2_ERRORS}
_INFER_EXTRA = {"requestBody": INFER_BODY, "parameters": INFER_PARAMETERS}


def problem_response(problem: Problem) -> Response:
    """The protocol's own form of an error: one sentence."""
    parts = [problem.what, problem.where and f"Where: {problem.where}", problem.fix and f"What to do: {problem.fix}"]
    text = ". ".join(p for p in parts if p)
    return JSONResponse({"error": text, "code": problem.code}, problem.status, headers=problem.headers)


@router.get("", summary="The server", response_description="What the server is", responses=refused(V2_ERRORS))
async def server() -> Response:
    """Name, version and extensions."""
    return JSONResponse({"name": "workzone", "version": version("workzone"), "extensions": ["binary_tensor_data"]})


@router.get("/health/live", summary="Whether the process lives", response_description="The process lives")
async def live() -> Response:
    """As /healthz."""
    return JSONResponse({"live": True})


@router.get(
    "/health/ready",
    summary="Whether requests should come here",
    response_description="Ready",
    responses=NOT_READY,
)
async def ready(request: Request) -> Response:
    """As /readyz."""
    reasons = await service_of(request).not_ready()
    return JSONResponse({"ready": not reasons}, 503 if reasons else 200)


def _require_model(request: Request, name: str, wanted: str | None) -> Arm:
    """The bundle that goes by this name; without a version the champion comes first."""
    roles = service_of(request).roles
    found = roles.named(name, wanted)
    if found is not None:
        return found
    model = roles.champion
    if roles.named(name, None) is None:
        raise Problem(404, "no_model", f"There is no model {name[:80]!r}", fix=f"this server has {model.name!r}")
    raise Problem(404, "no_version", f"There is no version {wanted or ''!r:.80}", fix=f"take {model.sha256[:12]!r}")


@router.get("/models/{name}", summary="A model", responses=_METADATA)
async def model_metadata(request: Request, name: ModelName, wanted: AnyVersion = None) -> Response:
    """Inputs and outputs; the version is the beginning of the SHA-256 of the bundle."""
    return _metadata(request, name, wanted)


@router.get("/models/{name}/versions/{wanted}", summary="A version of a model", responses=_METADATA)
async def version_metadata(request: Request, name: ModelName, wanted: Version) -> Response:
    """Inputs and outputs of this version."""
    return _metadata(request, name, wanted)


def _metadata(request: Request, name: str, wanted: str | None) -> Response:
    arm, roles = _require_model(request, name, wanted), service_of(request).roles
    model = arm.model
    held = [m.sha256[:12] for m in (roles.champion, roles.challenger) if m is not None and m.name == name]
    return JSONResponse(
        {
            "name": model.name,
            "versions": list(dict.fromkeys(held)),
            "platform": f"workzone_{_platform(model)}",
            "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": n, "datatype": kind, "shape": [-1]} for n, kind in outputs_of(model).items()],
            "parameters": {"bundle_sha256": model.sha256, "certificate": model.certificate()},
        },
        headers=arm.headers(),
    )


@router.get(
    "/models/{name}/ready",
    summary="Whether a model is ready",
    response_description="Ready",
    responses=_READINESS,
)
async def model_ready(request: Request, name: ModelName, wanted: AnyVersion = None) -> Response:
    """As /readyz."""
    return await _readiness(request, name, wanted)


@router.get(
    "/models/{name}/versions/{wanted}/ready",
    summary="Whether a version is ready",
    response_description="Ready",
    responses=_READINESS,
)
async def version_ready(request: Request, name: ModelName, wanted: Version) -> Response:
    """As /readyz."""
    return await _readiness(request, name, wanted)


async def _readiness(request: Request, name: str, wanted: str | None) -> Response:
    arm = _require_model(request, name, wanted)
    reasons = await service_of(request).not_ready()
    if arm.model is not service_of(request).model:
        reasons = arm.model.void
    return JSONResponse({"name": name, "ready": not reasons}, 503 if reasons else 200)


@router.post(
    "/models/{name}/infer", summary="Decide on pictures", responses=_INFERENCE, openapi_extra=_INFER_EXTRA
)
async def infer(request: Request, name: ModelName, wanted: AnyVersion = None) -> Response:
    """Input ``image``, BYTES, one picture an element: base64 in JSON, or the bytes themselves as binary data.

    A picture that cannot be used refuses the whole request, because the protocol has no place for errors of elements.
    """
    return await _infer(request, name, wanted)


@router.post(
    "/models/{name}/versions/{wanted}/infer",
    summary="Decide on pictures by one version",
    responses=_INFERENCE,
    openapi_extra=_INFER_EXTRA,
)
async def version_infer(request: Request, name: ModelName, wanted: Version) -> Response:
    """As without a version; 404 where the server does not have it."""
    return await _infer(request, name, wanted)


async def _infer(request: Request, name: str, wanted: str | None) -> Response:
    began, service = time.monotonic(), service_of(request)
    arm = _require_model(request, name, wanted)
    deadline = began + deadline_seconds(request.headers, service.settings.deadline_ms)
    body = await service.body_of(request)
    try:
        header, binary = await asyncio.to_thread(_split, body, request.headers.get(_HEADER))
        pictures = await asyncio.to_thread(_pictures, header, binary, service.settings.max_images)
        columns = _columns(header)
        if wanted is None and name == service.model.name:
            arm = service.arm_of(request, _sequence(header))
        wanted_outputs = _wanted(header, outputs_of(arm.model))
        request.scope["workzone"].role = arm.role
        results = await service.predict(request, pictures, columns, deadline, arm)
    finally:
        service.memory.give(len(body))
    answers = []
    for result in results:
        if isinstance(result, Problem):
            raise result
        answers.append(result)
    model = arm.model
    sentence = model.certificate()["sentence"]
    told = {
        "model_name": model.name,
        "model_version": model.sha256[:12],
        "id": str(header.get("id", request.scope["workzone"].request_id)),
        "parameters": {
            "certificate": model.state(),
            "certificate_sentence": sentence,
            "role": arm.role,
            "bundle_sha256": model.sha256,
        },
    }
    return _answered(told, answers, wanted_outputs, arm.headers())


def outputs_of(model: Model) -> dict[str, str]:
    """Outputs of a bundle and their datatypes."""
    return {**OUTPUTS, **STAGED} if model.staged else OUTPUTS


def _platform(model: Model) -> str:
    return model.detector.engine.name if isinstance(model.detector, Detector) else "cascade"


def _bad(what: str, where: str) -> Problem:
    return Problem(400, "bad_tensor", what, where=where, fix="see /docs and the Open Inference Protocol v2")


def _split(body: bytes, length: str | None) -> tuple[dict[str, Any], bytes]:
    if length is None:
        return parsed_json(body), b""
    if not length.isascii() or not length.isdigit() or len(length) > 12 or int(length) > len(body):
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
    if not isinstance(shape, list) or not all(type(s) is int and 0 < s <= 1 << 20 for s in shape[:_DIMENSIONS]):
        raise _bad("The shape must be a list of positive numbers", "inputs[0].shape")
    if not 0 < len(shape) <= _DIMENSIONS:
        raise _bad(f"The shape must have 1 to {_DIMENSIONS} dimensions", "inputs[0].shape")
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


def _sequence(header: dict[str, Any]) -> str | None:
    """Parameter ``sequence_id``, as Triton's clients send it; 0 means none."""
    given = (header.get("parameters") or {}).get("sequence_id")
    return None if given in (None, 0, "") else str(given)


def _wanted(header: dict[str, Any], known: Mapping[str, str]) -> dict[str, bool]:
    """Names of the outputs that were asked for, and whether each goes out as binary data."""
    parameters = header.get("parameters") or {}
    binary = parameters.get("binary_data_output") is True
    outputs = header.get("outputs")
    if not outputs:
        return dict.fromkeys(known, binary)
    if not isinstance(outputs, list) or not all(_known_output(o, known) for o in outputs):
        raise _bad(f"The outputs are {', '.join(known)}", "outputs")
    return {o["name"]: (o.get("parameters") or {}).get("binary_data", binary) is True for o in outputs}


def _known_output(output: object, known: Mapping[str, str]) -> bool:
    if not isinstance(output, dict) or not isinstance(output.get("parameters") or {}, dict):
        return False
    return isinstance(output.get("name"), str) and output["name"] in known


def _values(name: str, answers: Sequence[Answer]) -> list[Any]:
    if name == "decision":
        return [a.decision.label for a in answers]
    if name == "prediction_set":
        return [",".join(sorted(a.decision.prediction_set)) for a in answers]
    return [getattr(a.decision, name) for a in answers]


def _packed(kind: str, values: Sequence[Any]) -> bytes:
    if kind in _PACKED:
        return struct.pack(f"<{len(values)}{_PACKED[kind]}", *values)
    encoded = [v.encode() for v in values]
    return b"".join(struct.pack("<I", len(e)) + e for e in encoded)


def _answered(
    told: dict[str, Any], answers: Sequence[Answer], wanted: dict[str, bool], headers: dict[str, str]
) -> Response:
    outputs, tail = [], b""
    for name, binary in wanted.items():
        kind = {**OUTPUTS, **STAGED}[name]
        tensor: dict[str, Any] = {"name": name, "datatype": kind, "shape": [len(answers)]}
        values = _values(name, answers)
        if binary:
            packed = _packed(kind, values)
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
