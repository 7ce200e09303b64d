"""The server: REST, Open Inference Protocol, page, review queue, log; needs the extra 'serve' and never torch."""

from __future__ import annotations

__all__ = ["require_serve"]


def require_serve() -> None:
    """Raise MissingExtraError where the packages of the extra 'serve' are not installed."""
    from workzone.errors import MissingExtraError

    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "serve", feature="the server") from error
