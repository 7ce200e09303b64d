"""The one form of every error the server answers with: ``{"error": {code, what, where, fix}}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from workzone.errors import BundleError, DataError, ImageError, WorkzoneError
from workzone.vision.reasons import Reason


class Problem(Exception):  # noqa: N818 - an answer to a client, not a fault
    """A request that is refused.

    Args:
        status: HTTP status.
        code: short code for programs; also the label of the counter of rejected requests.
        what: one sentence that says what is wrong.
        where: the part of the request concerned.
        fix: what the client can do.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        what: str,
        *,
        where: str | None = None,
        fix: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(what)
        self.status, self.code, self.what, self.where, self.fix = status, code, what, where, fix
        self.headers = dict(headers or {})
        self.counted = False
        """Whether it is among the figures already, as one picture of a request."""

    def body(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {"code": self.code, "what": self.what, "where": self.where, "fix": self.fix}

    def response(self) -> JSONResponse:
        """The HTTP answer."""
        return JSONResponse({"error": self.body()}, self.status, headers=self.headers)


def of_error(error: Exception, where: str) -> Problem:
    """The problem that ``error`` is to a client; what it tells never names files of the server."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ImageError):
        status = {Reason.TOO_LARGE: 413, Reason.UNSUPPORTED_FORMAT: 415, Reason.NOT_AN_IMAGE: 415}
        return Problem(status.get(Reason(error.reason), 422), error.reason, error.what, where=where, fix=error.fix)
    if isinstance(error, DataError):
        return Problem(422, "bad_columns", error.what, where=where, fix="give the column, see /v1/model for its name")
    if isinstance(error, (BundleError, WorkzoneError)):
        return Problem(500, "bundle", error.what, where=where, fix="tell who runs this server")
    if isinstance(error, MemoryError):
        return Problem(503, "out_of_memory", "There is no memory left for this image", where=where, fix="try again")
    return Problem(
        500,
        "internal",
        "The server failed on this request",
        where=where,
        fix="tell who runs this server the request id",
    )
