"""``/v1``: predict, what is served, and the review queue."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, JSONResponse, Response

from workzone.errors import DataError
from workzone.serving.body import parsed_json
from workzone.serving.openapi import (
    ERRORS,
    PREDICT_BODY,
    PREDICT_PARAMETERS,
    REVIEW_BODY,
    PictureHash,
    Reviewer,
    answered,
    refused,
)
from workzone.serving.places import CHAMPION
from workzone.serving.problems import Problem
from workzone.serving.review import ReviewStore
from workzone.serving.roles import Arm
from workzone.serving.service import Service, answer_json

router = APIRouter(prefix="/v1")
_REVIEWER = re.compile(r"[\w.@ -]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def service_of(request: Request) -> Service:
    """The service of the application that got ``request``."""
    service: Service = request.app.state.service
    return service


def certificate_headers(service: Service) -> dict[str, str]:
    """Headers about the champion, for who never looks into the body."""
    return Arm(CHAMPION, service.model).headers()


@router.post(
    "/predict",
    summary="Decide on one picture or several",
    responses={**answered("The decision, or one for each picture"), **ERRORS},
    openapi_extra={"requestBody": PREDICT_BODY, "parameters": PREDICT_PARAMETERS},
)
async def predict(request: Request) -> Response:
    """Roadwork, no_roadwork or abstain for each picture, and whether the certificate of the answer holds.

    In a batch, a picture that cannot be used has an ``error`` in its place, and the others are answered.
    """
    service = service_of(request)
    asked, arm, results = await service.predict_request(request)
    views = request.query_params.get("views", "0").lower() in ("1", "true", "yes")
    first = results[0]
    if isinstance(first, Problem) and (asked.single or len(results) == 1):
        raise first
    if all(isinstance(r, Problem) and r.code == "deadline" for r in results):
        assert isinstance(first, Problem)
        raise first
    told = [{"error": r.body()} if isinstance(r, Problem) else answer_json(r, views=views) for r in results]
    common = {
        "certificate": arm.model.certificate(),
        "bundle": arm.told(),
        "request_id": request.scope["workzone"].request_id,
    }
    body: dict[str, Any] = {**told[0], **common} if asked.single else {"results": told, **common}
    return JSONResponse(body, headers=arm.headers())


@router.get(
    "/rollout",
    summary="Who answers, and how two bundles compare",
    response_description="Roles and figures",
    responses=refused(ERRORS),
)
async def rollout(request: Request) -> Response:
    """Bundles by role, the split, why a challenger was stopped, and what this process saw of the shadow."""
    service = service_of(request)
    told = service.roles.to_dict()
    if service.shadow is not None and isinstance(told.get("shadow"), dict):
        told["shadow"] = {**dict(told["shadow"]), **service.shadow.to_dict()}  # type: ignore[call-overload]
    if service.judge is not None:
        told["labels"] = service.judge.to_dict()
    return JSONResponse(told)


@router.get(
    "/model",
    summary="What is served",
    responses={**answered("Bundle, certificate, thresholds, columns and limits"), **refused(ERRORS)},
)
async def model(request: Request) -> Response:
    """Bundle, certificate, thresholds of the policy, metadata columns that are needed, and limits."""
    service = service_of(request)
    detector, s = service.model.detector, service.settings
    return JSONResponse(
        {
            "bundle": Arm(CHAMPION, service.model).told(),
            "engine": service.model.engine,
            "policy": detector.policy.name,
            "thresholds": service.model.thresholds(),
            "columns": list(detector.calibrator.needs),
            "certificate": service.model.certificate(),
            "certificate_sentences": detector.certificate.sentences(),
            "limits": {
                "bytes": s.max_bytes,
                "images": s.max_images,
                "pixels": s.max_pixels,
                "deadline_ms": s.deadline_ms,
            },
            "review": service.review is not None,
        },
        headers=certificate_headers(service),
    )


def _store(request: Request) -> ReviewStore:
    store = service_of(request).review
    if store is None:
        raise Problem(
            404, "no_review", "This server keeps no pictures for review", fix="start it with --keep-abstained FOLDER"
        )
    return store


def _reviewer(name: object) -> str:
    if not isinstance(name, str) or not _REVIEWER.fullmatch(name.strip()):
        raise Problem(422, "bad_reviewer", "A reviewer needs a name of 1 to 64 letters", where="reviewer")
    return name.strip()


@router.get(
    "/review",
    summary="Pictures that wait for a reviewer",
    response_description="Pictures and counts",
    responses=refused(ERRORS, 404, 422),
)
def review_queue(request: Request, reviewer: Reviewer = "") -> Response:
    """The next pictures for ``reviewer``, counts, and the pictures on which reviewers disagree."""
    store, name = _store(request), _reviewer(reviewer)
    return JSONResponse({"queue": store.queue_for(name), **store.progress(name)})


@router.post(
    "/review",
    summary="Say what a picture shows",
    response_description="The label is kept; counts of the reviewer",
    responses=ERRORS,
    openapi_extra={"requestBody": REVIEW_BODY},
)
async def review_label(request: Request) -> Response:
    """Append a label; ``undo`` takes the reviewer's last label of this picture back."""
    import asyncio

    store, service = _store(request), service_of(request)
    # A form of another site could be sent without asking; JSON cannot.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem(415, "content_type", "A label is sent as JSON", where="header Content-Type")
    body = await service.body_of(request)
    service.memory.give(len(body))
    value = parsed_json(body)
    name = _reviewer(value.get("reviewer"))
    try:
        sha256 = str(value.get("sha256", ""))
        if not _SHA256.fullmatch(sha256):
            raise DataError("this is no SHA-256 of a picture", fix="reload the page")
        await asyncio.to_thread(store.label, sha256, name, str(value.get("label", "")))
    except DataError as error:
        raise Problem(422, "bad_label", error.what, where="body", fix=error.fix) from error
    return JSONResponse(await asyncio.to_thread(store.progress, name))


@router.get(
    "/review/export",
    summary="Labels as a manifest (CSV)",
    response_class=Response,
    responses={
        200: {"description": "The manifest", "content": {"text/csv": {"schema": {"type": "string"}}}},
        **refused(ERRORS, 404, 422),
    },
)
def review_export(request: Request) -> Response:
    """Manifest of the settled pictures; saved beside the folder ``pictures`` it is read by ``workzone run data=``."""
    return Response(
        _store(request).export(),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="manifest.csv"'},
    )


@router.get(
    "/review/picture/{sha256}",
    summary="A picture of the review queue",
    response_class=Response,
    responses={
        200: {"description": "The picture", "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}},
        **refused(ERRORS, 404, 422),
    },
)
def review_picture(request: Request, sha256: PictureHash) -> Response:
    """The picture as it came."""
    file = _store(request).picture(sha256) if _SHA256.fullmatch(sha256) else None
    if file is None or not file.is_file():
        raise of_picture()
    return FileResponse(file, headers={"Cache-Control": "private, max-age=3600"})


def of_picture() -> Problem:
    """The problem of a picture that is not there."""
    return Problem(404, "no_picture", "There is no such picture in the review queue", fix="reload the page")
