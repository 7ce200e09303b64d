"""One JSON request with a time limit; redirects are refused, since they would carry secrets elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from workzone.monitoring.alerts.base import DeliveryError

_AGAIN = frozenset({408, 425, 429})


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def secret(variable: str) -> str:
    """Value of an environment variable.

    Raises:
        DeliveryError: it is not set.
    """
    found = os.environ.get(variable, "")
    if not found:
        raise DeliveryError(f"the environment variable {variable} is not set", retry=False)
    return found


def post_json(url: str, content: Any, *, timeout: float, headers: Mapping[str, str] | None = None) -> None:
    """Send ``content``; any 2xx answer is success.

    Raises:
        DeliveryError: no connection, too slow, or another answer. The message never holds the address, which may be
            secret, beyond its host.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DeliveryError("the address is no http or https URL", retry=False)
    request = Request(url, json.dumps(content, allow_nan=False).encode(), method="POST")
    for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
        request.add_header(name, value)
    try:
        with build_opener(_NoRedirect).open(request, timeout=timeout) as answer:
            answer.read(1)
    except HTTPError as error:
        error.close()
        again = error.code >= 500 or error.code in _AGAIN
        raise DeliveryError(f"{parts.hostname} answered {error.code}", retry=again) from None
    except (URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise DeliveryError(f"{parts.hostname} cannot be reached: {reason}") from None
